"""`/infer` of a large image as a whole and in tiles, side by side: one gateway, asked in turn."""

import argparse
import tempfile
from collections import defaultdict
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from bench.report import Row, interleave
from bench.service import Answer, Client, body_of, gateway, multipart
from bench.tokens import Tokens
from evaluation.samples import MM_PER_PX, plate

HELP = "/infer of a drawn plate as a whole and in tiles, side by side, with banks that the same OK images gave"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this sub-command."""
    parser.add_argument("--tiles", type=int, nargs="+", default=[1, 4, 9], metavar="N", help="at most so many")
    parser.add_argument("--side", type=int, default=1536, help="of the images, in pixels (default: %(default)s)")
    parser.add_argument("--learn", type=int, default=10, metavar="N", help="OK images (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=11)


def run(args: argparse.Namespace) -> tuple[str, list[Row]]:
    """Measure; returns what the images are, and a row for each number of tiles."""
    tokens, random = Tokens(), np.random.default_rng(0)
    *learned, unseen = (cv2.imencode(".png", plate(random, args.side))[1].tobytes() for _ in range(args.learn + 1))
    answers: dict[int, list[Answer]] = defaultdict(list)
    rows: dict[int, Row] = {}
    ways = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        gateway(tokens.repository, Path(folder), max_tiles=max(args.tiles)) as (port, _),
    ):
        client = Client(port)
        for n in args.tiles:
            fields = {"role_id": "bench", "roi_id": str(n), "mm_per_px": str(MM_PER_PX)}
            form = multipart({**fields, "tiles": str(n)}, [("images", png) for png in learned])
            answer = client.post("/fit_ok", *form)
            fitted = body_of(answer)
            rows[n] = {"tiles": fitted["tiles"], "grid": fitted["token_shape"], "bank": fitted["n_embeddings"]}
            rows[n] |= {"fit_s": round(answer.seconds, 1)}
            ways[str(n)] = partial(_inspect, client, multipart(fields, [("image", unseen)]), answers[n])
        seconds = interleave(ways, args.rounds)
    first = args.tiles[0]
    for n, row in rows.items():
        row |= {"infer_ms": round(float(np.median(seconds[str(n)])) * 1e3, 1)}
        row |= {f"infer_of_{first}": round(float(np.median(seconds[str(n)] / seconds[str(first)])), 2)}
        stages = [each.stages for each in answers[n]]
        row |= {name: round(float(np.median([each[name] for each in stages])), 1) for name in stages[0]}
    return f"drawn plates of {args.side} × {args.side}; {tokens.source.partition('; ')[2]}", list(rows.values())


def _inspect(client: Client, form: tuple[bytes, str], answers: list[Answer], _: int) -> object:
    answers.append(client.post("/infer", *form))
    return body_of(answers[-1])
