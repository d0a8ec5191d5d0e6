"""The order of an inspection: version, decoding, network, answer. Only worker threads compute."""

import asyncio
import itertools
import os
import time
from collections.abc import Awaitable, Coroutine, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from gateway.detectors.spatial_weighting import SpatialWeighting
from gateway.errors import GatewayError, ModelMismatchError
from gateway.images.appearance import look
from gateway.images.content import why_nothing_shows
from gateway.images.decoding import Limits, decode_picture, read_header
from gateway.images.identity import pixel_digest
from gateway.images.masks import mask_of
from gateway.images.tiling import Tiling
from gateway.inspection.answer import Inspection, answer
from gateway.inspection.explanation import Explainer, kept_pixels
from gateway.inspection.heatmap_files import HeatmapFiles
from gateway.inspection.params import is_scored_otherwise
from gateway.inspection.picture_warnings import picture_warnings
from gateway.inspection.request import DecodedImage, InferRequest, PreparedRequest
from gateway.inspection.version_cache import FittedRoi, LoadedVersion, VersionCache
from gateway.monitoring.inspection_log import Watch
from gateway.monitoring.kept_inspections import KeptInspection, KeptInspections
from gateway.monitoring.timing import StageTimes
from gateway.networks import Priority, TokenEngine
from gateway.networks.model_description import ModelDescription
from gateway.networks.model_tiling import tiling_of
from gateway.networks.registry import EngineRegistry
from gateway.settings import Settings
from gateway.store.reader import ArtifactReader
from gateway.turns import Turns
from gateway.worker_threads import in_thread

_T = TypeVar("_T")
_Served = tuple[TokenEngine, ModelDescription, Tiling]
"""The engine of a version, its model, and how the model sees an image."""

_MOST_THREADS = 8
_SPARE_THREADS = 2
"""Threads beyond the number of cores, for those that wait for a disk."""


class InspectionPipeline:
    """Takes images to their answers."""

    def __init__(
        self,
        engines: EngineRegistry,
        versions: VersionCache,
        store: ArtifactReader,
        weighting: SpatialWeighting,
        settings: Settings,
        watch: Watch | None = None,
        kept: KeptInspections | None = None,
    ) -> None:
        """Wire the parts together.

        Args:
            engines: the networks.
            versions: the loaded versions of ROIs.
            store: has the OK images that explanations show.
            weighting: tells whether spatial weights are stale.
            settings: defaults and limits.
            watch: records every inspection; None in an evaluation.
            kept: keeps images for review; None in an evaluation.
        """
        self._engines = engines
        self._versions = versions
        self._weighting = weighting
        self._watch = watch
        self._kept = kept
        self._settings = settings
        self._heatmaps = HeatmapFiles(settings.heatmap_dir)
        self._limits = Limits(settings.max_image_bytes, settings.max_image_pixels)
        self._explainer = Explainer(store, self._limits)
        self._threads = Turns(min(_MOST_THREADS, _SPARE_THREADS + (os.cpu_count() or 1)))

    async def infer(self, request: InferRequest) -> Inspection:
        """Inspect one image.

        Raises:
            GatewayError: any kind; `StorageFullError` only with ``heatmap=path``.
        """
        (result,) = await self.infer_batch([request])
        if isinstance(result, GatewayError):
            raise result
        return result

    async def infer_batch(self, requests: Sequence[InferRequest]) -> list[Inspection | GatewayError]:
        """Inspect several images, of the same or different ROIs, with one call to each network that they need.

        Tiles count as images of a call. Beyond `Settings.max_batch_images`, there is another call.

        Returns:
            For each request, in order, its answer or its error. The error of one image does not fail the others.
        """
        prepared = await _together([_settled(self._prepare(request)) for request in requests])
        # All images of one engine have one model: `_prepare` refuses a version that was made with another one.
        together: dict[tuple[TokenEngine, str], list[PreparedRequest]] = {}
        for p in prepared:
            if isinstance(p, PreparedRequest):
                together.setdefault((p.engine, p.model.fingerprint), []).append(p)
        answered = await _together([self._answer_all(group) for group in together.values()])
        results = {
            id(p): result
            for group, answers in zip(together.values(), answered, strict=True)
            for p, result in zip(group, answers, strict=True)
        }
        return [p if isinstance(p, GatewayError) else results[id(p)] for p in prepared]

    async def _prepare(self, request: InferRequest) -> PreparedRequest:
        """Find the version of the ROI and decode the image, in one thread where the version is loaded already."""
        times = StageTimes()
        if request.heatmap == "path":
            self._heatmaps.require_folder()
        loaded = self._versions.loaded(request.key)
        if loaded is not None:
            served = await _settled(self._served(loaded))

            def checked_and_decoded() -> PreparedRequest | None:
                roi = self._versions.in_use(request.key, loaded)
                return None if roi is None else self._decoded(request, roi, served, times)

            prepared = await in_thread(checked_and_decoded, limiter=self._threads)
            if prepared is not None:
                return prepared
        roi = await self._versions.get(request.key)
        served = await self._served(roi.loaded)
        return await in_thread(self._decoded, request, roi, served, times, limiter=self._threads)

    async def _served(self, loaded: LoadedVersion) -> _Served:
        """Return the engine of a version, its model, and how the model sees an image."""
        engine = await loaded.detector.engine(self._engines)
        model = engine.model
        require_same_model(loaded, model)
        return engine, model, tiling_of(loaded.manifest, model)

    def _decoded(
        self, request: InferRequest, roi: FittedRoi, served: _Served | GatewayError, times: StageTimes
    ) -> PreparedRequest:
        """Decode the image. An error of the engine is raised here, after those of the ROI."""
        if isinstance(served, GatewayError):
            raise served
        engine, model, tiling = served
        return PreparedRequest(request, roi, engine, model, tiling, self._decode(request, roi, tiling, times), times)

    def _decode(self, request: InferRequest, roi: FittedRoi, tiling: Tiling, times: StageTimes) -> DecodedImage:
        manifest = roi.loaded.manifest
        bit_depth = manifest.bit_depth if request.bit_depth is None else request.bit_depth
        with times.stage("decode"):
            header = read_header(request.image, request.image_name, self._limits)
            if request.shape is not None:
                mask_of(request.shape, header.upright_size)  # a shape without pixels is refused before the network runs
            picture = decode_picture(request.image, request.image_name, header, bit_depth)
            resized = tiling.resized(picture.pixels)
            nothing_shown = why_nothing_shows(picture, resized)
            return DecodedImage(
                tiling.cut(resized),
                header.upright_size,
                look(resized),
                pixel_digest(picture.pixels),
                nothing_shown,
                kept_pixels(picture.pixels, explain=request.explain),
                picture_warnings(picture, nothing_shown, manifest),
            )

    async def _answer_all(self, prepared: Sequence[PreparedRequest]) -> Sequence[Inspection | GatewayError]:
        """Answer requests whose images go through one network, in as few calls as the tokens in memory allow."""
        answers: list[Inspection | GatewayError] = []
        while len(answers) < len(prepared):
            together = _one_call(prepared[len(answers) :], self._settings.max_batch_images)
            answers += await self._answer_call(together)
        return answers

    async def _answer_call(self, prepared: Sequence[PreparedRequest]) -> Sequence[Inspection | GatewayError]:
        """Answer requests by one call to their network."""
        start = time.perf_counter()
        first = prepared[0]
        tiles = [p.image.tiles for p in prepared]
        images = tiles[0] if len(tiles) == 1 else np.concatenate(tiles)
        tokens = await _settled(first.engine.tokens(images, model=first.model, priority=Priority.INSPECT))
        if isinstance(tokens, GatewayError):
            return [tokens] * len(prepared)
        for p in prepared:
            p.times.add("engine", time.perf_counter() - start)
        of_images = np.split(tokens, np.cumsum([p.tiling.n_tiles for p in prepared])[:-1])
        return await _together([_settled(self._answer(p, own)) for p, own in zip(prepared, of_images, strict=True)])

    async def _answer(self, prepared: PreparedRequest, tokens: NDArray[np.float32]) -> Inspection:
        return await in_thread(self._answer_and_record, prepared, tokens, limiter=self._threads)

    def _answer_and_record(self, prepared: PreparedRequest, of_tiles: NDArray[np.float32]) -> Inspection:
        manifest = prepared.roi.loaded.manifest
        weights_stale = self._weighting.is_stale(prepared.request.key, manifest.spatial_weights)
        tokens = prepared.tiling.stitched(of_tiles)
        result = answer(prepared, tokens, self._settings, self._heatmaps, self._explainer, weights_stale=weights_stale)
        if self._watch is not None:
            self._watch.inspected(
                prepared.request.key,
                manifest,
                threshold=result.threshold,
                score=result.score,
                verdict=result.verdict,
                looks=prepared.image.looks,
                times=prepared.times,
                scored_otherwise=is_scored_otherwise(prepared, result.params),
            )
        if self._kept is not None and self._kept.keeps:
            self._kept.add(result.key, kept_of(prepared, result), prepared.request.image)
        return result


def kept_of(prepared: PreparedRequest, result: Inspection) -> KeptInspection:
    """Return what is kept of an inspection besides its image."""
    width, height = result.image_size
    return KeptInspection(
        image_id=prepared.image.pixels_sha256,
        file_name=prepared.request.image_name[:255],
        time=time.time(),
        n_bytes=len(prepared.request.image),
        width=width,
        height=height,
        bit_depth=result.params.bit_depth,
        verdict=result.verdict,
        verdict_reason=result.verdict_reason,
        score=result.score,
        threshold=result.threshold,
        peak=result.peak,
        peak_threshold=result.peak_threshold,
        review_threshold=result.review_threshold,
        version=result.version,
    )


async def _together(works: Sequence[Coroutine[Any, Any, _T]]) -> list[_T]:
    """Return the results of coroutines that run at once. One alone, the usual case, needs no task of its own."""
    return [await works[0]] if len(works) == 1 else await asyncio.gather(*works)


def _one_call(prepared: Sequence[PreparedRequest], most: int) -> Sequence[PreparedRequest]:
    """Return the first requests, as many as have at most `most` tiles together; at least one."""
    n_tiles = itertools.accumulate(p.tiling.n_tiles for p in prepared)
    return prepared[: max(1, sum(n <= most for n in n_tiles))]


async def _settled(work: Awaitable[_T]) -> _T | GatewayError:
    """Return the result of `work`, or the domain error that it raises."""
    try:
        return await work
    except GatewayError as error:
        return error


def require_same_model(loaded: LoadedVersion, model: ModelDescription) -> None:
    """Refuse a version that was made with another model than the one that is served.

    Raises:
        ModelMismatchError: names both fingerprints.
    """
    manifest = loaded.manifest
    if manifest.model_fingerprint != model.fingerprint:
        raise ModelMismatchError(
            f"{manifest.key} was fitted with model {manifest.model_fingerprint[:16]}, "
            f"the engine serves {model.fingerprint[:16]}",
            loaded.detector.mismatch_hint,
        )
