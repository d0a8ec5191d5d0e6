"""Publish a trained student-teacher model as the next version of an ROI, without torch."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from artifacts.moving import acting
from gateway.calibration.calibrate import redone
from gateway.calibration.calibration_warnings import unscored_warning
from gateway.calibration.ok_scores import ok_scores
from gateway.detectors.spatial_weighting import SpatialWeighting, WeightsMode, weights_of
from gateway.errors import ArtifactCorruptError, GatewayError
from gateway.images.appearance import look
from gateway.images.decoding import Limits, decode, read_header, to_model_input
from gateway.images.masks import mask_of
from gateway.networks.model_description import DESCRIPTION_FILE, GRAPH_FILE, DescriptionError
from gateway.networks.student_description import StudentDescription, read_ok_maps, read_student
from gateway.settings import Settings
from gateway.store.arrays import read_weights
from gateway.store.artifact_store import ArtifactStore
from gateway.store.audit import Change
from gateway.store.manifest import NETWORK, NETWORK_DESCRIPTION, Calibration, FileName, Manifest, OkImage, WeightsRecipe
from gateway.store.ok_maps import OkMaps
from gateway.store.roi_key import RoiKey
from gateway.store.version_folder import version_files
from postprocess.roi_mask import parse_shape

_RULE: Final = "top_mean"


class PublishError(Exception):
    """A model cannot be published. The message says why."""


@dataclass(frozen=True, slots=True)
class Published:
    """The result of a publication."""

    manifest: Manifest
    calibration: Calibration | None
    warnings: list[str]
    was_in_use: bool = False
    """The same model was in use already: nothing was changed."""


@dataclass(frozen=True, slots=True)
class _OkFile:
    image: OkImage
    data: bytes


def publish_model(
    store: ArtifactStore,
    settings: Settings,
    folder: Path,
    key: RoiKey,
    *,
    mm_per_px: float,
    images: Sequence[Path],
    shape: str | None = None,
    mode: WeightsMode | None = None,
) -> Published:
    """Put a trained model in use as the next version of an ROI. Gateways may run at the same time.

    The student has not seen its validation images in training. Their maps replace the leave-one-out maps of a memory
    bank: calibration, spatial weights, drift and report use them.

    Args:
        store: the models folder.
        settings: percentile of the score, spatial weights, limits.
        folder: version folder of the model, written by the export.
        key: the ROI.
        mm_per_px: side of a pixel of the OK images.
        images: folders or files with the validation images, which are identified by their SHA-256.
        shape: shape of the part, as JSON, for the scores of these images.
        mode: spatial weights of an ROI with neither a manual box nor ``spatial_mask_<connector>.npy`` beside the
            model; None takes the setting.

    Raises:
        PublishError: the model is damaged, or a validation image is missing.
        RoiConfigError: the file of manual boxes cannot be used.
        ShapeError: the shape is invalid.
        GatewayError: nothing was changed.
    """
    try:
        model = read_student(folder)
        graph, described = (folder / GRAPH_FILE).read_bytes(), (folder / DESCRIPTION_FILE).read_bytes()
        maps, checksums = read_ok_maps(folder, model)
    except (DescriptionError, OSError) as error:
        raise PublishError(f"not a trained student-teacher model: {error}") from error
    side = model.input_size
    if hashlib.sha256(graph).hexdigest() != model.graph_sha256 or maps.shape != (len(checksums), side, side):
        raise PublishError(f"{folder} is damaged: {GRAPH_FILE} or the OK maps differ from {DESCRIPTION_FILE}")
    files = _ok_files(model, checksums, images, shape, settings)
    ok_maps = OkMaps(
        np.ascontiguousarray(maps.reshape(len(maps), -1)),
        (side, side),
        tuple(file.image.frame for file in files),
        rule=_RULE,
    )
    recipe, weights = _weights(folder, model, key, ok_maps, settings, mode)
    ok_maps = OkMaps(ok_maps.distances, ok_maps.token_hw, ok_maps.frames, weights, _RULE)
    scores = ok_scores(ok_maps, settings.p_score)
    content: dict[FileName, bytes] = {NETWORK: graph, NETWORK_DESCRIPTION: described}
    with acting(), store.lock(key, settings.fit_lock_timeout_s, creates=True):
        latest = store.latest_manifest(key)
        before = None if latest is None else latest[0]
        number = store.next_version(key)
        manifest = Manifest(
            **asdict(key),
            version=number,
            created_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            detector=model.kind,
            score_rule=_RULE,
            model_fingerprint=model.fingerprint,
            extractor=model.extractor,
            token_hw=(side, side),
            dim=1,
            coreset_rate=0.0,
            coreset_rate_applied=0.0,
            seed=model.training.seed,
            k=0,
            p_score=settings.p_score,
            mm_per_px=mm_per_px,
            n_embeddings=0,
            n_tokens_total=0,
            covering_radius=0.0,
            images=tuple(_added_in(file.image, number, before) for file in files),
            spatial_weights=recipe,
            ok_scores=tuple(scores),
            # White is twice the worst OK score, as for a memory bank.
            heatmap_max=max(2 * float(np.percentile(scores, 99)), float(np.finfo(np.float32).tiny)),
        )
        ok = store.ok(key)
        is_known = before is not None and _is_the_same(before, version_files(manifest, content, weights, ok_maps)[0])
        if before is not None and is_known and not _is_damaged(store, key, before):
            for file in files:
                ok.mend_image(file.image, file.data)
            return Published(before, store.calibration(key, before).calibration, [], was_in_use=True)
        calibration, warnings = _calibration(store, key, before, manifest, ok_maps, settings)
        change = Change(
            action="publish",
            version_before=None if before is None else before.version,
            version_after=number,
            threshold_before=None if before is None else store.threshold(key, before),
            threshold_after=None if calibration is None else calibration.threshold,
            n_ok_before=0 if before is None else len(before.images),
            n_ok_after=len(files),
        )
        with store.audit.change(key, change):
            for file in files:
                ok.add_image(file.image, file.data)
            _, manifest = store.publish(key, manifest, content, weights, ok_maps, calibration)
    return Published(manifest, calibration, warnings)


def _is_the_same(one: Manifest, other: Manifest) -> bool:
    """Return the content and its description without number and time."""

    def told(manifest: Manifest) -> Manifest:
        images = tuple(image.model_copy(update={"added_in": 0}) for image in manifest.images)
        return manifest.model_copy(update={"format": 2, "version": 0, "created_at": "", "images": images})

    return told(one) == told(other)


def _is_damaged(store: ArtifactStore, key: RoiKey, manifest: Manifest) -> bool:
    """Return whether a file of the version in use must be written again."""
    try:
        is_pointed_to = store.current(key).damaged is None and store.current(key).number == manifest.version
        return not is_pointed_to or not store.is_whole(key, manifest) or bool(store.calibration(key, manifest).damaged)
    except ArtifactCorruptError:
        return True


def _ok_files(
    model: StudentDescription, checksums: Sequence[str], images: Sequence[Path], shape: str | None, settings: Settings
) -> list[_OkFile]:
    """Return the validation images in the order of their maps."""
    names = {image.sha256: image.name for image in model.training.images}
    wanted = {names[sha256] for sha256 in checksums if sha256 in names}
    found: dict[str, bytes] = {}
    for path in _candidates(images, wanted):
        data = path.read_bytes()
        found.setdefault(hashlib.sha256(data).hexdigest(), data)
    missing = [names.get(sha256, sha256) for sha256 in checksums if sha256 not in found]
    if missing:
        raise PublishError(
            f"{len(missing)} of {len(checksums)} validation images are missing in {', '.join(map(str, images))}, "
            f"for example {missing[0]}: name their folder with --images"
        )
    return [_OkFile(_ok_image(found[s], names[s], model, shape, settings), found[s]) for s in checksums]


def _candidates(images: Sequence[Path], names: set[str]) -> Iterator[Path]:
    """Yield the named files, and from folders only these names: other files there may not be OK."""
    for path in images:
        if path.is_dir():
            yield from sorted(each for each in path.iterdir() if each.name in names and each.is_file())
        else:
            yield path


def _ok_image(data: bytes, name: str, model: StudentDescription, shape: str | None, settings: Settings) -> OkImage:
    try:
        header = read_header(data, name, Limits(settings.max_image_bytes, settings.max_image_pixels))
        width, height = header.upright_size
        if shape is not None:
            mask_of(parse_shape(shape)[0], (width, height))
        looks = look(to_model_input(decode(data, name, header), model.input_size))
    except GatewayError as error:
        raise PublishError(error.message) from error
    return OkImage(
        sha256=hashlib.sha256(data).hexdigest(),
        file_name=name[:255],
        extension=header.extension,
        width=width,
        height=height,
        shape=shape,
        added_in=0,
        brightness=looks.brightness,
        sharpness=looks.sharpness,
    )


def _added_in(image: OkImage, number: int, before: Manifest | None) -> OkImage:
    """Return the image as the ROI stores it. It counts as added when the ROI first had it."""
    known = {} if before is None else {each.sha256: each.added_in for each in before.images}
    return image.model_copy(update={"added_in": known.get(image.sha256, number)})


def _weights(
    folder: Path, model: StudentDescription, key: RoiKey, ok_maps: OkMaps, settings: Settings, mode: WeightsMode | None
) -> tuple[WeightsRecipe, NDArray[np.float32] | None]:
    """Return the weights: of a manual box, else of the mask beside the model, else of the request or setting."""
    recipe = SpatialWeighting.from_settings(settings).recipe(key, mode)
    mask = folder / f"spatial_mask_{model.connector}.npy"
    if recipe.kind != "manual" and mask.is_file():
        try:
            weights = read_weights(mask.read_bytes(), ok_maps.token_hw)
        except ValueError as error:
            raise PublishError(f"{mask}: {error}") from error
        if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.any()):
            raise PublishError(f"{mask}: weights must be finite, 0 or above, and not all 0")
        return WeightsRecipe(kind="file"), weights
    return recipe, weights_of(recipe, ok_maps.token_hw, ok_maps.spread())


def _calibration(
    store: ArtifactStore,
    key: RoiKey,
    before: Manifest | None,
    manifest: Manifest,
    ok_maps: OkMaps,
    settings: Settings,
) -> tuple[Calibration | None, list[str]]:
    """Return the calibration of the new version: the old rule on the new OK scores, else the old one, now stale.

    The threshold of another detector has other units and is not carried over.
    """
    if before is None:
        return None, []
    try:
        calibration = store.calibration(key, before).calibration
    except ArtifactCorruptError as error:
        return None, [f"{error.message}: calibrate again"]
    if calibration is None:
        return None, []
    again = redone(manifest, ok_maps, settings, calibration)
    if again is not None:
        return again, unscored_warning(manifest, calibration.n_ok_unseen)
    said = "uses scores that were measured with the version before: calibrate again"
    if manifest.detector == before.detector:
        return calibration, [f"the threshold {said}"]
    return None, [f"the threshold of version {before.version} was not carried over, because it {said}"]
