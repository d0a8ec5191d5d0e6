"""The services with one models folder and a token engine that can be computed by hand."""

import asyncio
import functools
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from gateway.calibration.calibrate import calibrate
from gateway.calibration.request import CalibrationRequest
from gateway.detectors.spatial_weighting import SpatialWeighting
from gateway.inspection.answer import Inspection
from gateway.inspection.pipeline import InspectionPipeline
from gateway.inspection.request import InferRequest
from gateway.inspection.version_cache import VersionCache
from gateway.learning.request import FitRequest, FitResult, ImageFile
from gateway.learning.service import FitService
from gateway.learning.stored_images import StoredImages
from gateway.learning.stored_scores import StoredScorer
from gateway.learning.storing import ImageStorer, StoreRequest, StoreResult
from gateway.monitoring.artifact_faults import counted_faults
from gateway.networks.registry import EngineRegistry
from gateway.settings import Settings
from gateway.store.artifact_store import ArtifactStore
from gateway.store.labelled_images import Label
from gateway.store.manifest import Calibration, Manifest
from gateway.store.roi_key import RoiKey
from gateway.worker_threads import in_thread
from tests.gateway.brightness_engine import BrightnessEngine, image, sha256

KEY = RoiKey("part", "face")
EVEN = [image(grey) for grey in range(0, 120, 10)]  # 12 images, each 10 away from its neighbours
STRAY = image(250)


def request_of(data: bytes, **fields: Any) -> InferRequest:
    return InferRequest(key=KEY, image=data, image_name="x.png", mm_per_px=1.0, heatmap="none", **fields)


class Bench:
    """The services with one models folder."""

    def __init__(self, folder: Path, store: ArtifactStore | None = None, **settings: Any) -> None:
        defaults = {"models_dir": folder, "cache_dir": folder.parent / "cache", "coreset_rate": 1.0, "blur_sigma": 0}
        self.settings = Settings(_env_file=None, **{**defaults, **settings})
        self.engine = BrightnessEngine()
        self.engines = EngineRegistry(self.engine, self.settings)
        self.store = store or ArtifactStore(folder, keep_versions=5, faults=counted_faults())
        self.weighting = SpatialWeighting.from_settings(self.settings)
        self.fitting = FitService(self.engines, self.store, self.weighting, self.settings)
        self.images = StoredImages(self.store, self.settings)
        self.storing = ImageStorer(self.engine, self.store, self.settings)
        banks = VersionCache(self.store, max_bytes=1 << 30)
        self.pipeline = InspectionPipeline(self.engines, banks, self.store, self.weighting, self.settings)

    def fit(self, images: Sequence[bytes], **fields: Any) -> FitResult:
        files = [ImageFile(f"{i}.png", lambda data=data: data) for i, data in enumerate(images)]
        return asyncio.run(self.fitting.fit(FitRequest(key=KEY, images=files, mm_per_px=1.0, **fields)))

    def fit_stored(self, **fields: Any) -> FitResult:
        return asyncio.run(self.fitting.fit(FitRequest(key=KEY, images=(), mm_per_px=1.0, stored=True, **fields)))

    def keep(
        self, label: Label, images: Sequence[bytes], metadata: Sequence[str | None] = (), **fields: Any
    ) -> StoreResult:
        """Store images with a label."""
        files = [ImageFile(f"{i}.png", lambda data=data: data) for i, data in enumerate(images)]
        metadata = metadata or [None] * len(files)
        return asyncio.run(self.storing.add(StoreRequest(KEY, label, files, metadata, **fields)))

    def remove(self, data: bytes) -> FitResult:
        return asyncio.run(self.fitting.remove(KEY, sha256(data)))

    def infer(self, data: bytes, **fields: Any) -> Inspection:
        return asyncio.run(self.pipeline.infer(request_of(data, **fields)))

    def calibrate_stored(self, **fields: Any) -> tuple[Calibration, list[str]]:
        """Calibrate with the stored images of the ROI, in a worker thread as in the gateway."""
        request = CalibrationRequest(**{"mm_per_px": 1.0, **fields})
        scorer = StoredScorer(self.engines, self.store, self.settings)
        work = functools.partial(
            calibrate, self.store, self.settings, KEY, request, functools.partial(scorer.of_version, KEY)
        )

        async def run() -> tuple[Calibration, list[str]]:
            return (await in_thread(work, limiter=nullcontext()))[1:]

        return asyncio.run(run())

    def calibrate(self, **fields: Any) -> Calibration:
        return calibrate(self.store, self.settings, KEY, CalibrationRequest(**{"mm_per_px": 1.0, **fields}))[1]

    @property
    def manifest(self) -> Manifest:
        return self.store.manifest(KEY, self.store.current(KEY))

    @property
    def calibration(self) -> Calibration:
        stored = self.store.calibration(KEY, self.manifest).calibration
        assert stored is not None
        return stored.model_copy(update={"kept_with": None})  # the same for all versions
