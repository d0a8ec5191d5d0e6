"""What `/infer` costs beside the network, stage by stage: the whole over a socket, and each function by itself."""

import argparse
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.infer import publish_bank
from bench.report import Row
from bench.service import Answer, Client, body_of, gateway, multipart, roi_png
from bench.tokens import Tokens
from gateway.api.answers.inspection import inspection_body
from gateway.api.responses import JsonResponse
from gateway.calibration.calibrate import calibrate
from gateway.calibration.request import CalibrationRequest
from gateway.images.appearance import look
from gateway.images.content import why_nothing_shows
from gateway.images.decoding import Limits, decode_picture, read_header, to_model_input
from gateway.images.identity import pixel_digest
from gateway.inspection.answer import Inspection
from gateway.inspection.params import InferParams
from gateway.monitoring.timing import StageTimes
from gateway.settings import HOME
from gateway.store.artifact_store import ArtifactStore
from gateway.store.roi_key import RoiKey
from postprocess.anomaly_map import blur, scored_map
from postprocess.heatmap import encode_heatmap
from postprocess.peak import peak
from postprocess.regions import find_regions

HELP = "what /infer costs beside the network, stage by stage, at a 384 x 384 PNG; the network answers at once"
_BANK = 700
_STAGES = ("decode", "postprocess")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this sub-command."""
    parser.add_argument("--requests", type=int, default=200)


def run(args: argparse.Namespace) -> tuple[str, list[Row]]:
    """Measure; returns what the images are and a row for each stage: the whole first, then its parts."""
    tokens = Tokens()
    png = roi_png(tokens, -1)
    key = RoiKey("bench", str(_BANK))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        models, state = folder / "models", folder / "state"
        publish_bank(models, tokens, _BANK)
        store = ArtifactStore(models, keep_versions=1)
        given = CalibrationRequest(mm_per_px=0.2, ok_scores=[0.3] * 60)
        calibrate(store, tokens.settings, key, given)
        form = multipart({"role_id": key.role_id, "roi_id": key.roi_id, "mm_per_px": "0.2"}, [("image", png)])
        ms: dict[str, list[float]] = {name: [] for name in ("beside", "client", *_STAGES)}
        served = gateway(tokens.repository, models, module="bench.instant", device="cpu", state_dir=state)
        port, _ = stack.enter_context(served)
        client = Client(port)
        first = client.post("/infer", *form)
        body_of(first)
        alone = Client(stack.enter_context(_only_answers(first, folder)))
        for _ in range(args.requests):
            answer = client.post("/infer", *form)
            body_of(answer)
            stages = answer.stages
            ms["beside"].append(answer.seconds * 1e3 - stages["engine"] - stages["knn"])
            for name in _STAGES:
                ms[name].append(stages[name])
            ms["client"].append(alone.post("/infer", *form).seconds * 1e3)
        parts = {name: _timed(call) for name, call in _parts(png, tokens, store, key).items()}
    of = {name: np.array(each) for name, each in ms.items()}
    around = of["beside"] - of["decode"] - of["postprocess"]
    rows = [
        _row("beside network and search", of["beside"]),
        _row("decode", of["decode"]),
        *(_row(f"  {name}", value) for (stage, name), value in parts.items() if stage == "decode"),
        _row("postprocess", of["postprocess"]),
        *(_row(f"  {name}", value) for (stage, name), value in parts.items() if stage == "postprocess"),
        _row("client and socket alone", of["client"]),
        _row("HTTP, form, threads, files, client", around),
        *(_row(f"  {name}", value) for (stage, name), value in parts.items() if stage == "around"),
    ]
    return tokens.source, rows


@contextmanager
def _only_answers(answer: Answer, folder: Path) -> Iterator[int]:
    """Start a server that answers at once with an answer of this length; yield its port."""
    file = folder / "answer"
    file.write_bytes(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(answer.body), answer.body))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = [sys.executable, "-m", "bench.only_answers", str(listener.fileno()), str(file)]
        with subprocess.Popen(command, cwd=HOME, pass_fds=(listener.fileno(),)) as process:
            try:
                yield listener.getsockname()[1]
            finally:
                process.terminate()


def _parts(
    png: bytes, tokens: Tokens, store: ArtifactStore, key: RoiKey
) -> dict[tuple[str, str], Callable[[], object]]:
    """Return the functions of an inspection, each with what it gets there."""
    limits = Limits(tokens.settings.max_image_bytes, tokens.settings.max_image_pixels)
    header = read_header(png, "image.png", limits)
    picture = decode_picture(png, "image.png", header)
    image = to_model_input(picture.pixels, tokens.model.input_size)
    distances = np.linalg.norm(tokens.of_last(1)[0] - tokens.of_last(2)[0], axis=1)
    hw, wh = tokens.model.token_hw, header.upright_size
    full, score = scored_map(distances, hw, wh, percentile=99)
    blurred = blur(full, 1.0)
    heatmap = encode_heatmap(blurred, 1.4142)
    manifest = store.manifest(key, store.current(key))
    result = _answer(key, score, heatmap, wh, hw)
    return {
        ("decode", "header"): lambda: read_header(png, "image.png", limits),
        ("decode", "pixels"): lambda: decode_picture(png, "image.png", header),
        ("decode", "resize"): lambda: to_model_input(picture.pixels, tokens.model.input_size),
        ("decode", "shows something"): lambda: why_nothing_shows(picture, image),
        ("decode", "brightness, sharpness"): lambda: look(image),
        ("decode", "digest"): lambda: pixel_digest(picture.pixels),
        ("postprocess", "map and score"): lambda: scored_map(distances, hw, wh, percentile=99),
        ("postprocess", "blur"): lambda: blur(full, 1.0),
        ("postprocess", "peak"): lambda: peak(blurred, None, 25),
        ("postprocess", "one region, the whole image"): lambda: find_regions(blurred, 0.0, 0.2, 1.0),
        ("postprocess", "heatmap"): lambda: encode_heatmap(blurred, 1.4142),
        ("around", "version in use, twice"): lambda: (store.current(key), store.current(key)),
        ("around", "calibration"): lambda: store.calibration(key, manifest),
        ("around", "body"): lambda: JsonResponse(inspection_body(result)),
    }


def _answer(key: RoiKey, score: float, heatmap: bytes, wh: tuple[int, int], hw: tuple[int, int]) -> Inspection:
    return Inspection(
        key=key,
        score=score,
        threshold=score,
        peak=score,
        peak_threshold=score,
        review_threshold=None,
        threshold_source=None,
        verdict="ok",
        verdict_reason=None,
        calibration_stale=False,
        weights_stale=False,
        degraded=False,
        regions=[],
        heatmap_png=heatmap,
        heatmap_path=None,
        heatmap_max=1.4142,
        image_size=wh,
        token_hw=hw,
        params=InferParams("", 0.02, 1, 99.0, 1.0, 1.0, 0.2, None),
        version=1,
        times=StageTimes(),
    )


def _timed(call: Callable[[], object], rounds: int = 100) -> NDArray[np.float64]:
    """Return the milliseconds of each call, after one that does not count."""
    call()
    found = np.empty(rounds)
    for i in range(rounds):
        start = time.perf_counter()
        call()
        found[i] = (time.perf_counter() - start) * 1e3
    return found


def _row(name: str, ms: NDArray[np.float64]) -> Row:
    """Return the least and the median: on a busy machine, the least is what the work itself takes."""
    return {"stage": name, "least_ms": round(float(ms.min()), 3), "median_ms": round(float(np.median(ms)), 3)}
