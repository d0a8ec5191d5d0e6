"""Fits: the order of events, from a request to a published version."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from anyio import CapacityLimiter

from gateway.calibration.calibrate import redone, state_of
from gateway.calibration.stored_evidence import StoredEvidence
from gateway.detectors import require_taught
from gateway.detectors.memory_bank.detector import bank_files
from gateway.detectors.memory_bank.token_file import FileTokens, TokenFile
from gateway.detectors.spatial_weighting import SpatialWeighting
from gateway.errors import (
    ArtifactCorruptError,
    GatewayError,
    InvalidRequestError,
    OverloadedError,
    TooLargeError,
    UnknownImageError,
)
from gateway.images.tiling import Tiling
from gateway.learning.build import Learned, Recipe, learn, manifest_of
from gateway.learning.earlier_version import (
    KnownImages,
    change_warnings,
    excluded_warnings,
    has_same_recipe,
    recipe_for,
    suspects_in,
    tiles_warnings,
    tiling_for,
    unidentified,
    with_identities,
)
from gateway.learning.intake import CACHE_FOLDER, Intake
from gateway.learning.memory_need import memory_of_fit, require_affordable
from gateway.learning.near_copies import find_near_copies
from gateway.learning.progress import FitsInProgress
from gateway.learning.request import CalibrationState, FitRequest, FitResult, ImageFile, SuspectImage, TilesAsked
from gateway.learning.stored_scores import StoredScorer, with_stored_scores
from gateway.learning.taken_over import (
    PreparedFit,
    StoredLabels,
    mended,
    n_of_stored_fit,
    require_any,
    store_added,
    stored_files,
    with_new_shape,
)
from gateway.monitoring.metrics import FIT_STAGE_SECONDS
from gateway.monitoring.request_context import tell
from gateway.monitoring.timing import StageTimes
from gateway.networks import TokenEngine
from gateway.networks.model_description import ModelDescription
from gateway.settings import Settings
from gateway.store.artifact_store import ArtifactStore
from gateway.store.atomic import storage_errors
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
        self._scorer = StoredScorer(engine, store, settings)
        self._intake = Intake(engine, store, settings, self._decoders)
        self.progress = FitsInProgress()

    async def memory_needed(
        self,
        key: RoiKey,
        new: Sequence[ImageFile] | None,
        coreset_rate: float | None,
        tiles: TilesAsked | None = None,
    ) -> int:
        """Return the memory that a fit takes, in bytes.

        Args:
            key: the ROI.
            new: images of the request; None for a fit of the stored OK images.
            coreset_rate: that of the request, or None for the one of the ROI.
            tiles: those of the request, or None for those of the ROI.

        Raises:
            TooLargeError: the fit takes more than fits may take.
            InvalidRequestError: the fit is one of stored images, and the ROI has none; or too many tiles are asked for.
            GatewayError: the first image of a new ROI cannot be read.
        """
        return await in_thread(self._memory_needed, key, new, coreset_rate, tiles, limiter=self._decoders)

    def _memory_needed(
        self, key: RoiKey, new: Sequence[ImageFile] | None, coreset_rate: float | None, tiles: TilesAsked | None
    ) -> int:
        before = self._require_taught(key)
        if new is None:
            n_images = n_of_stored_fit(self._store, key, before)
        else:
            n_images = len(new) + (0 if before is None else len(before.images))
        files = stored_files(self._store, key) if new is None else new
        tiling = self._tiling(tiles, before, files, self._engine.model)
        rate = coreset_rate or (self._settings.coreset_rate if before is None else before.coreset_rate)
        memory = memory_of_fit(n_images, rate, tiling.n_tokens, self._engine.model.dim)
        require_affordable(key, memory, self._settings.max_fit_memory_bytes, n_images, rate, tiling)
        return memory

    def _tiling(
        self, asked: TilesAsked | None, before: Manifest | None, files: Sequence[ImageFile], model: ModelDescription
    ) -> Tiling:
        """Return how a fit cuts images. Blocks."""
        first_size = self._intake.first_size(files) if before is None else None
        return tiling_for(asked, before, first_size, model, self._settings.max_tiles)

    async def fit(self, request: FitRequest) -> FitResult:
        """Add OK images to an ROI and build a new memory bank from all its OK images.

        Images that were relabelled NG or deleted since the fit before leave the bank.

        Raises:
            TrainedOfflineError: the ROI has a student, which learns offline.
            InvalidRequestError: an image shows nothing, there is no OK image, or a new ROI may not have its name.
            ImageConflictError: an image of the request is stored with the label NG.
            GatewayError: nothing was learned.
        """
        with self.progress.begin(request.key) as times:
            return await self._fit(request, times)

    async def _fit(self, request: FitRequest, times: StageTimes) -> FitResult:
        before = await in_thread(self._require_taught, request.key, limiter=self._decoders)
        if before is None:  # checked again under the lock
            await in_thread(self._store.check_name, request.key, limiter=self._decoders)
        model = self._engine.model
        if len(request.images) > self._settings.max_fit_images:
            raise TooLargeError(
                f"images: {len(request.images)} in one request; at most {self._settings.max_fit_images} are served"
            )
        if request.stored:
            files = await in_thread(stored_files, self._store, request.key, limiter=self._decoders)
            if before is None:
                require_any(request.key, files)
            request = replace(request, images=files)
        tiling = await in_thread(self._tiling, request.tiles, before, request.images, model, limiter=self._decoders)
        recipe = recipe_for(request.key, request, before, self._settings, self._weighting, tiling)
        bit_depth = recipe.bit_depth
        identified = await in_thread(
            self._intake.identified,
            request.key,
            tiling,
            unidentified(before, recipe),
            bit_depth,
            limiter=self._decoders,
        )
        known = None if before is None else with_identities(before, identified)
        learned = [] if known is None else [*known.images, *known.excluded]
        with self._token_file(tiling, model) as tokens:
            received = await self._intake.receive(request, model, bit_depth, tiling, learned, tokens, times)
            fit = PreparedFit(request, model, bit_depth, tiling, identified, received, tokens, times)
            return _counted(await in_thread(self._learn, fit, limiter=self._threads))

    async def remove(self, key: RoiKey, sha256: str) -> FitResult:
        """Remove an OK image from an ROI, learned or excluded, and build a new memory bank from the others.

        The file stays while a kept version names it. A later fit learns the image only if it is sent again.

        Raises:
            UnknownRoiError: the ROI was never fitted.
            UnknownImageError: the ROI has no such image.
            TrainedOfflineError: the ROI has a student, which learns offline.
            InvalidRequestError: it is the only image.
            GatewayError: nothing was changed.
        """
        await in_thread(self._require_taught, key, limiter=self._decoders)
        with self.progress.begin(key) as times:
            return _counted(
                await in_thread(self._remove, key, sha256, self._engine.model, times, limiter=self._threads)
            )

    def _token_file(self, tiling: Tiling, model: ModelDescription) -> TokenFile:
        with storage_errors(CACHE_FOLDER):
            return TokenFile(self._settings.cache_dir / "fits", tiling.n_tokens, model.dim)

    def _learn(self, fit: PreparedFit) -> FitResult:
        """Learn from what a request brought. Blocks."""
        request, key, model, times = fit.request, fit.request.key, fit.model, fit.times
        warnings = [*request.warnings, *fit.received.warnings]
        with self._store.lock(key, self._settings.fit_lock_timeout_s, creates=True):
            before, is_whole = self._latest(key, warnings)
            tiling = fit.tiling
            if before is not None:
                tiling = tiling_for(request.tiles, before, None, model, self._settings.max_tiles)
            recipe = recipe_for(key, request, before, self._settings, self._weighting, tiling)
            if (recipe.bit_depth, tiling) != (fit.bit_depth, fit.tiling):
                raise OverloadedError(f"{key}: another fit changed its bit depth or tiles meanwhile", retry_after_s=1)
            labels = StoredLabels(self._store, key)
            received = labels.learnable(request, fit.received.images)
            warnings += labels.warnings
            before = None if before is None else with_identities(before, fit.identified)
            base = None if before is None else labels.kept(before)
            version = self._store.next_version(key)
            known = KnownImages(base)
            pairs = [(known.find(n.image), n) for n in received]
            again = [(image, n) for image, n in pairs if image is not None]
            added = [n for image, n in pairs if image is None]
            duplicates = 0 if request.stored else len(request.images) - len(added)
            ok = self._store.ok(key)
            with times.stage("store"):
                labels.forget_sent_again(self._store, self._settings.fit_lock_timeout_s)
                again_as = {image.sha256: mended(ok, image, n, fit) for image, n in again}
            kept = [] if base is None else with_new_shape(base.images, again_as, request.shape_json)
            images = [*kept, *(n.image.model_copy(update={"added_in": version}) for n in added)]
            require_any(key, images)
            if len(images) > self._settings.max_roi_images:
                raise TooLargeError(
                    f"{key} would have {len(images)} OK images; the limit is {self._settings.max_roi_images}"
                )
            excluded = () if base is None else base.excluded
            if before is None:
                warnings += tiles_warnings(request, recipe, images[0])
            else:
                warnings += change_warnings(request, recipe, before)
                warnings += excluded_warnings(again, before)
                unchanged = is_whole and (tuple(images), excluded) == (before.images, before.excluded)
                unchanged = unchanged and has_same_recipe(before, model, recipe, request.mm_per_px)
                suspects = suspects_in(before)
                if unchanged and not (request.exclude_suspects and suspects):
                    state = state_of(before, self._calibration(key, before, warnings))
                    return FitResult(before, 0, duplicates, suspects, state, warnings, times)
            with times.stage("store"), self._store.storage.batch(key):
                gone = store_added(ok, fit, added)
            images = [image for image in images if image.sha256 not in gone]
            require_any(key, images)
            places = {n.image.sha256: n.place for n in added}
            places |= {again_as[image.sha256].sha256: n.place for image, n in again}
            result = self._build(
                key,
                model,
                recipe,
                request.mm_per_px,
                images,
                excluded,
                action="fit",
                before=before,
                exclude_suspects=request.exclude_suspects,
                tokens=fit.tokens,
                places=places,
                warnings=warnings,
                times=times,
            )
        n_added = sum(image.added_in == result.manifest.version for image in result.manifest.images)
        return replace(result, n_added=n_added, duplicates=duplicates)

    def _remove(self, key: RoiKey, sha256: str, model: ModelDescription, times: StageTimes) -> FitResult:
        """Build the next version without an image. Blocks."""
        self._store.current(key)
        warnings: list[str] = []
        with self._store.lock(key, self._settings.fit_lock_timeout_s):
            before, _ = self._latest(key, warnings)
            known = KnownImages(before)
            if before is None or sha256 not in known:
                raise UnknownImageError(f"{key} has no OK image {sha256[:80]}")
            labels = StoredLabels(self._store, key)
            warnings += labels.warnings
            base = labels.kept(before)
            images = [image for image in base.images if image.sha256 != sha256]
            if not images:
                raise InvalidRequestError(
                    f"{sha256} is the only OK image that {key} has learned; a memory bank cannot be empty",
                    f"Fit other images first, or delete the ROI with all its data: DELETE {key.url()}.",
                )
            tiling = tiling_for(None, before, None, model, self._settings.max_tiles)
            with self._token_file(tiling, model) as tokens:
                result = self._build(
                    key,
                    model,
                    recipe_for(key, None, before, self._settings, self._weighting, tiling),
                    before.mm_per_px,
                    images,
                    tuple(image for image in base.excluded if image.sha256 != sha256),
                    action="delete_ok_image",
                    before=before,
                    exclude_suspects=False,
                    tokens=tokens,
                    places={},
                    warnings=warnings,
                    times=times,
                )
            labels.forget(self._store, known.by_file(sha256), self._settings.fit_lock_timeout_s)
            return result

    def _require_taught(self, key: RoiKey) -> Manifest | None:
        """Return the version to build on; refuse a fit of an ROI that has a student, before images are decoded."""
        with suppress(ArtifactCorruptError):  # raised again under the lock
            latest = self._store.latest_manifest(key)
            if latest is not None:
                require_taught(latest[0], lambda: self._store.manifests(key))
                return latest[0]
        return None

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
        tokens: TokenFile,
        places: Mapping[str, int],
        warnings: list[str],
        times: StageTimes,
    ) -> FitResult:
        """Build the next version and publish it. The caller holds the lock."""
        version = self._store.next_version(key)
        found = self._intake.stored(key, model, recipe.bit_depth, recipe.tiling, images, places, tokens, times)
        learned = self._learned(found, images, recipe, times)
        suspects = [SuspectImage(images[s.index], s.score, s.robust_z) for s in learned.suspects()]
        if exclude_suspects and suspects:
            # One round: images that become suspects only in the new bank are reported, not excluded.
            out = [replace(suspect, excluded=True) for suspect in suspects]
            excluded = (*excluded, *(suspect.as_excluded(version) for suspect in out))
            removed = {suspect.image.sha256 for suspect in out}
            kept = [i for i, image in enumerate(images) if image.sha256 not in removed]
            images = [images[i] for i in kept]
            found = found.only(kept)
            learned = self._learned(found, images, recipe, times)
            suspects = [*out, *(SuspectImage(images[s.index], s.score, s.robust_z) for s in learned.suspects())]
        with times.stage("loo"):
            warnings += find_near_copies(found).warnings(images)
        if recipe.spatial_weights.kind == "variance" and learned.weights is None:
            warnings.append("spatial_weights: the maps of one OK image have no variance; no weights were applied")
        manifest = manifest_of(key, version, model, recipe, mm_per_px, images, excluded, learned)
        calibration = None if before is None else self._calibration(key, before, warnings)
        with times.stage("stored"):
            evidence = self._scorer.of_bank(key, model, manifest, learned.bank, learned.weights)
        warnings += evidence.warnings
        state, manifest = self._publish(key, manifest, learned, evidence, action, before, calibration, times)
        log.info("%s: version %d, %d OK images, %d embeddings", key, version, len(images), len(learned.bank))
        return FitResult(manifest, 0, 0, suspects, state, warnings, times)

    def _learned(self, tokens: FileTokens, images: Sequence[OkImage], recipe: Recipe, times: StageTimes) -> Learned:
        return learn(tokens, [image.frame for image in images], recipe, self._settings.blur_sigma, times)

    def _publish(
        self,
        key: RoiKey,
        manifest: Manifest,
        learned: Learned,
        evidence: StoredEvidence,
        action: Action,
        before: Manifest | None,
        calibration: Calibration | None,
        times: StageTimes,
    ) -> tuple[CalibrationState, Manifest]:
        """Publish a version with its calibration: the one before or, where it can be redone, a new one."""
        # Computed before the version is published, so that one move of `current` brings bank and threshold.
        settings = self._settings
        after = None if calibration is None else redone(manifest, learned.ok_maps, settings, calibration, evidence)
        kept = after or calibration
        manifest = with_stored_scores(manifest, evidence, after, settings)
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
        except (OSError, GatewayError) as error:
            log.warning("%s: OK images that no version names could not be deleted: %s", key, error)


def _counted(result: FitResult) -> FitResult:
    tell(version=result.manifest.version, n_ok=len(result.manifest.images), n_added=result.n_added)
    for stage, ms in result.times.ms.items():
        FIT_STAGE_SECONDS.labels(stage).observe(ms / 1e3)
    return result
