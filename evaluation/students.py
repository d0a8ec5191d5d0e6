"""The second detector: train a student on the OK images of a data set, publish it and inspect with it."""

import csv
import hashlib
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from anyio import to_thread

from artifacts.publishing import PublishError, publish_model
from evaluation.inspection import FitRecipe, Progress
from evaluation.local import LocalInspector
from gateway.networks import TokenEngine
from gateway.networks.student_description import StudentDescription, read_student
from gateway.settings import HOME, Settings
from gateway.store.manifest import DetectorKind
from postprocess.anomaly_map import ScoreRule

_CONNECTOR = "evaluated"


class TrainingFailedError(RuntimeError):
    """The training failed; the reason is on stderr."""


@dataclass(frozen=True, slots=True)
class StudentRecipe:
    """Options of `python -m export student-teacher`; None takes its default."""

    weights: str | None = None
    layers: str | None = None
    size: int | None = None
    epochs: int | None = None

    def arguments(self, seed: int | None) -> list[str]:
        """Return the arguments for the command line."""
        given = {
            "--weights": self.weights,
            "--layers": self.layers,
            "--size": self.size,
            "--epochs": self.epochs,
            "--seed": seed,
        }
        return [text for name, value in given.items() if value is not None for text in (name, str(value))]


class StudentInspector(LocalInspector):
    """Train in a separate process. A student trained before from the same images and options is reused."""

    detector: DetectorKind = "student-teacher"
    rule: ScoreRule = "top_mean"

    def __init__(
        self,
        settings: Settings,
        mm_per_px: float,
        cache: Path,
        recipe: StudentRecipe,
        engine: TokenEngine | None = None,
    ) -> None:
        """Wire.

        Args:
            settings: of the service, with the embedded engine; the models folder is not used.
            mm_per_px: of all images.
            cache: folder for trained students.
            recipe: options of the training.
            engine: token engine to use instead of the one in the settings; a student does not call it.
        """
        super().__init__(settings, mm_per_px, cache / "tokens", engine)
        self._repository = cache / "students"
        self._recipe = recipe
        self._student: StudentDescription | None = None
        self._runtime = "none"

    async def start(self) -> None:
        """Do nothing: the version contains the network."""

    def describe(self) -> dict[str, Any]:
        """See `Inspector.describe`. It describes the last trained student."""
        student = self._student
        assert student is not None
        return {
            "extractor": student.extractor,
            "weights": student.weights.model_dump(),
            "fingerprint": student.fingerprint,
            "layers": [layer.name for layer in student.layers],
            "input_size": student.input_size,
            "token_hw": [student.input_size, student.input_size],
            "runtime": self._runtime,
            **self._judged_with(),
        }

    async def fit(self, images: Sequence[Path], recipe: FitRecipe, progress: Progress) -> dict[str, Any]:
        """Train if necessary, and publish.

        Raises:
            TrainingFailedError: the training failed.
        """
        self._next_roi()
        started = time.perf_counter()
        version, was_there = await to_thread.run_sync(self._trained, images, recipe.seed)
        student = self._student = read_student(version)
        try:
            published = await to_thread.run_sync(
                lambda: publish_model(
                    self._services.store,
                    self.settings,
                    version,
                    self._key,
                    mm_per_px=self._mm_per_px,
                    images=images,
                )
            )
        except PublishError as error:
            raise TrainingFailedError(str(error)) from error
        roi = await self._services.banks.get(self._key)
        self._runtime = (await roi.loaded.detector.engine(self._services.engines)).status.runtime
        progress(len(images))
        training = student.training
        # Some epochs may have run in an earlier process.
        elapsed = 0.0 if was_there else time.perf_counter() - started
        self._learn_s = max(elapsed, training.seconds)
        return {
            "seed": training.seed,
            "n_ok": training.n_train + training.n_validation,
            "n_validation": training.n_validation,
            "n_duplicates": training.n_duplicates,
            "epochs": training.epochs,
            "best_epoch": training.best_epoch,
            "device": training.device,
            "threads": training.threads,
            "trained": "earlier" if was_there else "now",
            "spatial_weights": published.manifest.spatial_weights.kind,
            "suspects": [],
            "warnings": published.warnings,
        }

    def _shared_bytes(self) -> None:
        return None  # each version has its own network

    def _trained(self, images: Sequence[Path], seed: int | None) -> tuple[Path, bool]:
        """Return the version's folder, and whether it existed before."""
        arguments = self._recipe.arguments(seed)
        digest = hashlib.sha256("\0".join(arguments).encode())
        for image in images:
            digest.update(hashlib.sha256(image.read_bytes()).digest())
        repository = self._repository / digest.hexdigest()[:12]
        before = set(repository.glob("st_*/[0-9]*"))
        with TemporaryDirectory(prefix="evaluate-") as folder:
            file = Path(folder) / "ok.csv"
            with file.open("w", newline="", encoding="utf-8") as stream:
                csv.writer(stream).writerows(
                    [("path", "connector", "label"), *((image.resolve(), _CONNECTOR, "OK") for image in images)]
                )
            command = [sys.executable, "-m", "export", "student-teacher", *arguments, "--repository", str(repository)]
            command += ["--csv", str(file), "--connector", _CONNECTOR]
            done = subprocess.run(command, cwd=HOME, stdout=subprocess.PIPE, text=True)
        if done.returncode != 0:
            raise TrainingFailedError(
                "the training failed (see above). Here its --weights is --teacher, its --layers --teacher-layers, and "
                "its --size --student-size"
            )
        version = Path(done.stdout.strip())
        return version, version in before
