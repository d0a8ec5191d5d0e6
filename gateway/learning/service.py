"""OK images to a memory bank: tokens, coreset, leave-one-out scores, a new version on disk."""

import asyncio
import hashlib
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

import numpy as np
from anyio import CapacityLimiter, from_thread
from numpy.typing import NDArray

from gateway.calibration.calibrate import redone, state_of
from gateway.detectors import require_taught
from gateway.detectors.memory_bank.detector import bank_files
from gateway.detectors.spatial_weighting import SpatialWeighting, WeightsMode
from gateway.errors import (
    ArtifactCorruptError,
    InvalidRequestError,
    TooLargeError,
    UnknownImageError,
)
from gateway.images.appearance import look
from gateway.images.decoding import Limits, decode, read_header, to_model_input
from gateway.images.masks import mask_of
from gateway.learning.build import Learned, Recipe, learn
from gateway.learning.suspects import Suspect, find_suspects
from gateway.monitoring.metrics import FIT_STAGE_SECONDS
from gateway.monitoring.request_context import tell
from gateway.monitoring.timing import StageTimes
from gateway.networks import Priority, TokenEngine
from gateway.networks.model_description import ModelDescription
from gateway.settings import Settings
from gateway.store.artifact_store import ArtifactStore
from gateway.store.audit import Action, Change
from gateway.store.manifest import Calibration, ExcludedImage, Manifest, OkImage
from gateway.store.roi_key import RoiKey
from gateway.worker_threads import in_thread
from postprocess.roi_mask import Shape

log = logging.getLogger(__name__)

_BATCH = 8
_LARGEST_DISTANCE, _UNRELATED = 2.0, float(np.sqrt(2))

CalibrationState = Literal["none", "current", "redone", "stale"]
"""What a fit made of the calibration: redone where it rested on leave-one-out scores alone, else stale."""


@dataclass(frozen=True, slots=True)
class FitRequest:
    """OK images to learn; what is None comes from the settings."""

    key: RoiKey
    images: Sequence[tuple[str, bytes]]
    """File names, for messages only, and the files."""
    mm_per_px: float
    shape: Shape | None = None
    shape_json: str | None = None
    coreset_rate: float | None = None
    seed: int | None = None
    spatial_weights: WeightsMode | None = None
    """Of an ROI without a manual box."""
    exclude_suspects: bool = False
    warnings: tuple[str, ...] = ()
    """Found while the request was read."""


@dataclass(frozen=True, slots=True)
class SuspectImage:
    """An image that may be none of the OK ones."""

    image: OkImage
    score: float
    """Against the bank without it."""
    robust_z: float
    excluded: bool = False

    def as_excluded(self, version: int) -> ExcludedImage:
        """As the manifest keeps it."""
        return ExcludedImage(**self.image.model_dump(), score=self.score, robust_z=self.robust_z, excluded_in=version)


@dataclass(frozen=True, slots=True)
class FitResult:
    """What was learned."""

    manifest: Manifest
    n_added: int
    duplicates: int
    suspects: list[SuspectImage]
    """Worst first."""
    calibration: CalibrationState
    warnings: list[str]
    times: StageTimes


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A checked image: with its tokens where they are stored already, else with its pixels."""

    image: OkImage
    data: bytes
    pixels: NDArray[np.uint8] | None
    tokens: NDArray[np.float16] | None


@dataclass(frozen=True, slots=True)
class _NewImage:
    image: OkImage
    data: bytes
    tokens: NDArray[np.float16]
    stored: bool
    """Whether its tokens are kept already."""


class FitService:
    """Learns in worker threads of its own, so that inspections never wait for them."""

    def __init__(
        self, engine: TokenEngine, store: ArtifactStore, weighting: SpatialWeighting, settings: Settings
    ) -> None:
        self._engine = engine
        self._store = store
        self._weighting = weighting
        self._settings = settings
        self._limits = Limits(settings.max_image_bytes, settings.max_image_pixels)
        self._threads = CapacityLimiter(settings.max_queued_fits)
        self._decoders = CapacityLimiter(settings.max_queued_fits)

    async def fit(self, request: FitRequest) -> FitResult:
        """Add OK images to an ROI and build its bank anew over all of them.

        Raises:
            TrainedOfflineError: the ROI does not learn from images here.
            GatewayError: nothing of the request was learned, and what was stored before answers as before.
        """
        times = StageTimes()
        await in_thread(self._require_taught, request.key, limiter=self._decoders)
        model = self._engine.model
        if len(request.images) > self._settings.max_fit_images:
            raise TooLargeError(
                f"images: {len(request.images)} in one request; at most {self._settings.max_fit_images} are served"
            )
        new = await self._extract(request, model, times)
        duplicates = len(request.images) - len(new)
        return _counted(await in_thread(self._learn, request, model, new, duplicates, times, limiter=self._threads))

    async def remove(self, key: RoiKey, sha256: str) -> FitResult:
        """Take one OK image out of an ROI, learned or excluded, and build its bank anew over the others.

        Its file stays with the ROI for as long as a version that is kept names it; no later fit learns it unless it is
        sent again.

        Raises:
            UnknownRoiError: never fitted.
            UnknownImageError: the ROI has no such image.
            TrainedOfflineError: the ROI does not learn from images here.
            InvalidRequestError: it is the only one.
            GatewayError: what was stored before answers as before.
        """
        times = StageTimes()
        await in_thread(self._require_taught, key, limiter=self._decoders)
        model = self._engine.model
        return _counted(await in_thread(self._remove, key, sha256, model, times, limiter=self._threads))

    async def _extract(self, request: FitRequest, model: ModelDescription, times: StageTimes) -> list[_NewImage]:
        """Decode and tokenise each image once, however often it was sent."""
        unique = await in_thread(_by_sha256, request.images, limiter=self._decoders)
        items = [(sha256, *unique[sha256]) for sha256 in reversed(unique)]
        batches = [items[start : start + _BATCH] for start in range(0, len(items), _BATCH)]
        new: list[_NewImage] = []
        # The next batch is decoded while the engine works on this one.
        upcoming = asyncio.ensure_future(self._prepared(request, batches[0], model, times))
        try:
            for following in (*batches[1:], None):
                prepared = await upcoming
                if following is not None:
                    upcoming = asyncio.ensure_future(self._prepared(request, following, model, times))
                pixels = [p.pixels for p in prepared if p.pixels is not None]
                with times.stage("engine"):
                    fresh = iter(await self._tokens(pixels, model) if pixels else ())
                for p in prepared:
                    tokens = p.tokens if p.tokens is not None else next(fresh).astype(np.float16)
                    new.append(_NewImage(p.image, p.data, tokens, stored=p.tokens is not None))
        finally:
            upcoming.cancel()
            await asyncio.gather(upcoming, return_exceptions=True)
        return new

    async def _prepared(
        self,
        request: FitRequest,
        items: Sequence[tuple[str, str, bytes]],
        model: ModelDescription,
        times: StageTimes,
    ) -> list[_Prepared]:
        with times.stage("decode"):
            return await in_thread(self._prepare, request, items, model, limiter=self._decoders)

    async def _tokens(self, pixels: Sequence[NDArray[np.uint8]], model: ModelDescription) -> NDArray[np.float32]:
        return await self._engine.tokens(np.stack(pixels), model=model, priority=Priority.FIT)

    def _prepare(
        self, request: FitRequest, items: Sequence[tuple[str, str, bytes]], model: ModelDescription
    ) -> list[_Prepared]:
        prepared = []
        for sha256, name, data in items:
            header = read_header(data, name, self._limits)
            if request.shape is not None:
                mask_of(request.shape, header.upright_size)
            width, height = header.upright_size
            stored = self._store.ok(request.key).tokens(sha256, model.fingerprint)
            pixels = None if stored is not None else to_model_input(decode(data, name, header), model.input_size)
            looks = None if pixels is None else look(pixels)
            image = OkImage(
                sha256=sha256,
                file_name=name[:255],
                extension=header.extension,
                width=width,
                height=height,
                shape=request.shape_json,
                added_in=0,
                brightness=None if looks is None else looks.brightness,
                sharpness=None if looks is None else looks.sharpness,
            )
            prepared.append(_Prepared(image, data, pixels, stored))
        return prepared

    def _learn(
        self,
        request: FitRequest,
        model: ModelDescription,
        new: list[_NewImage],
        duplicates: int,
        times: StageTimes,
    ) -> FitResult:
        key = request.key
        recipe = Recipe(
            coreset_rate=request.coreset_rate if request.coreset_rate is not None else self._settings.coreset_rate,
            seed=request.seed if request.seed is not None else self._settings.seed,
            k=self._settings.k,
            p_score=self._settings.p_score,
            spatial_weights=self._weighting.recipe(key, request.spatial_weights),
        )
        warnings = list(request.warnings)
        with self._store.lock(key, self._settings.fit_lock_timeout_s):
            before, is_whole = self._latest(key, warnings)
            version = self._store.next_version(key)
            known = _known(before)
            added = [n for n in new if n.image.sha256 not in known]
            duplicates += len(new) - len(added)
            kept = _reshaped(before, new, request.shape_json)
            images = [*kept, *(n.image.model_copy(update={"added_in": version}) for n in added)]
            if len(images) > self._settings.max_roi_images:
                raise TooLargeError(
                    f"{key} would have {len(images)} OK images; at most {self._settings.max_roi_images} are learned"
                )
            if before is not None:
                warnings += _changes(request, recipe, before)
                warnings += _kept_out(new, before)
                with times.stage("store"):
                    self._mend(key, [n for n in new if n.image.sha256 in known], before, model)
                same_images = not added and tuple(kept) == before.images
                unchanged = is_whole and same_images and _same_recipe(before, model, recipe, request.mm_per_px)
                suspects = _suspects(before, find_suspects(before.ok_scores))
                if unchanged and not (request.exclude_suspects and suspects):
                    state = state_of(before, self._calibration(key, before, warnings))
                    return FitResult(before, 0, duplicates, suspects, state, warnings, times)

            with times.stage("store"):
                for n in added:
                    self._store.ok(key).add_image(n.image, n.data)
                    self._store.ok(key).add_tokens(n.image.sha256, model.fingerprint, n.tokens)
            result = self._build(
                key,
                model,
                recipe,
                request.mm_per_px,
                images,
                () if before is None else before.excluded,
                action="fit",
                before=before,
                exclude_suspects=request.exclude_suspects,
                fresh={n.image.sha256: n.tokens for n in new},
                warnings=warnings,
                times=times,
            )
        n_added = sum(image.added_in == result.manifest.version for image in result.manifest.images)
        return replace(result, n_added=n_added, duplicates=duplicates)

    def _remove(self, key: RoiKey, sha256: str, model: ModelDescription, times: StageTimes) -> FitResult:
        self._store.current(key)
        warnings: list[str] = []
        with self._store.lock(key, self._settings.fit_lock_timeout_s):
            before, _ = self._latest(key, warnings)
            if before is None or sha256 not in _known(before):
                raise UnknownImageError(f"{key} has no OK image {sha256[:80]}")
            images = [image for image in before.images if image.sha256 != sha256]
            if not images:
                raise InvalidRequestError(
                    f"{sha256} is the only OK image that {key} has learned; a memory bank cannot be empty",
                    f"DELETE /rois/{key} forgets the ROI with everything in it; or fit other images first.",
                )
            mode: WeightsMode = "variance" if before.spatial_weights.kind == "variance" else "none"
            recipe = Recipe(
                coreset_rate=before.coreset_rate,
                seed=before.seed,
                k=self._settings.k,
                p_score=self._settings.p_score,
                spatial_weights=self._weighting.recipe(key, mode),
            )
            return self._build(
                key,
                model,
                recipe,
                before.mm_per_px,
                images,
                tuple(image for image in before.excluded if image.sha256 != sha256),
                action="delete_ok_image",
                before=before,
                exclude_suspects=False,
                fresh={},
                warnings=warnings,
                times=times,
            )

    def _require_taught(self, key: RoiKey) -> None:
        """Refuse, before images are decoded and tokenised, what could not be learned."""
        with suppress(ArtifactCorruptError):  # told under the lock
            latest = self._store.latest_manifest(key)
            if latest is not None:
                require_taught(latest[0], lambda: self._store.manifests(key))

    def _latest(self, key: RoiKey, warnings: list[str]) -> tuple[Manifest | None, bool]:
        """What to build on, and whether that version is the current one and whole.

        Raises:
            TrainedOfflineError: nothing can be built on it here.
        """
        latest = self._store.latest_manifest(key)
        if latest is None:
            return None, False
        manifest, damaged = latest
        require_taught(manifest, lambda: self._store.manifests(key))
        if damaged:
            warnings.append(
                f"damaged: {'; '.join(damaged)}; built on version {manifest.version} instead, "
                "OK images added since then must be sent again"
            )
        return manifest, not damaged and self._store.is_whole(key, manifest)

    def _build(
        self,
        key: RoiKey,
        model: ModelDescription,
        recipe: Recipe,
        mm_per_px: float,
        images: list[OkImage],
        excluded: tuple[ExcludedImage, ...],
        *,
        action: Action,
        before: Manifest | None,
        exclude_suspects: bool,
        fresh: dict[str, NDArray[np.float16]],
        warnings: list[str],
        times: StageTimes,
    ) -> FitResult:
        """Learn from images and publish the next version. The caller holds the lock."""
        version = self._store.next_version(key)
        tokens = self._all_tokens(key, model, images, fresh)
        learned = learn(tokens, [image.frame for image in images], model.token_hw, recipe, times)
        suspects = [SuspectImage(images[s.index], s.score, s.robust_z) for s in learned.suspects()]
        if exclude_suspects and suspects:
            # One round: what stands out only once these are gone is told, not taken out with them.
            out = [replace(suspect, excluded=True) for suspect in suspects]
            excluded = (*excluded, *(suspect.as_excluded(version) for suspect in out))
            gone = {suspect.image.sha256 for suspect in out}
            tokens = tokens[[image.sha256 not in gone for image in images]]
            images = [image for image in images if image.sha256 not in gone]
            learned = learn(tokens, [image.frame for image in images], model.token_hw, recipe, times)
            suspects = [*out, *(SuspectImage(images[s.index], s.score, s.robust_z) for s in learned.suspects())]
        if recipe.spatial_weights.kind == "variance" and learned.weights is None:
            warnings.append("spatial_weights: the maps of one OK image have no variance; no weights were applied")
        n_tokens_total = tokens.shape[0] * tokens.shape[1]
        manifest = Manifest(
            role_id=key.role_id,
            roi_id=key.roi_id,
            version=version,
            created_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            model_fingerprint=model.fingerprint,
            extractor=model.extractor,
            token_hw=model.token_hw,
            dim=model.dim,
            coreset_rate=recipe.coreset_rate,
            coreset_rate_applied=len(learned.bank) / n_tokens_total,
            seed=recipe.seed,
            k=recipe.k,
            p_score=recipe.p_score,
            mm_per_px=mm_per_px,
            n_embeddings=len(learned.bank),
            n_tokens_total=n_tokens_total,
            covering_radius=learned.bank.covering_radius,
            images=tuple(images),
            excluded=excluded,
            spatial_weights=recipe.spatial_weights,
            ok_scores=tuple(learned.ok_scores),
            heatmap_max=_heatmap_max(learned),
        )
        calibration = None if before is None else self._calibration(key, before, warnings)
        # Reckoned before the version is published, so that one move of `current` brings bank and threshold.
        after = None if calibration is None else redone(manifest, learned.ok_maps, self._settings, calibration)
        kept = after or calibration
        change = Change(
            action=action,
            version_before=None if before is None else before.version,
            version_after=version,
            threshold_before=None if calibration is None else calibration.threshold,
            threshold_after=None if kept is None else kept.threshold,
            n_ok_before=0 if before is None else len(before.images),
            n_ok_after=len(images),
        )
        with times.stage("store"), self._store.audit.change(key, change):
            content = bank_files(learned.bank, manifest)
            _, manifest = self._store.publish(key, manifest, content, learned.weights, learned.ok_maps, kept)
        self._drop_unnamed_images(key)
        log.info("%s: version %d, %d OK images, %d embeddings", key, version, len(images), len(learned.bank))
        state = "redone" if after is not None else state_of(manifest, calibration)
        return FitResult(manifest, 0, 0, suspects, state, warnings, times)

    def _calibration(self, key: RoiKey, manifest: Manifest, warnings: list[str]) -> Calibration | None:
        # One that cannot be read ends the fit: the next version would be uncalibrated where this one is not.
        stored = self._store.calibration(key, manifest)
        if stored.damaged:
            warnings.append(f"damaged: {stored.damaged}; its copy was used")
        return stored.calibration

    def _drop_unnamed_images(self, key: RoiKey) -> None:
        """The version is published: that something needless stays is no reason to say otherwise."""
        try:
            self._store.drop_unnamed_images(key)
        except OSError as error:
            log.warning("%s: OK images that no version names stay: %s", key, error)

    def _mend(self, key: RoiKey, known: Sequence[_NewImage], before: Manifest, model: ModelDescription) -> None:
        """Of images that were sent again: put back what is damaged or gone of those kept."""
        kept = {image.sha256: image for image in (*before.images, *before.excluded)}
        for n in known:
            self._store.ok(key).mend_image(kept[n.image.sha256], n.data)
            if not n.stored:
                self._store.ok(key).add_tokens(n.image.sha256, model.fingerprint, n.tokens)

    def _all_tokens(
        self, key: RoiKey, model: ModelDescription, images: Sequence[OkImage], fresh: dict[str, NDArray[np.float16]]
    ) -> NDArray[np.float16]:
        """Float16 [I, N, D]: those just computed, those stored, and anew those that another model computed."""
        tokens = np.empty((len(images), model.n_tokens, model.dim), np.float16)
        for i, image in enumerate(images):
            stored = fresh.get(image.sha256)
            if stored is None:
                stored = self._store.ok(key).tokens(image.sha256, model.fingerprint)
            tokens[i] = self._recomputed(key, model, image) if stored is None else stored
        return tokens

    def _recomputed(self, key: RoiKey, model: ModelDescription, image: OkImage) -> NDArray[np.float16]:
        data = self._store.ok(key).image(image)
        header = read_header(data, image.file_name, self._limits)
        pixels = to_model_input(decode(data, image.file_name, header), model.input_size)
        tokens = from_thread.run(lambda: self._engine.tokens(pixels[None], model=model, priority=Priority.FIT))
        half: NDArray[np.float16] = tokens[0].astype(np.float16)
        self._store.ok(key).add_tokens(image.sha256, model.fingerprint, half)
        return half


def _by_sha256(images: Sequence[tuple[str, bytes]]) -> dict[str, tuple[str, bytes]]:
    """The first of the same bytes, last image first. Hundreds of megabytes may have to be read for it."""
    return {hashlib.sha256(data).hexdigest(): (name, data) for name, data in reversed(images)}


def _counted(result: FitResult) -> FitResult:
    tell(version=result.manifest.version, n_ok=len(result.manifest.images), n_added=result.n_added)
    for stage, ms in result.times.ms.items():
        FIT_STAGE_SECONDS.labels(stage).observe(ms / 1e3)
    return result


def _known(before: Manifest | None) -> set[str]:
    return set() if before is None else {image.sha256 for image in (*before.images, *before.excluded)}


def _suspects(manifest: Manifest, found: Sequence[Suspect]) -> list[SuspectImage]:
    return [SuspectImage(manifest.images[s.index], s.score, s.robust_z) for s in found]


def _changes(request: FitRequest, recipe: Recipe, before: Manifest) -> list[str]:
    """What the fit before was told differently, where that changes what scores or areas mean."""
    found = []
    if abs(request.mm_per_px / before.mm_per_px - 1) > 0.01:
        found.append(f"mm_per_px: {request.mm_per_px:g} here, {before.mm_per_px:g} at the fit before")
    if recipe.coreset_rate != before.coreset_rate:
        found.append(f"coreset_rate: {recipe.coreset_rate:g} here, {before.coreset_rate:g} at the fit before")
    if recipe.seed != before.seed:
        found.append(f"seed: {recipe.seed} here, {before.seed} at the fit before")
    now, then = recipe.spatial_weights.kind, before.spatial_weights.kind
    if now != then:
        found.append(f"spatial_weights: {now} here, {then} at the fit before")
    return found


def _kept_out(new: Sequence[_NewImage], before: Manifest) -> list[str]:
    excluded = {image.sha256: image for image in before.excluded}
    return [
        f"{n.image.file_name}: sent before and excluded as a suspect, so it was not learned; to have it learned, "
        f"DELETE /rois/{before.role_id}/{before.roi_id}/ok/{n.image.sha256} and send it again"
        for n in new
        if n.image.sha256 in excluded
    ]


def _reshaped(before: Manifest | None, new: Sequence[_NewImage], shape_json: str | None) -> list[OkImage]:
    """The images learned before; one that was sent again with a shape has that shape from now on."""
    if before is None or shape_json is None:
        return list(before.images) if before else []
    again = {n.image.sha256 for n in new}
    return [
        image.model_copy(update={"shape": shape_json}) if image.sha256 in again else image for image in before.images
    ]


def _same_recipe(before: Manifest, model: ModelDescription, recipe: Recipe, mm_per_px: float) -> bool:
    used = Recipe(
        coreset_rate=before.coreset_rate,
        seed=before.seed,
        k=before.k,
        p_score=before.p_score,
        spatial_weights=before.spatial_weights,
    )
    return before.model_fingerprint == model.fingerprint and used == recipe and before.mm_per_px == mm_per_px


def _heatmap_max(learned: Learned) -> float:
    """The distance that is white: √2, that of unrelated tokens, so that a defect on the evenest part keeps its peak.

    More for a part whose OK images already come near it: then twice their worst score, as far as distances go.
    """
    weight: float = 1.0 if learned.weights is None else float(learned.weights.max())
    p99 = float(np.percentile(learned.ok_scores, 99)) if learned.ok_scores else 0.0
    return min(max(2 * p99, _UNRELATED * weight), _LARGEST_DISTANCE * weight)
