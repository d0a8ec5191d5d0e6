"""Time `/infer` over a real socket by stage, number of clients and bank size, embedded and through Triton."""

import argparse
import asyncio
import os
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.report import Row
from bench.service import Answer, Client, body_of, gateway, multipart, roi_png, triton
from bench.tokens import Tokens
from gateway.detectors.memory_bank.bank import MemoryBank
from gateway.detectors.memory_bank.detector import bank_files
from gateway.images.decoding import to_model_input
from gateway.networks.embedded.engine import open_network
from gateway.networks.model_description import ModelDescription
from gateway.store.artifact_store import ArtifactStore
from gateway.store.manifest import Manifest, OkImage
from gateway.store.roi_key import RoiKey

HELP = "/infer over a socket, by stage, clients and bank, against the bare network (or a bare gRPC client of Triton)"
_IMAGES = 16
_STAGES = ("decode", "engine", "knn", "postprocess")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this sub-command."""
    parser.add_argument("--engines", nargs="+", default=["embedded"], choices=("embedded", "triton", "triton-grpc"))
    parser.add_argument("--banks", type=int, nargs="+", default=[700, 10_000], metavar="M")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--requests", type=int, default=48, help="for each row")


def run(args: argparse.Namespace) -> tuple[str, list[Row]]:
    """Measure. Return the source of the images, and a row for each engine, bank and number of clients."""
    tokens = Tokens()
    pngs = [roi_png(tokens, -1 - i) for i in range(_IMAGES)]
    bare = open_network(tokens.folder, tokens.model, tokens.settings)
    image = to_model_input(tokens.image(-1), tokens.model.input_size)[None]
    rows: list[Row] = []
    with ExitStack() as stack:
        models_dir = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for size in args.banks:
            publish_bank(models_dir, tokens, size)
        url = stack.enter_context(triton(tokens.repository)) if set(args.engines) - {"embedded"} else ""
        for name in args.engines:
            settings: dict[str, Any] = {"engine": "embedded"}
            if name != "embedded":
                memory = "off" if name == "triton-grpc" else "on"
                settings = {"engine": "triton", "triton_url": url, "triton_shared_memory": memory}
            with gateway(tokens.repository, models_dir, **settings) as (port, _):
                for size in args.banks:
                    forms = [
                        multipart({"role_id": "bench", "roi_id": str(size), "mm_per_px": "0.2"}, [("image", png)])
                        for png in pngs
                    ]
                    for clients in args.clients:
                        answers, seconds, floor = _load(port, forms, clients, args.requests, bare, image, name)
                        row = {"served_by": name, "bank": size, "clients": clients, **figures(answers, seconds)}
                        if floor is not None:
                            row |= {"bare_ms": round(floor * 1e3, 1), "p50_of_bare": round(row["p50"] / floor / 1e3, 2)}
                        if name != "embedded":
                            rate = asyncio.run(_bare_client(url, tokens, image, clients, args.requests))
                            row |= {"bare_client_s": round(rate, 2), "of_bare_client": round(row["per_s"] / rate, 2)}
                        rows.append(row)
    return tokens.source, [{key: row.get(key) for key in dict.fromkeys(k for r in rows for k in r)} for row in rows]


def _load(
    port: int,
    forms: list[tuple[bytes, str]],
    n_clients: int,
    n_requests: int,
    bare: Any,
    image: NDArray[np.uint8],
    name: str,
) -> tuple[list[Answer], float, float | None]:
    """Return answers, total seconds and, for one client of the embedded engine, the median of the bare network."""
    clients = [Client(port) for _ in range(n_clients)]
    for client in clients:
        body_of(client.post("/infer", *forms[0]))
    if n_clients == 1:
        answers, floor = [], []
        for i in range(n_requests):
            answers.append(clients[0].post("/infer", *forms[i % len(forms)]))
            if name == "embedded":
                start = time.perf_counter()
                bare.run(image)
                floor.append(time.perf_counter() - start)
        return answers, sum(a.seconds for a in answers), float(np.median(floor[1:])) if floor else None
    answers = []
    todo = iter(range(n_requests))
    lock = threading.Lock()

    def work(client: Client) -> None:
        while True:
            with lock:
                turn = next(todo, None)
            if turn is None:
                return
            answers.append(client.post("/infer", *forms[turn % len(forms)]))

    threads = [threading.Thread(target=work, args=(client,)) for client in clients]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers, time.perf_counter() - start, None


def figures(answers: list[Answer], seconds: float) -> Row:
    """Return percentiles in milliseconds, answers per second, and medians of the stages."""
    for answer in answers:
        body_of(answer)
    ms = np.array([a.seconds for a in answers]) * 1e3
    stages = {name: float(np.median([a.stages[name] for a in answers])) for name in _STAGES}
    beside = np.median([a.seconds * 1e3 - a.stages["engine"] - a.stages["knn"] for a in answers])
    return {
        "p50": round(float(np.percentile(ms, 50)), 1),
        "p95": round(float(np.percentile(ms, 95)), 1),
        "per_s": round(len(answers) / seconds, 2),
        **{name: round(value, 2) for name, value in stages.items()},
        "beside_engine_and_knn": round(float(beside), 2),
    }


async def _bare_client(url: str, tokens: Tokens, image: NDArray[np.uint8], clients: int, requests: int) -> float:
    """Return the requests per second of a bare gRPC client with the same number of requests at once."""
    from tritonclient.grpc import InferInput, InferRequestedOutput
    from tritonclient.grpc.aio import InferenceServerClient

    tensor = InferInput("image", list(image.shape), "UINT8")
    tensor.set_data_from_numpy(image)
    todo = iter(range(requests))
    async with InferenceServerClient(url) as client:

        async def work() -> None:
            for _ in todo:
                result = await client.infer(
                    tokens.model.name, [tensor], outputs=[InferRequestedOutput("tokens")], priority=1
                )
                result.as_numpy("tokens")

        start = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(clients)))
        return requests / (time.perf_counter() - start)


def publish_bank(models_dir: Path, tokens: Tokens, size: int, model: ModelDescription | None = None) -> None:
    """A memory bank of exactly this size, as a fit would have stored it, for `model` or for the served one."""
    publish_rows(models_dir, RoiKey("bench", str(size)), tokens.bank(size), model or tokens.model)


def publish_rows(models_dir: Path, key: RoiKey, bank: NDArray[np.float16], model: ModelDescription) -> None:
    """A memory bank of these tokens, float16 [M, D]."""
    zeros = np.zeros(len(bank), np.int32)
    store = ArtifactStore(models_dir, keep_versions=1)
    manifest = Manifest(
        role_id=key.role_id,
        roi_id=key.roi_id,
        version=1,
        created_at="2026-01-01T00:00:00.000+00:00",
        model_fingerprint=model.fingerprint,
        extractor=model.extractor,
        token_hw=model.token_hw,
        dim=model.dim,
        coreset_rate=0.02,
        coreset_rate_applied=0.02,
        seed=0,
        k=1,
        p_score=99.0,
        mm_per_px=0.2,
        n_embeddings=len(bank),
        n_tokens_total=50 * len(bank),
        covering_radius=0.5,
        images=(OkImage(sha256=os.urandom(32).hex(), file_name="", extension="png", width=1, height=1, added_in=1),),
        ok_scores=(),
        heatmap_max=1.0,
    )
    with store.lock(key, 10):
        store.publish(key, manifest, bank_files(MemoryBank(bank, zeros, zeros, 0.5), manifest))
