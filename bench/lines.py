"""Many lines at one Triton: latency by line, quiet lines beside a flooding one, and what an image costs a gateway."""

import argparse
import json
import os
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bench.infer import publish_rows
from bench.report import Row
from bench.servers import MODEL, stand_in_repository
from bench.service import Client, gateway, multipart, roi_png, triton
from bench.tokens import Tokens
from gateway.networks.model_description import ModelDescription
from gateway.store.roi_key import RoiKey

HELP = "N lines with M ROIs each, at a fixed rate, against one Triton: latency by line, and fairness beside a flood"

_BANK = 700
_LOCK = threading.Lock()
_FLOOD = 8
"""Connections of a flooding line, each of which sends its next part when the last one is answered."""


@dataclass
class Line:
    """What one line has sent and got."""

    ms: list[float] = field(default_factory=list)
    """From the time at which a part was due to its answer."""
    n_refused: int = 0
    """Images, or whole parts, that were answered with an error, such as 429."""
    n_images: int = 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this sub-command."""
    parser.add_argument("--lines", type=int, nargs="+", default=[4, 16, 50], metavar="N")
    parser.add_argument("--rois", type=int, default=4, metavar="M", help="of a part; they go in one /infer_batch")
    parser.add_argument("--rate", type=float, default=0.2, help="parts a second, of each line")
    parser.add_argument("--seconds", type=float, default=20, help="of each row")
    parser.add_argument("--gateways", type=int, nargs="+", default=[1], metavar="G", help="lines take turns among them")
    parser.add_argument("--ms", type=float, default=3, help="time that the stand-in network takes for an image")
    parser.add_argument("--real", action="store_true", help="the exported network in place of the stand-in")
    parser.add_argument("--memory", nargs="+", default=["on", "off"], choices=("on", "off"), help="shared memory")


def run(args: argparse.Namespace) -> tuple[str, list[Row]]:
    """Measure; returns what the network is, and two rows for each number of lines: without and with a flooding line."""
    rows = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        tokens = Tokens()
        model, repository = tokens.exported, tokens.repository
        if not args.real:
            # Tokens as those of the bank: a search among made up ones takes several times as long.
            model, repository = MODEL, stand_in_repository(folder, args.ms, tokens.of_last(1)[0])
        part = _part(folder / "models", tokens, model, args.rois)
        url = stack.enter_context(triton(repository))
        for memory in args.memory:
            for n_gateways in args.gateways:
                with ExitStack() as running:
                    served = [
                        running.enter_context(
                            gateway(
                                folder / "none",
                                folder / "models",
                                engine="triton",
                                triton_url=url,
                                triton_shared_memory=memory,
                                state_dir=folder / f"state-{number}",
                            )
                        )
                        for number in range(n_gateways)
                    ]
                    for n_lines in args.lines:
                        for floods in (False, True):
                            row = {"memory": memory, "gateways": n_gateways, "lines": n_lines, "flood": floods}
                            rows.append(row | _measured(args, served, n_lines, part, floods=floods))
    what = "exported network" if args.real else f"stand-in network of {args.ms:g} ms an image"
    return f"{what}; {args.rois} ROIs a part, {args.rate:g} parts a second of each line, banks of {_BANK}", rows


def _part(models_dir: Path, tokens: Tokens, model: ModelDescription, n_rois: int) -> tuple[bytes, str]:
    """Publish the ROIs of a part, and return the request that inspects it."""
    items, images = [], []
    for number in range(n_rois):
        publish_rows(models_dir, RoiKey("bench", f"roi-{number}"), tokens.bank(_BANK), model)
        items.append({"role_id": "bench", "roi_id": f"roi-{number}", "mm_per_px": 0.2})
        images.append(("images", roi_png(tokens, -1 - number)))
    return multipart({"items": json.dumps(items)}, images)


def _measured(
    args: argparse.Namespace,
    served: Sequence[tuple[int, int]],
    n_lines: int,
    part: tuple[bytes, str],
    *,
    floods: bool,
) -> Row:
    lines = [Line() for _ in range(n_lines)]
    flood = Line()
    cpu = sum(_cpu_s(pid) for _, pid in served)
    starts = time.monotonic() + 0.5
    ends = starts + args.seconds
    threads = []
    for number, line in enumerate(lines):
        first = starts + number / n_lines / args.rate  # lines do not start together
        client = Client(served[number % len(served)][0], _source(number))
        given = (line, client, part, first, 1 / args.rate, ends)
        threads.append(threading.Thread(target=_send, args=given))
    if floods:
        clients = [Client(served[0][0], _source(n_lines)) for _ in range(_FLOOD)]
        threads += [threading.Thread(target=_send, args=(flood, each, part, starts, 0.0, ends)) for each in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cpu = sum(_cpu_s(pid) for _, pid in served) - cpu
    n_images = flood.n_images + sum(line.n_images for line in lines)
    p50 = [float(np.percentile(line.ms, 50)) for line in lines]
    p99 = [float(np.percentile(line.ms, 99)) for line in lines]
    return {
        "p50_ms": round(float(np.median(p50)), 1),
        "p50_of_slowest_line": round(max(p50), 1),
        "p99_ms": round(float(np.median(p99)), 1),
        "p99_of_slowest_line": round(max(p99), 1),
        "refused": sum(line.n_refused for line in lines),
        "flood_refused": flood.n_refused,
        "images_s": round(n_images / args.seconds, 1),
        "gateway_cpu_ms_an_image": round(cpu / max(n_images, 1) * 1e3, 1),
    }


def _source(number: int) -> str:
    """Return the address of a line: a gateway without keys tells lines apart by their addresses."""
    return f"127.0.{1 + number // 250}.{1 + number % 250}"


def _send(line: Line, client: Client, part: tuple[bytes, str], first: float, every_s: float, ends: float) -> None:
    """Send a part at its due times until the end; without a period, send the next at the answer.

    After a refusal, a line without a period waits for as long as it is told to, as the clients of this project do.
    """
    due = first
    while due < ends:
        time.sleep(max(0.0, due - time.monotonic()))
        answer = client.post("/infer_batch", *part)
        results = json.loads(answer.body).get("results", [])
        now = time.monotonic()
        n_errors = sum("error" in each for each in results)
        with _LOCK:
            line.ms.append((now - due) * 1e3)
            line.n_images += len(results) - n_errors
            line.n_refused += n_errors if answer.status == 200 else 1
        due = due + every_s if every_s else now + answer.retry_after_s


def _cpu_s(pid: int) -> float:
    """Return the time that a process has spent on processors."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
