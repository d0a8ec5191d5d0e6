"""Measure the cost of metrics, drift and log lines at `/infer`: two gateways alternately, one without them."""

import argparse
import tempfile
from pathlib import Path

import numpy as np

from bench.report import Row
from bench.service import Client, body_of, gateway, multipart, roi_png
from bench.tokens import Tokens

HELP = "/infer with metrics, drift and log lines against the same gateway without them, alternately"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this sub-command."""
    parser.add_argument("--requests", type=int, default=200, help="for each of the two")


def run(args: argparse.Namespace) -> tuple[str, list[Row]]:
    """Measure. Return one row."""
    tokens = Tokens()
    fields = {"role_id": "bench", "roi_id": "observe", "mm_per_px": "0.2"}
    fit, kind = multipart(fields, [("images", roi_png(tokens, i)) for i in range(12)])
    bodies = [multipart(fields, [("image", roi_png(tokens, -1 - i))]) for i in range(8)]
    with tempfile.TemporaryDirectory() as folder:
        models, state = Path(folder) / "models", Path(folder) / "state"
        with (
            gateway(tokens.repository, models, state_dir=state) as (port, _),
            gateway(tokens.repository, models, module="bench.unobserved") as (bare_port, _),
        ):
            clients = {"with": Client(port), "without": Client(bare_port)}
            body_of(clients["with"].post("/fit_ok", fit, kind))
            seconds: dict[str, list[float]] = {name: [] for name in clients}
            for i in range(args.requests + 8):
                body, kind = bodies[i % len(bodies)]
                # The gateways alternate, since the first request of a round finds colder caches.
                for name in sorted(clients, reverse=bool(i % 2)):
                    answer = clients[name].post("/infer", body, kind)
                    body_of(answer)
                    if i >= 8:
                        seconds[name].append(answer.seconds)
    p50 = {name: float(np.median(s)) for name, s in seconds.items()}
    pairs = np.array(seconds["with"]) - np.array(seconds["without"])
    return tokens.source, [
        {
            "requests": args.requests,
            "p50_with_ms": round(p50["with"] * 1e3, 2),
            "p50_without_ms": round(p50["without"] * 1e3, 2),
            "ratio": round(p50["with"] / p50["without"], 4),
            "median_difference_ms": round(float(np.median(pairs)) * 1e3, 3),
        }
    ]
