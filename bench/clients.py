"""Compare the Python client with a bare httpx client at one gateway, with several requests in flight."""

import argparse
import asyncio
import itertools
import tempfile
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from patchcore_client import AsyncPatchcoreClient, PatchcoreClient

from bench.report import Row, interleave
from bench.service import gateway, roi_png
from bench.tokens import Tokens

HELP = "the Python client against bare httpx, requests a second with several in flight"
_ROI = ("bench", "clients")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this sub-command."""
    parser.add_argument("--in-flight", type=int, default=8)
    parser.add_argument("--requests", type=int, default=64, help="for each of the four in each round")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--heatmap", default="base64", choices=["base64", "none"])


def run(args: argparse.Namespace) -> tuple[str, list[Row]]:
    """Measure. Return a row for asynchronous clients and a row for threads."""
    tokens = Tokens()
    images = [roi_png(tokens, -1 - i) for i in range(8)]
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / "state"
        with gateway(tokens.repository, Path(folder) / "models", state_dir=state, max_queue_s=600) as (port, _):
            url = f"http://127.0.0.1:{port}"
            with PatchcoreClient(url) as client:
                client.fit_ok(*_ROI, [roi_png(tokens, i) for i in range(12)], mm_per_px=0.2)
            rows = [_row(name, args, contenders, url, images) for name, contenders in _KINDS.items()]
    return tokens.source, rows


def _row(
    name: str,
    args: argparse.Namespace,
    contenders: dict[str, Callable[..., None]],
    url: str,
    images: list[bytes],
) -> Row:
    processor: dict[str, list[float]] = {each: [] for each in contenders}

    def timed(which: str, contender: Callable[..., None]) -> Callable[[int], None]:
        def one(index: int) -> None:
            start = time.process_time()
            contender(url, images, args)
            if index >= 0:
                processor[which].append(time.process_time() - start)

        return one

    seconds = interleave({which: timed(which, contender) for which, contender in contenders.items()}, args.rounds)
    ours, bare = seconds["client"], seconds["httpx"]
    return {
        "kind": name,
        "in_flight": args.in_flight,
        "heatmap": args.heatmap,
        "client_per_s": round(args.requests / float(np.median(ours)), 1),
        "httpx_per_s": round(args.requests / float(np.median(bare)), 1),
        "ratio": round(float(np.median(bare / ours)), 3),
        "client_cpu_ms": round(float(np.median(processor["client"])) / args.requests * 1e3, 2),
        "httpx_cpu_ms": round(float(np.median(processor["httpx"])) / args.requests * 1e3, 2),
    }


def _form(args: argparse.Namespace) -> dict[str, str]:
    return {"role_id": _ROI[0], "roi_id": _ROI[1], "mm_per_px": "0.2", "heatmap": args.heatmap}


def _bare_threads(url: str, images: list[bytes], args: argparse.Namespace) -> None:
    def infer(image: bytes) -> Any:
        response = client.post("/infer", data=_form(args), files={"image": ("image.png", image)})
        return response.raise_for_status().json()["score"]

    with httpx.Client(base_url=url, timeout=600) as client, ThreadPoolExecutor(args.in_flight) as pool:
        list(pool.map(infer, itertools.islice(itertools.cycle(images), args.requests)))


def _client_threads(url: str, images: list[bytes], args: argparse.Namespace) -> None:
    def infer(image: bytes) -> Any:
        return client.infer(*_ROI, image, mm_per_px=0.2, heatmap=args.heatmap).score

    with PatchcoreClient(url, timeout_s=600) as client, ThreadPoolExecutor(args.in_flight) as pool:
        list(pool.map(infer, itertools.islice(itertools.cycle(images), args.requests)))


def _bare_async(url: str, images: list[bytes], args: argparse.Namespace) -> None:
    async def everything() -> None:
        async with httpx.AsyncClient(base_url=url, timeout=600) as client:

            async def infer(image: bytes) -> Any:
                response = await client.post("/infer", data=_form(args), files={"image": ("image.png", image)})
                return response.raise_for_status().json()["score"]

            await _in_flight(infer, images, args)

    asyncio.run(everything())


def _client_async(url: str, images: list[bytes], args: argparse.Namespace) -> None:
    async def everything() -> None:
        async with AsyncPatchcoreClient(url, timeout_s=600) as client:

            async def infer(image: bytes) -> Any:
                return (await client.infer(*_ROI, image, mm_per_px=0.2, heatmap=args.heatmap)).score

            await _in_flight(infer, images, args)

    asyncio.run(everything())


async def _in_flight(
    infer: Callable[[bytes], Awaitable[object]], images: list[bytes], args: argparse.Namespace
) -> None:
    waiting = itertools.islice(itertools.cycle(images), args.requests)

    async def worker() -> None:
        for image in waiting:
            await infer(image)

    await asyncio.gather(*(worker() for _ in range(args.in_flight)))


_KINDS = {
    "asyncio": {"httpx": _bare_async, "client": _client_async},
    "threads": {"httpx": _bare_threads, "client": _client_threads},
}
