"""Time a fit from the upload to the answer."""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from bench.report import Row
from bench.service import Client, body_of, gateway, multipart, peak_memory_mb, roi_png
from bench.tokens import Tokens
from gateway.images.decoding import to_model_input
from gateway.networks.embedded.engine import open_network

HELP = "a fit of 50 images from upload to answer, by stage, against the bare network's time for 50 images"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this sub-command."""
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)


def run(args: argparse.Namespace) -> tuple[str, list[Row]]:
    """Measure. Return the source of the images, and a row for each round."""
    tokens = Tokens()
    n = min(args.images, tokens.n_images)
    files = [("images", roi_png(tokens, i)) for i in range(n)]
    bare = open_network(tokens.folder, tokens.model, tokens.settings)
    pixels = np.stack([to_model_input(tokens.image(i), tokens.model.input_size) for i in range(n)])
    bare.run(pixels[:1])
    rows = []
    with (
        tempfile.TemporaryDirectory() as folder,
        gateway(tokens.repository, Path(folder), engine="embedded") as (port, pid),
    ):
        idle = peak_memory_mb(pid)
        for turn in range(args.rounds):
            start = time.perf_counter()
            bare.run(pixels)
            floor = time.perf_counter() - start
            answer = Client(port).post(
                "/fit_ok", *multipart({"role_id": "bench", "roi_id": str(turn), "mm_per_px": "0.2"}, files)
            )
            body = body_of(answer)
            rows.append(
                {
                    "round": turn,
                    "images": n,
                    "centres": body["n_embeddings"],
                    "seconds": round(answer.seconds, 2),
                    **{name: round(ms / 1e3, 2) for name, ms in answer.stages.items() if name != "total"},
                    "bare_network": round(floor, 2),
                    "of_bare": round(answer.seconds / floor, 2),
                    "peak_MB": round(peak_memory_mb(pid)),
                    "idle_MB": round(idle),
                }
            )
    return tokens.source, rows
