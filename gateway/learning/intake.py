"""From image files to checked, decoded images and their tokens."""

import asyncio
import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from anyio import CapacityLimiter
from numpy.typing import NDArray

from gateway.detectors.memory_bank.token_file import FileTokens, TokenFile
from gateway.errors import GatewayError
from gateway.images.appearance import look
from gateway.images.decoding import ImageHeader, Limits, decode_picture, read_header
from gateway.images.identity import pixel_digest
from gateway.images.masks import mask_of
from gateway.images.picture import Picture
from gateway.images.tiling import Tiling
from gateway.learning.content_checks import Findings, require_content
from gateway.learning.progress import Progress
from gateway.learning.request import FitRequest, ImageFile
from gateway.monitoring.timing import StageTimes
from gateway.networks import Priority
from gateway.networks.model_description import ModelDescription
from gateway.networks.registry import EngineRegistry
from gateway.settings import Settings
from gateway.store.artifact_store import ArtifactStore
from gateway.store.atomic import storage_errors
from gateway.store.labelled_images import ImageRecord
from gateway.store.manifest import OkImage
from gateway.store.roi_key import RoiKey
from gateway.worker_threads import in_thread, on_event_loop

log = logging.getLogger(__name__)

_BATCH = 8
CACHE_FOLDER = "the cache folder (GATEWAY_CACHE_DIR)"


@dataclass(frozen=True, slots=True)
class NewImage:
    """A checked image of a request. Its tokens are in the token file of the fit."""

    image: OkImage
    file: ImageFile
    place: int
    """Place of its tokens in the token file."""
    has_stored_tokens: bool
    """Whether the store has these tokens already."""


@dataclass(frozen=True, slots=True)
class Received:
    """What a request brought."""

    images: list[NewImage]
    """In the order of the request; of equal pictures, only the first one."""
    warnings: list[str]


@dataclass(frozen=True, slots=True)
class _Checked:
    """A checked image, with its stored tokens or, where the store has none, with its tiles."""

    image: OkImage
    file: ImageFile
    tiles: NDArray[np.uint8] | None
    """[T, S, S, 3] RGB, the tiles of the image."""
    tokens: NDArray[np.float16] | None


class Intake:
    """Reads image files and computes their tokens."""

    def __init__(
        self, engines: EngineRegistry, store: ArtifactStore, settings: Settings, threads: CapacityLimiter
    ) -> None:
        """Wire the parts together.

        Args:
            engines: compute tokens.
            store: keeps tokens of earlier fits.
            settings: limits of an image.
            threads: limits the worker threads that decode.
        """
        self._engines = engines
        self._store = store
        self._limits = Limits(settings.max_image_bytes, settings.max_image_pixels)
        self._threads = threads

    def first_size(self, images: Sequence[ImageFile]) -> tuple[int, int] | None:
        """Return width and height of the first image, from its header; None without images. Blocks.

        Raises:
            GatewayError: it cannot be read.
        """
        for file in images:
            try:
                return read_header(file.read(), file.name, self._limits).upright_size
            except FileNotFoundError:  # a stored image that was deleted meanwhile
                continue
        return None

    async def receive(
        self,
        request: FitRequest,
        model: ModelDescription,
        bit_depth: int | None,
        tiling: Tiling,
        learned: Sequence[OkImage],
        tokens: TokenFile,
        times: StageTimes,
    ) -> Received:
        """Check, decode and tokenise the images of a request, a few at a time.

        Args:
            request: the images.
            model: the model that the engine serves.
            bit_depth: bits of a sample of the camera, or None for those of the files.
            tiling: how images are cut.
            learned: the images that the ROI has learned or excluded.
            tokens: takes the tokens.
            times: takes the durations of the stages `decode` and `engine`.

        Raises:
            InvalidRequestError: an image shows nothing, or its values exceed the bit depth.
            GatewayError: an image cannot be read, or the engine failed.
        """
        by_file = {image.sha256: image for image in learned}
        size = max(1, _BATCH // tiling.n_tiles)
        batches = [request.images[start : start + size] for start in range(0, len(request.images), size)] or [()]
        findings = Findings()
        new: list[NewImage] = []
        progress = Progress(f"{request.key}: read %d of %d images", len(request.images), times, "engine")

        def checked(batch: Sequence[ImageFile]) -> "asyncio.Future[list[_Checked]]":
            return asyncio.ensure_future(
                self._checked(request, batch, model, bit_depth, tiling, by_file, findings, times)
            )

        # The next batch is decoded while the engine works on this one.
        upcoming = checked(batches[0])
        try:
            for following in (*batches[1:], None):
                batch = await upcoming
                if following is not None:
                    upcoming = checked(following)
                tiles = [c.tiles for c in batch if c.tiles is not None]
                with times.stage("engine"):
                    computed = await self._computed(np.concatenate(tiles), model) if tiles else None
                fresh = iter(() if computed is None else np.split(computed, len(tiles)))
                for c in batch:
                    own = c.tokens if c.tokens is not None else tiling.stitched(next(fresh)).astype(np.float16)
                    place = append(tokens, own)
                    new.append(NewImage(c.image, c.file, place, has_stored_tokens=c.tokens is not None))
                progress.add(size)
        finally:
            upcoming.cancel()
            await asyncio.gather(upcoming, return_exceptions=True)
        return Received(new, findings.warnings(learned, bit_depth))

    def stored(
        self,
        key: RoiKey,
        model: ModelDescription,
        bit_depth: int | None,
        tiling: Tiling,
        images: Sequence[OkImage],
        places: Mapping[str, int],
        tokens: TokenFile,
        times: StageTimes,
    ) -> FileTokens:
        """Return the tokens of OK images. Blocks.

        Tokens that are not in the token file yet come from the store. Tokens of another model, bit depth or tiling,
        and damaged ones, are computed again.

        Args:
            key: the ROI.
            model: the model that the engine serves.
            bit_depth: bits of a sample of the camera, or None for those of the files.
            tiling: how images are cut.
            images: the OK images.
            places: places in the token file by the SHA-256 of the image.
            tokens: takes the tokens.
            times: is told the progress, as the stage `gather`.
        """
        progress = Progress(f"{key}: gathered the tokens of %d of %d images", len(images), times, "gather")
        found = []
        for image in images:
            place = places.get(image.sha256)
            if place is None:
                own = self._store.ok(key).tokens(image.sha256, token_key(model, image, bit_depth, tiling))
                if own is None:
                    own = self._computed_again(key, model, image, bit_depth, tiling)
                place = append(tokens, own)
            found.append(place)
            progress.add(1)
        return tokens.images(found)

    def identified(
        self, key: RoiKey, tiling: Tiling, images: Sequence[OkImage], bit_depth: int | None
    ) -> dict[str, OkImage]:
        """Find the identity, the bits and the looks of stored images. Blocks.

        Args:
            key: the ROI.
            tiling: how images are cut.
            images: the images. An image that cannot be read stays as it is.
            bit_depth: bits of a sample of the camera, or None for those of the files.

        Returns:
            The images with what was found, by their SHA-256.
        """
        progress = Progress(f"{key}: identified %d of %d images", len(images))
        found = {}
        for image in images:
            picture = self._picture(key, image, bit_depth)
            if picture is not None:
                looks = look(tiling.resized(picture.pixels))
                update = {
                    "pixels_sha256": pixel_digest(picture.pixels),
                    "bits": picture.samples.bits,
                    "brightness": looks.brightness,
                    "sharpness": looks.sharpness,
                }
                found[image.sha256] = image.model_copy(update=update)
            progress.add(1)
        return found

    def _picture(self, key: RoiKey, image: OkImage, bit_depth: int | None) -> Picture | None:
        try:
            data = self._store.ok(key).image(image)
            return decode_picture(data, image.file_name, read_header(data, image.file_name, self._limits), bit_depth)
        except GatewayError as error:
            log.warning("%s: %s is not identified by its pixels: %s", key, image.sha256, error.message)
            return None

    async def _checked(
        self,
        request: FitRequest,
        files: Sequence[ImageFile],
        model: ModelDescription,
        bit_depth: int | None,
        tiling: Tiling,
        by_file: Mapping[str, OkImage],
        findings: Findings,
        times: StageTimes,
    ) -> list[_Checked]:
        with times.stage("decode"):
            return await in_thread(
                self._check, request, files, model, bit_depth, tiling, by_file, findings, limiter=self._threads
            )

    def _check(
        self,
        request: FitRequest,
        files: Sequence[ImageFile],
        model: ModelDescription,
        bit_depth: int | None,
        tiling: Tiling,
        by_file: Mapping[str, OkImage],
        findings: Findings,
    ) -> list[_Checked]:
        checked = [self._check_one(request, file, model, bit_depth, tiling, by_file, findings) for file in files]
        return [c for c in checked if c is not None]

    def _check_one(
        self,
        request: FitRequest,
        file: ImageFile,
        model: ModelDescription,
        bit_depth: int | None,
        tiling: Tiling,
        by_file: Mapping[str, OkImage],
        findings: Findings,
    ) -> _Checked | None:
        """Check one file; return None for a picture that came before, and for a stored image that was deleted."""
        try:
            data = file.read()
        except FileNotFoundError:
            return None
        where = file if request.shape is None else request
        sha256 = hashlib.sha256(data).hexdigest()
        if sha256 in findings.files:
            return None
        findings.files.add(sha256)
        header = read_header(data, file.name, self._limits)
        if where.shape is not None:
            mask_of(where.shape, header.upright_size)
        known = by_file.get(sha256)
        if known is not None and known.pixels_sha256 is not None:
            stored = self._store.ok(request.key).tokens(sha256, token_key(model, known, bit_depth, tiling))
            if stored is not None:
                return _Checked(known, file, None, stored) if findings.is_new(identity_of(known)) else None
        picture = decode_picture(data, file.name, header, bit_depth)
        resized = tiling.resized(picture.pixels)
        require_content(file.name, picture, resized)
        findings.note(file.name, picture)
        looks = look(resized)
        image = OkImage(
            sha256=sha256,
            file_name=file.name[:255],
            extension=header.extension,
            width=header.upright_size[0],
            height=header.upright_size[1],
            shape=where.shape_json,
            added_in=0,
            brightness=looks.brightness,
            sharpness=looks.sharpness,
            pixels_sha256=pixel_digest(picture.pixels),
            bits=picture.samples.bits,
        )
        if not findings.is_new(identity_of(image)):
            return None
        stored = self._store.ok(request.key).tokens(sha256, token_key(model, image, bit_depth, tiling))
        return _Checked(image, file, tiling.cut(resized) if stored is None else None, stored)

    async def _computed(self, images: NDArray[np.uint8], model: ModelDescription) -> NDArray[np.float32]:
        return await self._engines.tokens(images, model=model, priority=Priority.FIT)

    def _computed_again(
        self, key: RoiKey, model: ModelDescription, image: OkImage, bit_depth: int | None, tiling: Tiling
    ) -> NDArray[np.float16]:
        data = self._store.ok(key).image(image)
        header: ImageHeader = read_header(data, image.file_name, self._limits)
        picture = decode_picture(data, image.file_name, header, bit_depth)
        tiles = tiling.cut(tiling.resized(picture.pixels))
        half = tiling.stitched(on_event_loop(self._computed, tiles, model)).astype(np.float16)
        self._store.ok(key).add_tokens(image.sha256, token_key(model, image, bit_depth, tiling), half)
        return half


def append(tokens: TokenFile, own: NDArray[np.float16]) -> int:
    """Append the tokens of an image to a token file and return their place.

    Raises:
        StorageFullError: they cannot be written.
    """
    with storage_errors(CACHE_FOLDER):
        return tokens.append(own)


def identity_of(image: OkImage) -> str:
    """Return what tells two pictures apart: the digest of the pixels or, where it is unknown, of the file."""
    return image.pixels_sha256 or f"file {image.sha256}"


def token_key(model: ModelDescription, image: OkImage | ImageRecord, bit_depth: int | None, tiling: Tiling) -> str:
    """Return what the stored tokens of an image depend on, besides its file.

    It is the fingerprint of the model. The bit depth is added for files that it applies to, and the tiling where it
    cuts images. Where it does not, the number of the resize rule is added for images that only the second rule resizes
    without loss: one side shrinks and the other grows.
    """
    key = model.fingerprint
    if tiling.n_tiles > 1:
        key += "/tiles={}x{},tokens={}x{}".format(*tiling.tiles, *tiling.token_hw)
    elif min(image.width, image.height) < model.input_size < max(image.width, image.height):
        key += "/resize=2"
    if bit_depth is not None and image.bits != 8:
        key += f"/bit_depth={bit_depth}"
    return key
