"""Scores stored images with a version. They are never learned by it."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from gateway.calibration.stored_evidence import StoredEvidence
from gateway.detectors import Detector, load_detector
from gateway.detectors.memory_bank.bank import MemoryBank
from gateway.detectors.memory_bank.detector import MemoryBankDetector
from gateway.detectors.memory_bank.search.backend import build_search
from gateway.errors import ArtifactCorruptError, ModelMismatchError
from gateway.images.decoding import Limits, decode_picture, read_header
from gateway.images.tiling import Tiling
from gateway.learning.intake import token_key
from gateway.networks import Priority
from gateway.networks.model_description import ModelDescription
from gateway.networks.model_tiling import tiling_of
from gateway.networks.registry import EngineRegistry
from gateway.settings import Settings
from gateway.store.artifact_store import ArtifactStore
from gateway.store.labelled_images import ImageRecord, LabelledImages
from gateway.store.manifest import Calibration, Manifest, OkImage
from gateway.store.ok_maps import Frame, OkMaps
from gateway.store.roi_key import RoiKey
from gateway.store.version_folder import read_served_verified, spatial_weights_of
from gateway.worker_threads import on_event_loop
from postprocess.regions import smallest_area_px
from postprocess.roi_mask import parse_shape

_BATCH = 8


class StoredScorer:
    """Scores the stored images that a version has not learned. Call it in a thread that `in_thread` started."""

    def __init__(self, engines: EngineRegistry, store: ArtifactStore, settings: Settings) -> None:
        self._engines = engines
        self._store = store
        self._settings = settings
        self._limits = Limits(settings.max_image_bytes, settings.max_image_pixels)

    def of_version(self, key: RoiKey, manifest: Manifest) -> StoredEvidence | None:
        """Return what the stored images tell of a stored version, or None if they cannot be scored with it.

        Raises:
            ModelMismatchError: the version was made with another model than the engine serves.
            EngineUnavailableError: tokens are missing and cannot be computed.
        """
        if not manifest.is_taught:
            return None
        records, warnings = self._unlearned(key, manifest)
        if not records:
            return _none(manifest, warnings)
        model = on_event_loop(self._engines.token_engine_of, manifest.input_size).model
        if manifest.model_fingerprint != model.fingerprint:
            raise ModelMismatchError(
                f"{key} was fitted with model {manifest.model_fingerprint[:16]}, the engine serves "
                f"{model.fingerprint[:16]}: its stored images cannot be scored"
            )
        files = read_served_verified(self._store.version_folder(key, manifest.version), manifest)
        detector = load_detector(files, manifest, self._settings.search)
        weights = spatial_weights_of(files, manifest)
        return self._evidence(key, model, manifest, detector, weights, records, warnings)

    def of_bank(
        self,
        key: RoiKey,
        model: ModelDescription,
        manifest: Manifest,
        bank: MemoryBank,
        weights: NDArray[np.float32] | None,
    ) -> StoredEvidence:
        """Return what the stored images tell of a version that is about to be published.

        Raises:
            EngineUnavailableError: tokens are missing and cannot be computed.
        """
        records, warnings = self._unlearned(key, manifest)
        if not records:
            return _none(manifest, warnings)
        detector = MemoryBankDetector(bank, build_search(bank.tokens, self._settings.search), manifest)
        return self._evidence(key, model, manifest, detector, weights, records, warnings)

    def _unlearned(self, key: RoiKey, manifest: Manifest) -> tuple[list[ImageRecord], list[str]]:
        """Return the stored images that count beside those of a version, and warnings of those that do not.

        These are the NG images that it has not learned, and the OK images that it has neither learned nor excluded.
        """
        learned = _digests(manifest.images)
        known = {"ng": learned, "ok": learned | _digests(manifest.excluded)}
        stored = self._store.images(key).records().stored
        found = [r for r in stored if not {r.id, r.file_sha256} & known[r.label]]
        n_learned_ng = sum(r.label == "ng" for r in stored) - sum(r.label == "ng" for r in found)
        warnings = []
        if n_learned_ng:
            warnings.append(
                f"images: {n_learned_ng} images that were relabelled NG are still in the memory bank and do not count: "
                "send /fit_ok without files"
            )
        return found, warnings

    def _evidence(
        self,
        key: RoiKey,
        model: ModelDescription,
        manifest: Manifest,
        detector: Detector,
        weights: NDArray[np.float32] | None,
        records: Sequence[ImageRecord],
        warnings: list[str],
    ) -> StoredEvidence:
        k = detector.neighbours(None)[0]
        scored: dict[str, list[tuple[ImageRecord, NDArray[np.float32]]]] = {"ok": [], "ng": []}
        for record, tokens in self._tokens(key, model, manifest, records, warnings):
            scored[record.label].append((record, detector.distances(tokens.astype(np.float32), k)))

        def maps(label: str) -> OkMaps:
            found = scored[label]
            n_tokens = manifest.token_hw[0] * manifest.token_hw[1]
            distances = np.stack([d for _, d in found]) if found else np.empty((0, n_tokens), np.float32)
            return OkMaps(
                distances, manifest.token_hw, tuple(_frame(r) for r, _ in found), weights, manifest.score_rule
            )

        ids = {label: tuple(record.id for record, _ in found) for label, found in scored.items()}
        return StoredEvidence(maps("ok"), ids["ok"], maps("ng"), ids["ng"], tuple(warnings))

    def _tokens(
        self,
        key: RoiKey,
        model: ModelDescription,
        manifest: Manifest,
        records: Sequence[ImageRecord],
        warnings: list[str],
    ) -> Iterator[tuple[ImageRecord, NDArray[np.float16]]]:
        """Yield the tokens of images, float16 [N, D]. Missing ones are computed and stored.

        An image that was deleted meanwhile or whose file is damaged is left out.
        """
        images = self._store.images(key)
        tiling, bit_depth = tiling_of(manifest, model), manifest.bit_depth
        size = max(1, _BATCH // tiling.n_tiles)
        for start in range(0, len(records), size):
            batch = records[start : start + size]
            found = {r.id: images.tokens(r.id, token_key(model, r, bit_depth, tiling)) for r in batch}
            inputs = {r.id: self._tiles(images, r, tiling, bit_depth, warnings) for r in batch if found[r.id] is None}
            missing = {image_id: tiles for image_id, tiles in inputs.items() if tiles is not None}
            if missing:
                computed = on_event_loop(self._computed, np.concatenate(list(missing.values())), model)
                of_images = np.split(computed.astype(np.float16), len(missing))
                found |= dict(zip(missing, map(tiling.stitched, of_images), strict=True))
            for record in batch:
                tokens = found[record.id]
                if tokens is None:
                    continue
                if record.id in missing:
                    images.add_tokens(record.id, token_key(model, record, bit_depth, tiling), tokens)
                yield record, tokens

    def _tiles(
        self,
        images: LabelledImages,
        record: ImageRecord,
        tiling: Tiling,
        bit_depth: int | None,
        warnings: list[str],
    ) -> NDArray[np.uint8] | None:
        try:
            data = images.content(record)
        except FileNotFoundError:
            return None
        except ArtifactCorruptError as error:
            warnings.append(f"damaged: {error.message}; the image does not count")
            return None
        header = read_header(data, record.file_name, self._limits)
        return tiling.cut(tiling.resized(decode_picture(data, record.file_name, header, bit_depth).pixels))

    async def _computed(self, images: NDArray[np.uint8], model: ModelDescription) -> NDArray[np.float32]:
        return await self._engines.tokens(images, model=model, priority=Priority.FIT)


def with_stored_scores(
    manifest: Manifest, evidence: StoredEvidence, calibration: Calibration | None, settings: Settings
) -> Manifest:
    """Return a new version with the scores of the stored images that it has not learned.

    Args:
        manifest: the version, without them.
        evidence: the stored images, scored with it.
        calibration: the calibration that was redone for it, or None. Where it has the scores, they are taken from it.
        settings: blur and smallest area for the peaks without a calibration.
    """
    stored = () if calibration is None else calibration.stored_scores
    if not stored:
        min_area_px = smallest_area_px(settings.area_mm2_thr, manifest.mm_per_px)
        stored = evidence.scores(manifest.p_score, settings.blur_sigma, min_area_px)
    return manifest.model_copy(update={"stored_scores": stored})


def _frame(record: ImageRecord) -> Frame:
    return Frame((record.width, record.height), None if record.shape is None else parse_shape(record.shape)[0])


def _digests(images: Iterable[OkImage]) -> set[str | None]:
    return {digest for image in images for digest in (image.pixels_sha256, image.sha256)}


def _none(manifest: Manifest, warnings: list[str]) -> StoredEvidence:
    n_tokens = manifest.token_hw[0] * manifest.token_hw[1]
    empty = OkMaps(np.empty((0, n_tokens), np.float32), manifest.token_hw, ())
    return StoredEvidence(empty, (), empty, (), tuple(warnings))
