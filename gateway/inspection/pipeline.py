"""One ROI image to its answer: decode, network, distances, map, score, regions."""

import asyncio
import hashlib
import logging
import time
import uuid
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from anyio import CapacityLimiter
from numpy.typing import NDArray

from gateway.detectors.spatial_weighting import SpatialWeighting
from gateway.errors import GatewayError, InvalidRequestError, ModelMismatchError, StorageFullError
from gateway.images.appearance import Look, look
from gateway.images.decoding import Limits, decode, read_header, to_model_input
from gateway.images.masks import mask_of
from gateway.inspection.version_cache import BankCache, FittedRoi, LoadedVersion
from gateway.monitoring.inspection_log import Watch
from gateway.monitoring.timing import StageTimes
from gateway.networks import Priority, TokenEngine
from gateway.networks.model_description import ModelDescription
from gateway.networks.registry import EngineRegistry
from gateway.settings import Settings
from gateway.store.atomic import storage_errors
from gateway.store.roi_key import RoiKey
from gateway.worker_threads import in_thread
from postprocess.anomaly_map import blur, scored_map
from postprocess.heatmap import encode_heatmap
from postprocess.regions import Region, bounded, find_regions
from postprocess.roi_mask import Shape
from postprocess.verdict import Verdict, VerdictReason, judge

log = logging.getLogger(__name__)

_T = TypeVar("_T")

HeatmapMode = Literal["base64", "path", "none"]
WEIGHTS_STALE = (
    "the manual box or the spatial weights changed since the fit: fit again (a student: publish again), then calibrate"
)
_SAME_SCALE = 0.01
"""Relative difference of mm_per_px up to which two are taken for the same."""


@dataclass(frozen=True, slots=True)
class InferRequest:
    """An image to inspect; what is None comes from the calibration or the settings."""

    key: RoiKey
    image: bytes
    image_name: str
    mm_per_px: float
    shape: Shape | None = None
    k: int | None = None
    p_score: float | None = None
    blur_sigma: float | None = None
    area_mm2_thr: float | None = None
    heatmap: HeatmapMode = "base64"
    warnings: tuple[str, ...] = ()
    """Found while the request was read."""


@dataclass(frozen=True, slots=True)
class InferParams:
    """What an answer was computed with."""

    extractor: str
    coreset_rate: float
    k: int
    p_score: float
    blur_sigma: float
    area_mm2_thr: float
    mm_per_px: float


@dataclass(frozen=True, slots=True)
class Inspection:
    """The answer for one image. Pixels are those of the image as sent, upright."""

    key: RoiKey
    score: float
    threshold: float | None
    pixel_threshold: float | None
    verdict: Verdict
    verdict_reason: VerdictReason | None
    calibration_stale: bool
    weights_stale: bool
    degraded: bool
    """Whether an older version or a copy answers, since what is in use is damaged."""
    regions: list[Region]
    heatmap_png: bytes | None
    heatmap_path: str | None
    heatmap_max: float
    image_size: tuple[int, int]
    token_hw: tuple[int, int]
    params: InferParams
    version: int
    times: StageTimes
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A request on its way to the engine."""

    request: InferRequest
    roi: FittedRoi
    engine: TokenEngine
    model: ModelDescription
    """What the engine serves, as the version needs it."""
    image: NDArray[np.uint8]
    """[1, S, S, 3] RGB."""
    size_wh: tuple[int, int]
    looks: Look
    times: StageTimes


class InspectionPipeline:
    """The way of an image. Computes in worker threads only."""

    def __init__(
        self,
        engines: EngineRegistry,
        banks: BankCache,
        weighting: SpatialWeighting,
        settings: Settings,
        watch: Watch | None = None,
    ) -> None:
        """Wire the parts together.

        Args:
            engines: the networks.
            banks: loaded versions of ROIs.
            weighting: to tell stale spatial weights.
            settings: defaults.
            watch: is told of every inspection; None where nobody watches, as in an evaluation.
        """
        self._engines = engines
        self._banks = banks
        self._weighting = weighting
        self._watch = watch
        self._settings = settings
        self._limits = Limits(settings.max_image_bytes, settings.max_image_pixels)
        self._threads = CapacityLimiter(8)

    async def infer(self, request: InferRequest) -> Inspection:
        """Inspect one image.

        Raises:
            GatewayError: any of its kinds but `StorageFullError` without ``heatmap=path``.
        """
        (answer,) = await self.infer_batch([request])
        if isinstance(answer, GatewayError):
            raise answer
        return answer

    async def infer_batch(self, requests: Sequence[InferRequest]) -> list[Inspection | GatewayError]:
        """Inspect several images, of the same or different ROIs, with one call to each network that they need.

        Returns:
            For each request, in order, its answer or what was wrong with it; one does not fail the others.
        """
        prepared = await asyncio.gather(*(_settled(self._prepare(request)) for request in requests))
        # Of one network all have one model: another one than the version's, reloaded meanwhile, was refused.
        together: dict[tuple[TokenEngine, str], list[_Prepared]] = {}
        for p in prepared:
            if isinstance(p, _Prepared):
                together.setdefault((p.engine, p.model.fingerprint), []).append(p)
        answered = await asyncio.gather(*map(self._finish_all, together.values()))
        finished = {
            id(p): answer
            for group, answers in zip(together.values(), answered, strict=True)
            for p, answer in zip(group, answers, strict=True)
        }
        return [p if isinstance(p, GatewayError) else finished[id(p)] for p in prepared]

    async def _finish_all(self, prepared: Sequence["_Prepared"]) -> Sequence[Inspection | GatewayError]:
        """Of images that one network takes."""
        start = time.perf_counter()
        first = prepared[0]
        images = np.concatenate([p.image for p in prepared]) if len(prepared) > 1 else first.image
        tokens = await _settled(first.engine.tokens(images, model=first.model, priority=Priority.INSPECT))
        if isinstance(tokens, GatewayError):
            return [tokens] * len(prepared)
        for p in prepared:
            p.times.add("engine", time.perf_counter() - start)
        return await asyncio.gather(*(_settled(self._finish(p, own)) for p, own in zip(prepared, tokens, strict=True)))

    async def _prepare(self, request: InferRequest) -> "_Prepared":
        times = StageTimes()
        if request.heatmap == "path" and self._settings.heatmap_dir is None:
            raise InvalidRequestError(
                "heatmap: 'path' was asked for, but this gateway has no folder for heatmaps",
                "Set GATEWAY_HEATMAP_DIR, or ask for base64 or none.",
            )
        roi = await self._banks.get(request.key)
        engine = await roi.loaded.detector.engine(self._engines)
        model = engine.model
        require_same_model(roi.loaded, model)
        image, size_wh, looks = await in_thread(self._decode, request, model.input_size, times, limiter=self._threads)
        return _Prepared(request, roi, engine, model, image[None], size_wh, looks, times)

    async def _finish(self, prepared: "_Prepared", tokens: NDArray[np.float32]) -> Inspection:
        p = prepared
        return await in_thread(self._answer_and_watch, p, tokens, limiter=self._threads)

    def _answer_and_watch(self, p: "_Prepared", tokens: NDArray[np.float32]) -> Inspection:
        answer = self._answer(p.request, p.roi, p.model, tokens, p.size_wh, p.times)
        if self._watch is not None:
            self._watch.inspected(
                p.request.key,
                p.roi.loaded.manifest,
                threshold=answer.threshold,
                score=answer.score,
                verdict=answer.verdict,
                looks=p.looks,
                times=p.times,
                scored_otherwise=_is_scored_otherwise(p, answer.params),
            )
        return answer

    def _decode(
        self, request: InferRequest, size: int, times: StageTimes
    ) -> tuple[NDArray[np.uint8], tuple[int, int], Look]:
        with times.stage("decode"):
            header = read_header(request.image, request.image_name, self._limits)
            if request.shape is not None:
                mask_of(request.shape, header.upright_size)  # refused before the network is asked
            image = to_model_input(decode(request.image, request.image_name, header), size)
            return image, header.upright_size, look(image)

    def _answer(
        self,
        request: InferRequest,
        roi: FittedRoi,
        model: ModelDescription,
        tokens: NDArray[np.float32],
        size_wh: tuple[int, int],
        times: StageTimes,
    ) -> Inspection:
        manifest = roi.loaded.manifest
        calibration = roi.calibration
        stored_p_score = None if calibration is None else calibration.score_percentile
        stored_area = None if calibration is None else calibration.area_mm2_thr
        detector = roi.loaded.detector
        k, k_warnings = detector.neighbours(request.k)
        params = InferParams(
            extractor=model.extractor,
            coreset_rate=manifest.coreset_rate,
            k=k,
            p_score=_first(request.p_score, stored_p_score, self._settings.p_score),
            blur_sigma=_first(request.blur_sigma, self._settings.blur_sigma),
            area_mm2_thr=_first(request.area_mm2_thr, stored_area, self._settings.area_mm2_thr),
            mm_per_px=request.mm_per_px,
        )
        warnings = [*request.warnings, *k_warnings, *_warnings(request, roi, model, params)]
        weights_stale = self._weighting.is_stale(request.key, manifest.spatial_weights)
        if weights_stale:
            warnings.append(WEIGHTS_STALE)
        with times.stage("knn"):
            distances = detector.distances(tokens, k)
        threshold = None if calibration is None else calibration.threshold
        pixel_threshold = None if calibration is None else calibration.pixel_threshold
        with times.stage("postprocess"):
            mask = None if request.shape is None else mask_of(request.shape, size_wh)
            full, value = scored_map(
                distances,
                manifest.token_hw,
                size_wh,
                weights=roi.loaded.weights,
                rule=manifest.score_rule,
                percentile=params.p_score,
                mask=mask,
            )
            blurred = blur(full, params.blur_sigma)
            regions: list[Region] = []
            if pixel_threshold is not None:
                regions = find_regions(blurred, pixel_threshold, request.mm_per_px, params.area_mm2_thr, mask)
            png = None if request.heatmap == "none" else encode_heatmap(blurred, manifest.heatmap_max, mask)
            path = None
            if png is not None and request.heatmap == "path":
                path = self._write_heatmap(request.key, png)
                png = None
        verdict, reason = judge(value, threshold, len(regions))
        regions, left_out = bounded(regions, self._settings.max_regions, self._settings.max_contour_points)
        warnings += left_out
        return Inspection(
            key=request.key,
            score=value,
            threshold=threshold,
            pixel_threshold=pixel_threshold,
            verdict=verdict,
            verdict_reason=reason,
            calibration_stale=calibration is not None and calibration.is_stale(manifest),
            weights_stale=weights_stale,
            degraded=roi.is_degraded,
            regions=regions,
            heatmap_png=png,
            heatmap_path=path,
            heatmap_max=manifest.heatmap_max,
            image_size=size_wh,
            token_hw=manifest.token_hw,
            params=params,
            version=manifest.version,
            times=times,
            warnings=warnings,
        )

    def _write_heatmap(self, key: RoiKey, png: bytes) -> str:
        folder = self._settings.heatmap_dir
        assert folder is not None
        relative = Path(key.role_id) / key.roi_id / time.strftime("%Y-%m-%d") / f"{uuid.uuid4().hex}.png"
        path = folder / relative
        with storage_errors("the heatmap folder"):
            # A folder of an ROI may have become a link, by whoever tidies up.
            if not path.resolve().is_relative_to(folder.resolve()):
                raise StorageFullError(
                    f"the heatmaps of {key} would be written outside GATEWAY_HEATMAP_DIR",
                    f"Replace the link {key} in the folder for heatmaps by a folder.",
                )
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                path.write_bytes(png)
            except OSError:
                path.unlink(missing_ok=True)  # nobody is told its name: half a picture would stay for ever
                raise
        return relative.as_posix()


async def _settled(work: Awaitable[_T]) -> _T | GatewayError:
    """What `work` gives, or the domain error that it raises."""
    try:
        return await work
    except GatewayError as error:
        return error


def require_same_model(loaded: LoadedVersion, model: ModelDescription) -> None:
    """Refuse what one model makes of an image for a version that was made with another.

    Raises:
        ModelMismatchError: names both fingerprints.
    """
    manifest = loaded.manifest
    if manifest.model_fingerprint != model.fingerprint:
        raise ModelMismatchError(
            f"{manifest.role_id}/{manifest.roi_id} was fitted with model {manifest.model_fingerprint[:16]}, "
            f"the engine serves {model.fingerprint[:16]}",
            loaded.detector.mismatch_hint,
        )


def _first(*values: float | None) -> float:
    return next(value for value in values if value is not None)


def _is_scored_otherwise(p: _Prepared, params: InferParams) -> bool:
    """Whether a score does not compare with the leave-one-out scores of the OK images: k, percentile, shape or none."""
    manifest, has_shape = p.roi.loaded.manifest, p.request.shape is not None
    return (
        params.k != p.roi.loaded.detector.neighbours(None)[0]
        or params.p_score != manifest.p_score
        or not any((image.shape is not None) == has_shape for image in manifest.images)
    )


def _warnings(request: InferRequest, roi: FittedRoi, model: ModelDescription, params: InferParams) -> list[str]:
    manifest, calibration = roi.loaded.manifest, roi.calibration
    found = []
    if model.has_random_weights:
        found.append("the model has random weights: scores mean nothing")
    if roi.loaded.damaged:
        found.append(
            f"the version in use is damaged ({'; '.join(roi.loaded.damaged)}): version {manifest.version} answers"
        )
    if roi.calibration_damaged:
        found.append(f"the calibration is damaged ({roi.calibration_damaged}): its copy answers")
    if abs(request.mm_per_px - manifest.mm_per_px) > _SAME_SCALE * manifest.mm_per_px:
        found.append(f"mm_per_px: {request.mm_per_px:g} here, {manifest.mm_per_px:g} at the fit")
    if calibration is not None:
        if request.p_score is not None and request.p_score != calibration.score_percentile:
            found.append(f"p_score: {request.p_score:g} here, {calibration.score_percentile:g} at the calibration")
        if calibration.is_stale(manifest):
            found.append(
                f"the threshold was calibrated for version {calibration.version}, "
                f"version {manifest.version} answers: calibrate again"
            )
        if calibration.pixel_threshold_source == "ok_pixels" and params.blur_sigma != calibration.blur_sigma:
            found.append(f"blur_sigma: {params.blur_sigma:g} here, {calibration.blur_sigma:g} at the calibration")
    sha256 = hashlib.sha256(request.image).hexdigest()
    if roi.loaded.detector.has_learned(sha256):
        found.append("this image is one of the OK images learned: its score is lower than an unseen image's would be")
    return found
