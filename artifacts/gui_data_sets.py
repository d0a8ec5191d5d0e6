"""Take over the data sets that the desktop GUI's former server kept.

They are folders ``recipes/<recipe>/datasets/<role>__<roi>/{ok,ng}``, role and ROI in base64url, with images and a JSON
file beside each. Gateways may run on the models folder at the same time. What is there already is counted once, so
that a second run goes on where the first one ended.
"""

import base64
import binascii
import functools
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from artifacts.moving import acting
from gateway.api.inputs import metadata_texts
from gateway.calibration.calibrate import calibrate
from gateway.calibration.request import CalibrationRequest
from gateway.detectors.spatial_weighting import SpatialWeighting
from gateway.errors import GatewayError, ImageConflictError, InvalidRequestError, TooLargeError, UnsupportedImageError
from gateway.gui.caller import RESERVED
from gateway.gui.data_set import sample_of, shape_of
from gateway.gui.errors import OtherScaleError
from gateway.gui.routes.learn import FEWEST_OK
from gateway.gui.scale import RecipeScales
from gateway.learning.request import FitRequest, ImageFile
from gateway.learning.service import FitService
from gateway.learning.stored_scores import StoredScorer
from gateway.learning.storing import ImageStorer, StoreRequest
from gateway.networks.registry import EngineRegistry, create_engine_registry
from gateway.process.services import set_threads
from gateway.settings import Settings
from gateway.store.artifact_store import ArtifactStore
from gateway.store.labelled_images import LABELS, Label
from gateway.store.opening import open_storage
from gateway.store.roi_key import RoiKey
from gateway.worker_threads import in_thread
from postprocess.roi_mask import shape_text

_EXTENSIONS = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}
_CHUNK = 32
"""Images that are stored at once."""
_OF_AN_IMAGE = (InvalidRequestError, UnsupportedImageError, ImageConflictError, TooLargeError, OtherScaleError)
"""Errors that skip an image. Any other ends the import."""


class GuiFolderError(Exception):
    """A folder without data sets of the GUI."""


@dataclass(slots=True)
class TakenOver:
    """What became of the data set of one ROI, or of a folder that is none."""

    folder: Path
    key: RoiKey | None = None
    """None for a folder that names no ROI."""
    stored: dict[Label, set[str]] = field(default_factory=lambda: {label: set() for label in LABELS})
    """Ids of the pictures in the folder that are stored now, by label."""
    version: int | None = None
    threshold: float | None = None
    skipped: list[str] = field(default_factory=list)
    """What was not taken over, and why."""


async def import_gui(settings: Settings, folder: Path, mm_per_px: float | None = None) -> list[TakenOver]:
    """Store all data sets below a folder, fit them and calibrate them.

    Args:
        settings: those of the gateway.
        folder: has the folder ``recipes``.
        mm_per_px: scale of the recipes whose images state none.

    Raises:
        GuiFolderError: the folder has no data sets.
        GatewayError: the models folder cannot be written, or the engine fails. What was stored until then stays.
    """
    found = list(_data_sets(folder))
    if not found:
        raise GuiFolderError(f"{folder} has no folder recipes/RECIPE/datasets/ROLE__ROI")
    set_threads(settings.threads)
    engines = create_engine_registry(settings)
    await engines.token_engine.start()
    try:
        store = ArtifactStore(open_storage(settings), keep_versions=settings.keep_versions)
        importer = _Importer(settings, store, engines)
        with acting():
            for each in found:
                if each.key is not None:
                    await importer.take_over(each, each.key, mm_per_px)
    finally:
        await engines.close()
    return found


def _data_sets(folder: Path) -> Iterator[TakenOver]:
    for path in sorted((folder / "recipes").glob("*/datasets/*")):
        if path.is_dir():
            try:
                yield TakenOver(path, _key_of(path))
            except GatewayError as error:
                yield TakenOver(path, None, skipped=[error.message])


def _key_of(folder: Path) -> RoiKey:
    """Return the ROI that a folder is of. The separator may occur in base64url too, so every split is tried.

    Raises:
        InvalidRequestError: the name has no meaning as an ROI, or more than one.
    """
    recipe_id = folder.parent.parent.name
    if recipe_id.casefold() == RESERVED:
        raise InvalidRequestError(f"the recipe {recipe_id!r} is reserved")
    starts = [i for i in range(len(folder.name)) if folder.name.startswith("__", i)]
    splits = [(_decoded(folder.name[:i]), _decoded(folder.name[i + 2 :])) for i in starts]
    ids = {(role_id, roi_id) for role_id, roi_id in splits if role_id and roi_id}
    if len(ids) != 1:
        raise InvalidRequestError(f"{folder.name}: {len(ids)} readings as ROLE__ROI in base64url")
    role_id, roi_id = ids.pop()
    return RoiKey(role_id, roi_id, recipe_id)


def _decoded(text: str) -> str:
    """Return the id in base64url, with or without padding; empty if it is none."""
    bare = text.rstrip("=")
    try:
        data = base64.b64decode(bare + "=" * (-len(bare) % 4), altchars=b"-_", validate=True)
        found = data.decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""
    is_canonical = base64.urlsafe_b64encode(data).decode().rstrip("=") == bare
    return found if is_canonical and found.isprintable() else ""


class _Importer:
    """Stores, fits and calibrates."""

    def __init__(self, settings: Settings, store: ArtifactStore, engines: EngineRegistry) -> None:
        self._settings = settings
        self._store = store
        self._storing = ImageStorer(engines.token_engine, store, settings)
        self._fitting = FitService(engines, store, SpatialWeighting.from_settings(settings), settings)
        self._scorer = StoredScorer(engines, store, settings)
        self._scales = RecipeScales(store, settings)

    async def take_over(self, found: TakenOver, key: RoiKey, mm_per_px: float | None) -> None:
        """Take over one data set. What is skipped is noted in `found`."""
        for label in LABELS:
            paths = _images(found.folder / label, found.skipped)
            for start in range(0, len(paths), _CHUNK):
                await self._store_all(found, key, label, paths[start : start + _CHUNK])
        mm_per_px = self._scales.of(key.recipe_id) or mm_per_px
        if mm_per_px is None:
            found.skipped.append("not fitted: no image states mm_per_px; run it again with --mm-per-px")
        elif (n_ok := len(found.stored["ok"])) < FEWEST_OK:
            found.skipped.append(f"not fitted: {n_ok} OK images; a fit needs at least {FEWEST_OK}")
        else:
            await self._teach(found, key, mm_per_px)

    async def _teach(self, found: TakenOver, key: RoiKey, mm_per_px: float) -> None:
        self._scales.fix(key.recipe_id, mm_per_px)
        await self._fitting.memory_needed(key, None, None)
        fit = await self._fitting.fit(FitRequest(key, (), mm_per_px, stored=True))
        found.version = fit.manifest.version
        request = CalibrationRequest(mm_per_px)
        evidence_of = functools.partial(self._scorer.of_version, key)
        _, calibration, _ = await in_thread(
            calibrate, self._store, self._settings, key, request, evidence_of, limiter=nullcontext()
        )
        found.threshold = calibration.pixel_threshold

    async def _store_all(self, found: TakenOver, key: RoiKey, label: Label, paths: Sequence[Path]) -> None:
        """Store images at once or, where one of them is refused, half of them at a time."""
        try:
            read = [_file(path) for path in paths]
            self._scales.fix(key.recipe_id, *(mm_per_px for *_, mm_per_px in read if mm_per_px is not None))
            files, metadata = [file for file, *_ in read], [text for _, text, _ in read]
            result = await self._storing.add(StoreRequest(key, label, files, metadata))
        except _OF_AN_IMAGE as error:
            if len(paths) == 1:
                found.skipped.append(f"{paths[0].relative_to(found.folder)}: {error.message}")
                return
            middle = len(paths) // 2
            await self._store_all(found, key, label, paths[:middle])
            await self._store_all(found, key, label, paths[middle:])
        else:
            found.stored[label] |= {record.id for record, _ in result.images}


def _images(folder: Path, skipped: list[str]) -> list[Path]:
    """Return the images in a folder, by name. Files that are neither images nor their metadata are noted."""
    images: list[Path] = []
    others: list[Path] = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        is_image = path.suffix.lower() in _EXTENSIONS and path.is_file() and not path.is_symlink()
        (images if is_image else others).append(path)
    told = {_metadata_path(path) for path in images}
    skipped += [f"{path.relative_to(folder.parent)}: not an image" for path in others if path not in told]
    return images


def _metadata_path(image: Path) -> Path:
    """Return the JSON file beside an image: ``a.json`` or ``a.png.json``."""
    beside = image.with_name(f"{image.name}.json")
    return beside if beside.is_file() else image.with_suffix(".json")


def _file(path: Path) -> tuple[ImageFile, str | None, float | None]:
    """Return an image with its metadata and its scale.

    Raises:
        InvalidRequestError: the metadata is no JSON object, or a value in it is invalid.
    """
    beside = _metadata_path(path)
    try:
        text = beside.read_text(encoding="utf-8-sig") if beside.is_file() else None
    except UnicodeDecodeError:
        raise InvalidRequestError(f"{beside.name} is not UTF-8 text") from None
    (metadata,) = metadata_texts([] if text is None else [text], 1)
    sample = sample_of(metadata, beside.name)
    shape = shape_of(sample.shape_json, f"{beside.name}: shape_json")
    file = ImageFile(path.name, path.read_bytes, shape, None if shape is None else shape_text(shape))
    return file, metadata, sample.mm_per_px
