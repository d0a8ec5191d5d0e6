"""Evaluate with the service's own code in this process, on a separate models folder."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from anyio import to_thread
from numpy.typing import NDArray

from evaluation.data import Sample
from evaluation.inspection import Calibrated, Cost, FitRecipe, Judged, Progress
from evaluation.tokens import RememberingEngine
from gateway.calibration.calibrate import calibrate
from gateway.calibration.request import CalibrationRequest
from gateway.errors import EngineUnavailableError, GatewayError
from gateway.images.decoding import Limits, decode, read_header
from gateway.inspection.pipeline import InspectionPipeline
from gateway.inspection.request import HeatmapMode, InferRequest
from gateway.learning.request import FitRequest, ImageFile
from gateway.learning.service import FitService
from gateway.networks import TokenEngine
from gateway.networks.model_description import GRAPH_FILE, DescriptionError, newest_version
from gateway.networks.model_tiling import tiling_of
from gateway.networks.registry import EngineRegistry
from gateway.process.services import create_services
from gateway.settings import Settings
from gateway.store.manifest import DetectorKind
from gateway.store.roi_key import RoiKey
from postprocess.anomaly_map import ScoreRule, anomaly_map, blur, upsample

_BATCH = 8
_WARM_UP = 3


class LocalInspector:
    """The gateway's services, with cached tokens."""

    detector: DetectorKind = "memory-bank"
    rule: ScoreRule = "percentile"
    maps = "anomaly maps in float32, after the blur"

    def __init__(
        self,
        settings: Settings,
        mm_per_px: float,
        cache: Path,
        engine: TokenEngine | None = None,
        *,
        timings: bool = False,
    ) -> None:
        """Connect the parts. `start` loads the network.

        Args:
            settings: of the service; the models folder is not used.
            mm_per_px: of all images.
            cache: folder where tokens are kept.
            engine: engine to use instead of the one in the settings.
            timings: fit without cached tokens, to time it as in the service.
        """
        self._folder = TemporaryDirectory(prefix="evaluate-")
        models = Path(self._folder.name)
        self.settings = settings.model_copy(update={"models_dir": models / "models", "cache_dir": models / "cache"})
        services = create_services(self.settings)
        # The services get the unchanged settings, so that compiled networks are cached where the gateway caches them.
        inner = engine or create_services(settings).engine
        self.engine = RememberingEngine(inner, cache)
        self._services = replace(
            services,
            engines=(engines := EngineRegistry(self.engine, self.settings)),
            pipeline=InspectionPipeline(engines, services.banks, services.store, services.weighting, self.settings),
            fitting=FitService(self.engine, services.store, services.weighting, self.settings),
        )
        self._mm_per_px = mm_per_px
        self._timings = timings
        self._learn_s: float | None = None
        self._n_fits = 0
        self._key = RoiKey("evaluation", "0")
        self._limits = Limits(settings.max_image_bytes, settings.max_image_pixels)

    async def start(self) -> None:
        """Load the network.

        Raises:
            EngineUnavailableError: the network cannot be loaded; the message says why.
        """
        await self.engine.start()
        status = self.engine.status
        if not status.ready:
            raise EngineUnavailableError(f"no tokens: {status.reason}", retry_after_s=0)

    def describe(self) -> dict[str, Any]:
        """See `Inspector.describe`."""
        model = self.engine.model
        return {
            "extractor": model.extractor,
            "weights": model.weights.model_dump(),
            "fingerprint": model.fingerprint,
            "layers": list(model.layers),
            "scales": list(model.scales),
            "input_size": model.input_size,
            "token_hw": list(model.token_hw),
            "runtime": self.engine.status.runtime,
            "k": self.settings.k,
            **self._judged_with(),
        }

    def _judged_with(self) -> dict[str, Any]:
        return {
            "blur_sigma": self.settings.blur_sigma,
            "threshold_margin": self.settings.threshold_margin,
            "mm_per_px": self._mm_per_px,
            "how": "in process",
        }

    async def fit(self, images: Sequence[Path], recipe: FitRecipe, progress: Progress) -> dict[str, Any]:
        """See `Inspector.fit`."""
        self._next_roi()
        files = [ImageFile(path.name, path.read_bytes) for path in images]
        self.engine.on_tokens = progress
        with self._nothing_remembered() if self._timings else nullcontext():
            started = time.perf_counter()
            result = await self._services.fitting.fit(
                FitRequest(
                    self._key,
                    files,
                    self._mm_per_px,
                    coreset_rate=recipe.coreset_rate,
                    seed=recipe.seed,
                    tiles=recipe.tiles,
                    exclude_suspects=recipe.exclude_suspects,
                )
            )
            self._learn_s = time.perf_counter() - started if self._timings else None
        self.engine.on_tokens = _nobody
        manifest = result.manifest
        return {
            "coreset_rate": manifest.coreset_rate,
            "seed": manifest.seed,
            "tiles": list(manifest.tiles),
            "n_ok": len(manifest.images),
            "n_excluded": len(manifest.excluded),
            "n_duplicates": result.duplicates,
            "n_embeddings": manifest.n_embeddings,
            "covering_radius": manifest.covering_radius,
            "spatial_weights": manifest.spatial_weights.kind,
            "suspects": [suspect.image.file_name for suspect in result.suspects],
            "warnings": result.warnings,
        }

    def _next_roi(self) -> None:
        self._key = RoiKey("evaluation", str(self._n_fits))
        self._n_fits += 1

    @contextmanager
    def _nothing_remembered(self) -> Iterator[None]:
        self.engine.remembers = False
        try:
            yield
        finally:
            self.engine.remembers = True

    async def calibrate(self, p_score: float | None) -> Calibrated:
        """See `Inspector.calibrate`."""
        request = CalibrationRequest(mm_per_px=self._mm_per_px, score_percentile=p_score)
        _, made, warnings = await to_thread.run_sync(calibrate, self._services.store, self.settings, self._key, request)
        assert made.expected_false_alarm_rate is not None
        assert made.expected_false_alarm_interval is not None
        return Calibrated(
            threshold=made.threshold,
            pixel_threshold=made.pixel_threshold,
            method=f"{made.method}, {made.ok_source}",
            n_ok=made.n_ok,
            stated_rate=made.expected_false_alarm_rate,
            stated_interval=made.expected_false_alarm_interval,
            stated_verdict_rate=made.verdict_false_alarm_rate,
            stated_verdict_interval=made.verdict_false_alarm_interval,
            score_percentile=made.score_percentile,
            area_mm2_thr=made.area_mm2_thr,
            warnings=warnings,
        )

    async def inspect(self, samples: Sequence[Sample], progress: Progress) -> list[Judged]:
        """See `Inspector.inspect`."""
        judged = []
        for start in range(0, len(samples), _BATCH):
            batch = samples[start : start + _BATCH]
            requests = [self._request(sample, "none") for sample in batch]
            answers = await self._services.pipeline.infer_batch(requests)
            for sample, answer in zip(batch, answers, strict=True):
                if isinstance(answer, GatewayError):
                    raise answer
                contours = [region.contour for region in answer.regions]
                judged.append(Judged(sample, answer.score, answer.verdict, answer.verdict_reason, contours))
            progress(len(batch))
        return judged

    def _request(self, sample: Sample, heatmap: HeatmapMode) -> InferRequest:
        return InferRequest(self._key, sample.path.read_bytes(), sample.path.name, self._mm_per_px, heatmap=heatmap)

    async def cost(self, samples: Sequence[Sample], progress: Progress) -> Cost:
        """See `Inspector.cost`."""
        roi = await self._services.banks.get(self._key)
        took: list[float] = []
        n_warm_up = min(_WARM_UP, len(samples))
        with self._nothing_remembered():
            for sample in (*samples[:n_warm_up], *samples):
                request = self._request(sample, "base64")
                started = time.perf_counter()
                await self._services.pipeline.infer(request)
                took.append(1e3 * (time.perf_counter() - started))
                progress(1 if len(took) > n_warm_up else 0)
        took = took[n_warm_up:]
        p50, p95 = np.quantile(took, (0.5, 0.95)).tolist() if took else (None, None)
        folder = self._services.store.version_folder(self._key, roi.loaded.manifest.version)
        return Cost(
            learn_s=self._learn_s,
            p50_ms=p50,
            p95_ms=p95,
            n_timed=len(took),
            version_bytes=sum(len(path.read_bytes()) for path in folder.glob("*")),
            memory_bytes=roi.loaded.n_bytes,
            shared_bytes=self._shared_bytes(),
        )

    def _shared_bytes(self) -> int | None:
        """Return the bytes on disk of a network that versions share."""
        try:
            return (newest_version(self.settings.model_folder) / GRAPH_FILE).stat().st_size
        except (DescriptionError, OSError):
            return None  # Triton holds the network

    async def map_of(self, sample: Sample) -> NDArray[np.float32]:
        """See `Inspector.map_of`."""
        roi = await self._services.banks.get(self._key)
        engine = await roi.loaded.detector.engine(self._services.engines)
        model = engine.model
        data = sample.path.read_bytes()
        header = read_header(data, sample.path.name, self._limits)
        tiling = tiling_of(roi.loaded.manifest, model)
        tiles = tiling.cut(tiling.resized(decode(data, sample.path.name, header)))
        tokens = await engine.tokens(tiles, model=model)

        def full() -> NDArray[np.float32]:
            detector = roi.loaded.detector
            distances = detector.distances(tiling.stitched(tokens), detector.neighbours(self.settings.k)[0])
            grid = anomaly_map(distances, roi.loaded.manifest.token_hw, roi.loaded.weights)
            return blur(upsample(grid, header.upright_size), self.settings.blur_sigma)

        return await to_thread.run_sync(full)

    async def close(self) -> None:
        """See `Inspector.close`."""
        await self._services.engines.close()
        self._folder.cleanup()


def _nobody(n: int) -> None:
    pass
