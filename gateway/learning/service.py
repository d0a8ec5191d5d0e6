"""Fits: the order of events, from a request to a published version."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np
from anyio import CapacityLimiter
from numpy.typing import NDArray

from gateway.calibration.calibrate import redone, state_of
from gateway.detectors import require_taught
from gateway.detectors.memory_bank.detector import bank_files
from gateway.detectors.spatial_weighting import SpatialWeighting, WeightsMode
from gateway.errors import ArtifactCorruptError, InvalidRequestError, TooLargeError, UnknownImageError
from gateway.learning.build import Learned, Recipe, learn, manifest_of
from gateway.learning.earlier_version import (
    change_warnings,
    excluded_warnings,
    has_same_recipe,
    known_images,
    suspects_in,
    with_new_shape,
)
from gateway.learning.intake import Intake, NewImage
from gateway.learning.request import CalibrationState, FitRequest, FitResult, SuspectImage
from gateway.monitoring.metrics import FIT_STAGE_SECONDS
from gateway.monitoring.request_context import tell
from gateway.monitoring.timing import StageTimes
from gateway.networks import TokenEngine
from gateway.networks.model_description import ModelDescription
from gateway.settings import Settings
from gateway.store.artifact_store import ArtifactStore
from gateway.store.audit import Action, Change
from gateway.store.manifest import Calibration, ExcludedImage, Manifest, OkImage
from gateway.store.roi_key import RoiKey
from gateway.worker_threads import in_thread

log = logging.getLogger(__name__)


class FitService:
    """Fits memory banks in worker threads of its own, so that inspections never wait for them."""

    def __init__(
        self, engine: TokenEngine, store: ArtifactStore, weighting: SpatialWeighting, settings: Settings
    ) -> None:
        self._engine = engine
        self._store = store
        self._weighting = weighting
        self._settings = settings
        self._threads = CapacityLimiter(settings.max_queued_fits)
        self._decoders = CapacityLimiter(settings.max_queued_fits)
        self._intake = Intake(engine, store, settings, self._decoders)

    async def fit(self, request: FitRequest) -> FitResult:
        """Add OK images to an ROI and build a new memory bank from all its OK images.

        Raises:
            TrainedOfflineError: the ROI has a student, which learns offline.
            GatewayError: nothing was learned; the ROI answers as before.
        """
        times = StageTimes()
        await in_thread(self._require_taught, request.key, limiter=self._decoders)
        model = self._engine.model
        if len(request.images) > self._settings.max_fit_images:
            raise TooLargeError(
                f"images: {len(request.images)} in one request; at most {self._settings.max_fit_images} are served"
            )
        new = await self._intake.new_images(request, model, times)
        duplicates = len(request.images) - len(new)
        return _counted(await in_thread(self._learn, request, model, new, duplicates, times, limiter=self._threads))

    async def remove(self, key: RoiKey, sha256: str) -> FitResult:
        """Remove an OK image from an ROI, learned or excluded, and build a new memory bank from the others.

        The file of the image stays while a version that is kept names it. A later fit learns the image only if it is
        sent again.

        Raises:
            UnknownRoiError: the ROI was never fitted.
            UnknownImageError: the ROI has no such image.
            TrainedOfflineError: the ROI has a student, which learns offline.
            InvalidRequestError: it is the only image.
            GatewayError: nothing was changed.
        """
        times = StageTimes()
        await in_thread(self._require_taught, key, limiter=self._decoders)
        model = self._engine.model
        return _counted(await in_thread(self._remove, key, sha256, model, times, limiter=self._threads))

    def _learn(
        self,
        request: FitRequest,
        model: ModelDescription,
        new: list[NewImage],
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
            known = known_images(before)
            added = [n for n in new if n.image.sha256 not in known]
            duplicates += len(new) - len(added)
            kept = with_new_shape(before, new, request.shape_json)
            images = [*kept, *(n.image.model_copy(update={"added_in": version}) for n in added)]
            if len(images) > self._settings.max_roi_images:
                raise TooLargeError(
                    f"{key} would have {len(images)} OK images; the limit is {self._settings.max_roi_images}"
                )
            if before is not None:
                warnings += change_warnings(request, recipe, before)
                warnings += excluded_warnings(new, before)
                with times.stage("store"):
                    self._mend(key, [n for n in new if n.image.sha256 in known], before, model)
                same_images = not added and tuple(kept) == before.images
                unchanged = is_whole and same_images and has_same_recipe(before, model, recipe, request.mm_per_px)
                suspects = suspects_in(before)
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
            if before is None or sha256 not in known_images(before):
                raise UnknownImageError(f"{key} has no OK image {sha256[:80]}")
            images = [image for image in before.images if image.sha256 != sha256]
            if not images:
                raise InvalidRequestError(
                    f"{sha256} is the only OK image that {key} has learned; a memory bank cannot be empty",
                    f"Fit other images first, or delete the ROI with all its data: DELETE /rois/{key}.",
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
        """Refuse a fit of an ROI that has a student, before its images are decoded."""
        with suppress(ArtifactCorruptError):  # raised again under the lock
            latest = self._store.latest_manifest(key)
            if latest is not None:
                require_taught(latest[0], lambda: self._store.manifests(key))

    def _latest(self, key: RoiKey, warnings: list[str]) -> tuple[Manifest | None, bool]:
        """Return the version to build on, and whether it is the current one and undamaged.

        Raises:
            TrainedOfflineError: the ROI has a student, which learns offline.
        """
        latest = self._store.latest_manifest(key)
        if latest is None:
            return None, False
        manifest, damaged = latest
        require_taught(manifest, lambda: self._store.manifests(key))
        if damaged:
            warnings.append(
                f"damaged: {'; '.join(damaged)}; built on version {manifest.version} instead: "
                "send the OK images added since then again"
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
        fresh: Mapping[str, NDArray[np.float16]],
        warnings: list[str],
        times: StageTimes,
    ) -> FitResult:
        """Build the next version and publish it. The caller holds the lock."""
        version = self._store.next_version(key)
        tokens = self._intake.all_tokens(key, model, images, fresh)
        learned = learn(tokens, [image.frame for image in images], model.token_hw, recipe, times)
        suspects = [SuspectImage(images[s.index], s.score, s.robust_z) for s in learned.suspects()]
        if exclude_suspects and suspects:
            # One round: images that become suspects only in the new bank are reported, not excluded.
            out = [replace(suspect, excluded=True) for suspect in suspects]
            excluded = (*excluded, *(suspect.as_excluded(version) for suspect in out))
            removed = {suspect.image.sha256 for suspect in out}
            tokens = tokens[[image.sha256 not in removed for image in images]]
            images = [image for image in images if image.sha256 not in removed]
            learned = learn(tokens, [image.frame for image in images], model.token_hw, recipe, times)
            suspects = [*out, *(SuspectImage(images[s.index], s.score, s.robust_z) for s in learned.suspects())]
        if recipe.spatial_weights.kind == "variance" and learned.weights is None:
            warnings.append("spatial_weights: the maps of one OK image have no variance; no weights were applied")
        manifest = manifest_of(key, version, model, recipe, mm_per_px, images, excluded, learned)
        calibration = None if before is None else self._calibration(key, before, warnings)
        state, manifest = self._publish(key, manifest, learned, action, before, calibration, times)
        log.info("%s: version %d, %d OK images, %d embeddings", key, version, len(images), len(learned.bank))
        return FitResult(manifest, 0, 0, suspects, state, warnings, times)

    def _publish(
        self,
        key: RoiKey,
        manifest: Manifest,
        learned: Learned,
        action: Action,
        before: Manifest | None,
        calibration: Calibration | None,
        times: StageTimes,
    ) -> tuple[CalibrationState, Manifest]:
        """Publish a version with its calibration: the one before or, where it can be redone, a new one."""
        # Computed before the version is published, so that one move of `current` brings bank and threshold.
        after = None if calibration is None else redone(manifest, learned.ok_maps, self._settings, calibration)
        kept = after or calibration
        change = Change(
            action=action,
            version_before=None if before is None else before.version,
            version_after=manifest.version,
            threshold_before=None if calibration is None else calibration.threshold,
            threshold_after=None if kept is None else kept.threshold,
            n_ok_before=0 if before is None else len(before.images),
            n_ok_after=len(manifest.images),
        )
        with times.stage("store"), self._store.audit.change(key, change):
            content = bank_files(learned.bank, manifest)
            _, manifest = self._store.publish(key, manifest, content, learned.weights, learned.ok_maps, kept)
        self._drop_unnamed_images(key)
        return "redone" if after is not None else state_of(manifest, calibration), manifest

    def _calibration(self, key: RoiKey, manifest: Manifest, warnings: list[str]) -> Calibration | None:
        # An unreadable calibration ends the fit: the next version would be uncalibrated where this one is not.
        stored = self._store.calibration(key, manifest)
        if stored.damaged:
            warnings.append(f"damaged: {stored.damaged}; its copy was used")
        return stored.calibration

    def _drop_unnamed_images(self, key: RoiKey) -> None:
        """Delete images that no version names. The version is published: a failure here is only logged."""
        try:
            self._store.drop_unnamed_images(key)
        except OSError as error:
            log.warning("%s: OK images that no version names could not be deleted: %s", key, error)

    def _mend(self, key: RoiKey, known: Sequence[NewImage], before: Manifest, model: ModelDescription) -> None:
        """Store known images of the request again where the stored files are damaged or missing."""
        kept = {image.sha256: image for image in (*before.images, *before.excluded)}
        for n in known:
            self._store.ok(key).mend_image(kept[n.image.sha256], n.data)
            if not n.has_stored_tokens:
                self._store.ok(key).add_tokens(n.image.sha256, model.fingerprint, n.tokens)


def _counted(result: FitResult) -> FitResult:
    tell(version=result.manifest.version, n_ok=len(result.manifest.images), n_added=result.n_added)
    for stage, ms in result.times.ms.items():
        FIT_STAGE_SECONDS.labels(stage).observe(ms / 1e3)
    return result
