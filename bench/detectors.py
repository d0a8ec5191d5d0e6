"""Compare `/infer` by a memory bank and by a student-teacher model at one gateway, alternately."""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

from artifacts.publishing import publish_model
from bench.infer import figures, publish_bank
from bench.report import Row
from bench.service import Answer, Client, body_of, gateway, multipart, roi_png
from bench.tokens import CACHE, Tokens
from gateway.settings import HOME
from gateway.store.artifact_store import ArtifactStore
from gateway.store.roi_key import RoiKey

HELP = "/infer by a memory bank and by a student-teacher model (random weights), one client, alternately"
_IMAGES = 16
_STUDENT = RoiKey("bench", "student")
_MM_PER_PX = 0.2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this sub-command."""
    parser.add_argument("--bank", type=int, default=10_000, metavar="M")
    parser.add_argument("--layers", default="layer1,layer2,layer3", help="of the student (default: %(default)s)")
    parser.add_argument("--requests", type=int, default=100, help="for each row")


def run(args: argparse.Namespace) -> tuple[str, list[Row]]:
    """Measure. Return a row for each detector and image size, with its answers per answer of the memory bank."""
    tokens = Tokens()
    pngs = [roi_png(tokens, -1 - i) for i in range(_IMAGES)]
    contenders = {
        ("memory bank", 384): (str(args.bank), pngs),
        ("student", 384): (_STUDENT.roi_id, pngs),
        ("student", 128): (_STUDENT.roi_id, [_smaller(png) for png in pngs]),
    }
    forms = {
        name: [multipart(_fields(roi), [("image", png)]) for png in own] for name, (roi, own) in contenders.items()
    }
    answers: dict[tuple[str, int], list[Answer]] = {name: [] for name in contenders}
    with tempfile.TemporaryDirectory() as folder:
        models_dir = Path(folder) / "models"
        publish_bank(models_dir, tokens, args.bank)
        _publish_student(models_dir, tokens, args.layers, Path(folder) / "images")
        with gateway(tokens.repository, models_dir, state_dir=Path(folder) / "state") as (port, _):
            client = Client(port)
            for i in range(-2, args.requests):
                for name, own in forms.items():
                    answer = client.post("/infer", *own[i % _IMAGES])
                    body_of(answer)
                    if i >= 0:
                        answers[name].append(answer)
    rows: list[Row] = []
    for (detector, side), own_answers in answers.items():
        found = figures(own_answers, sum(answer.seconds for answer in own_answers))
        first = rows[0]["p50"] if rows else found["p50"]
        rows.append({"detector": detector, "image": side, **found, "times_faster": round(first / found["p50"], 1)})
    return f"{tokens.source}; bank of {args.bank}, student of {args.layers}", rows


def _fields(roi: str) -> dict[str, str]:
    return {"role_id": _STUDENT.role_id, "roi_id": roi, "mm_per_px": str(_MM_PER_PX)}


def _smaller(png: bytes) -> bytes:
    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert image is not None
    return bytes(cv2.imencode(".png", cv2.resize(image, (128, 128), interpolation=cv2.INTER_AREA))[1])


def _publish_student(models_dir: Path, tokens: Tokens, layers: str, images: Path) -> None:
    """Publish a student with random weights; its speed does not depend on them."""
    images.mkdir()
    for i in range(12):
        (images / f"{i}.png").write_bytes(roi_png(tokens, i))
    command = [sys.executable, "-m", "export", "student-teacher", "--ok", str(images), "--connector", "bench"]
    command += ["--weights", "seed:0", "--layers", layers, "--epochs", "1", "--repository", str(CACHE / "students")]
    done = subprocess.run(command, cwd=HOME, check=True, stdout=subprocess.PIPE, text=True)
    settings = tokens.settings
    store = ArtifactStore(models_dir, keep_versions=settings.keep_versions)
    publish_model(
        store, settings, Path(done.stdout.strip()), _STUDENT, mm_per_px=_MM_PER_PX, images=[images], mode="none"
    )
