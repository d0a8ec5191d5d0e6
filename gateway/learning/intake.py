"""From image files to checked, decoded images and their tokens."""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from anyio import CapacityLimiter, from_thread
from numpy.typing import NDArray

from gateway.images.appearance import look
from gateway.images.decoding import Limits, decode, read_header, to_model_input
from gateway.images.masks import mask_of
from gateway.learning.request import FitRequest
from gateway.monitoring.timing import StageTimes
from gateway.networks import Priority, TokenEngine
from gateway.networks.model_description import ModelDescription
from gateway.settings import Settings
from gateway.store.artifact_store import ArtifactStore
from gateway.store.manifest import OkImage
from gateway.store.roi_key import RoiKey
from gateway.worker_threads import in_thread

_BATCH = 8


@dataclass(frozen=True, slots=True)
class NewImage:
    """An image of a request, with its tokens."""

    image: OkImage
    data: bytes
    tokens: NDArray[np.float16]
    """[N, D]."""
    has_stored_tokens: bool
    """Whether the store has these tokens already."""


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A checked image, with its stored tokens or, where the store has none, with its pixels."""

    image: OkImage
    data: bytes
    pixels: NDArray[np.uint8] | None
    """[S, S, 3] RGB."""
    tokens: NDArray[np.float16] | None


class Intake:
    """Reads image files and computes their tokens."""

    def __init__(self, engine: TokenEngine, store: ArtifactStore, settings: Settings, threads: CapacityLimiter) -> None:
        """Wire the parts together.

        Args:
            engine: computes tokens.
            store: keeps tokens of earlier fits.
            settings: limits of an image.
            threads: limits the worker threads that decode.
        """
        self._engine = engine
        self._store = store
        self._limits = Limits(settings.max_image_bytes, settings.max_image_pixels)
        self._threads = threads

    async def new_images(self, request: FitRequest, model: ModelDescription, times: StageTimes) -> list[NewImage]:
        """Check, decode and tokenise the images of a request.

        Returns:
            The images in the order of the request. Of files with equal bytes, only the first one counts.

        Raises:
            GatewayError: an image cannot be read, or the engine failed.
        """
        unique = await in_thread(_by_sha256, request.images, limiter=self._threads)
        items = [(sha256, *unique[sha256]) for sha256 in reversed(unique)]
        batches = [items[start : start + _BATCH] for start in range(0, len(items), _BATCH)]
        new: list[NewImage] = []
        # The next batch is decoded while the engine works on this one.
        upcoming = asyncio.ensure_future(self._prepared(request, batches[0], model, times))
        try:
            for following in (*batches[1:], None):
                prepared = await upcoming
                if following is not None:
                    upcoming = asyncio.ensure_future(self._prepared(request, following, model, times))
                pixels = [p.pixels for p in prepared if p.pixels is not None]
                with times.stage("engine"):
                    fresh = iter(await self._tokens(np.stack(pixels), model) if pixels else ())
                for p in prepared:
                    tokens = p.tokens if p.tokens is not None else next(fresh).astype(np.float16)
                    new.append(NewImage(p.image, p.data, tokens, has_stored_tokens=p.tokens is not None))
        finally:
            upcoming.cancel()
            await asyncio.gather(upcoming, return_exceptions=True)
        return new

    def all_tokens(
        self,
        key: RoiKey,
        model: ModelDescription,
        images: Sequence[OkImage],
        fresh: Mapping[str, NDArray[np.float16]],
    ) -> NDArray[np.float16]:
        """Return the tokens of OK images, float16 [I, N, D]. Blocks.

        Tokens come from the request or from the store. Tokens of another model, and damaged ones, are computed anew.

        Args:
            key: the ROI.
            model: the model that the engine serves.
            images: the OK images.
            fresh: tokens from the request, by the SHA-256 of the image.
        """
        tokens = np.empty((len(images), model.n_tokens, model.dim), np.float16)
        for i, image in enumerate(images):
            known = fresh.get(image.sha256)
            if known is None:
                known = self._store.ok(key).tokens(image.sha256, model.fingerprint)
            tokens[i] = self._computed_anew(key, model, image) if known is None else known
        return tokens

    async def _prepared(
        self,
        request: FitRequest,
        items: Sequence[tuple[str, str, bytes]],
        model: ModelDescription,
        times: StageTimes,
    ) -> list[_Prepared]:
        with times.stage("decode"):
            return await in_thread(self._prepare, request, items, model, limiter=self._threads)

    async def _tokens(self, pixels: NDArray[np.uint8], model: ModelDescription) -> NDArray[np.float32]:
        return await self._engine.tokens(pixels, model=model, priority=Priority.FIT)

    def _prepare(
        self, request: FitRequest, items: Sequence[tuple[str, str, bytes]], model: ModelDescription
    ) -> list[_Prepared]:
        prepared = []
        for sha256, name, data in items:
            header = read_header(data, name, self._limits)
            if request.shape is not None:
                mask_of(request.shape, header.upright_size)
            stored = self._store.ok(request.key).tokens(sha256, model.fingerprint)
            pixels = None if stored is not None else to_model_input(decode(data, name, header), model.input_size)
            looks = None if pixels is None else look(pixels)
            image = OkImage(
                sha256=sha256,
                file_name=name[:255],
                extension=header.extension,
                width=header.upright_size[0],
                height=header.upright_size[1],
                shape=request.shape_json,
                added_in=0,
                brightness=None if looks is None else looks.brightness,
                sharpness=None if looks is None else looks.sharpness,
            )
            prepared.append(_Prepared(image, data, pixels, stored))
        return prepared

    def _computed_anew(self, key: RoiKey, model: ModelDescription, image: OkImage) -> NDArray[np.float16]:
        data = self._store.ok(key).image(image)
        header = read_header(data, image.file_name, self._limits)
        pixels = to_model_input(decode(data, image.file_name, header), model.input_size)
        tokens = from_thread.run(self._tokens, pixels[None], model)
        half: NDArray[np.float16] = tokens[0].astype(np.float16)
        self._store.ok(key).add_tokens(image.sha256, model.fingerprint, half)
        return half


def _by_sha256(images: Sequence[tuple[str, bytes]]) -> dict[str, tuple[str, bytes]]:
    """Return the images by the SHA-256 of their bytes, the last image first; of equal ones, the first of the request.

    This reads up to hundreds of megabytes: call it from a worker thread.
    """
    return {hashlib.sha256(data).hexdigest(): (name, data) for name, data in reversed(images)}
