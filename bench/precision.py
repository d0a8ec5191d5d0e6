"""`/infer` in f32, bf16 and int8, side by side: three gateways at once, asked in turn."""

import argparse
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.infer import publish_bank
from bench.report import Row, interleave
from bench.service import Client, body_of, gateway, multipart, roi_png
from bench.tokens import Tokens
from gateway.images.decoding import to_model_input
from gateway.networks.embedded.runtimes import OpenVinoNetwork, Precision, supports_bf16
from gateway.networks.model_description import ModelDescription

HELP = "/infer in f32, bf16 and int8 (after `python -m export --int8 DIR`), side by side, and the bare network in each"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this sub-command."""
    parser.add_argument("--banks", type=int, nargs="+", default=[700, 10_000], metavar="M")
    parser.add_argument("--rounds", type=int, default=21)


def run(args: argparse.Namespace) -> tuple[str, list[Row]]:
    """Measure; returns what the images are and a row for each bank and precision."""
    tokens = Tokens()
    models: dict[Precision, ModelDescription] = {"f32": tokens.exported}
    if supports_bf16():
        models["bf16"] = tokens.exported
    if tokens.exported.int8 is not None and tokens.exported.int8.passed:
        models["int8"] = tokens.exported.as_int8()
    image = to_model_input(tokens.image(-1), tokens.model.input_size)[None]
    png = roi_png(tokens, -1)
    with ExitStack() as stack:
        clients = {}
        ways: dict[str, Callable[[int], object]] = {}
        for precision, model in models.items():
            models_dir = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            for size in args.banks:
                publish_bank(models_dir, tokens, size, model)
            served = gateway(tokens.repository, models_dir, device="cpu", precision=precision)
            clients[precision] = Client(stack.enter_context(served)[0])
            network = OpenVinoNetwork(tokens.folder, model, precision=precision, threads=tokens.settings.threads)
            ways[f"bare {precision}"] = partial(_run, network, image)
        for size in args.banks:
            form = multipart({"role_id": "bench", "roi_id": str(size), "mm_per_px": "0.2"}, [("image", png)])
            for precision, client in clients.items():
                ways[f"{size} {precision}"] = partial(_inspect, client, form)
        seconds = interleave(ways, args.rounds)
    middle = {name: float(np.median(each)) for name, each in seconds.items()}
    rows = []
    for size in args.banks:
        for precision in models:
            row: Row = {"bank": size, "precision": precision}
            row |= {"bare_ms": round(middle[f"bare {precision}"] * 1e3, 1)}
            row |= {"infer_ms": round(middle[f"{size} {precision}"] * 1e3, 1)}
            for other in models:
                row[f"infer_of_{other}"] = _ratio(seconds[f"{size} {precision}"], seconds[f"{size} {other}"])
                row[f"infer_of_bare_{other}"] = _ratio(seconds[f"{size} {precision}"], seconds[f"bare {other}"])
            rows.append(row)
    return tokens.source, rows


def _run(network: OpenVinoNetwork, image: NDArray[np.uint8], _: int) -> object:
    return network.run(image)


def _inspect(client: Client, form: tuple[bytes, str], _: int) -> object:
    return body_of(client.post("/infer", *form))


def _ratio(seconds: NDArray[np.float64], reference: NDArray[np.float64]) -> float:
    """Return the median of the ratios of one round."""
    return round(float(np.median(seconds / reference)), 2)
