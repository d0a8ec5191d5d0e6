"""Compute the tokens of each image once per model, for all memory banks and runs of a sweep."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gateway.networks import Priority, TokenEngine
from gateway.networks.model_description import ModelDescription
from gateway.networks.wrapper import EngineWrapper


class RememberingEngine(EngineWrapper):
    """An engine that stores tokens in a folder and reuses them for images seen before, in float32, without loss.

    Only images with equal pixels at the network's input share tokens, for one model in one runtime.
    """

    def __init__(self, engine: TokenEngine, folder: Path) -> None:
        super().__init__(engine)
        self._folder = folder
        self.on_tokens: Callable[[int], None] = lambda n: None
        """Called with the number of images that have tokens by now."""
        self.remembers = True
        """False asks the engine inside for every image, and keeps nothing: where time is taken."""

    async def tokens(
        self, images: NDArray[np.uint8], *, model: ModelDescription, priority: Priority = Priority.INSPECT
    ) -> NDArray[np.float32]:
        """See `TokenEngine.tokens`."""
        if not self.remembers:
            asked = await super().tokens(images, model=model, priority=priority)
            self.on_tokens(len(images))
            return asked
        folder = self._folder / f"{model.fingerprint[:16]}-{self.status.runtime}"
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"{hashlib.sha256(image.tobytes()).hexdigest()}.npy" for image in images]
        tokens = np.empty((len(images), model.n_tokens, model.dim), np.float32)
        missing = [i for i, path in enumerate(paths) if not path.is_file()]
        if missing:
            fresh = await super().tokens(images[missing], model=model, priority=priority)
            for i, own in zip(missing, fresh, strict=True):
                tokens[i] = own
                _save(paths[i], own)
        for i in set(range(len(images))).difference(missing):
            tokens[i] = np.load(paths[i])
        self.on_tokens(len(images))
        return tokens


def _save(path: Path, tokens: NDArray[np.float32]) -> None:
    aside = path.with_name(f".{path.stem}-{os.getpid()}.npy")
    np.save(aside, tokens)
    aside.replace(path)
