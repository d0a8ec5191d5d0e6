"""Tokens of images that are stored in a folder of an ROI, so that the next fit does not compute them again."""

import hashlib
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from gateway.store.checksummed import DamagedError, sealed_npz, unsealed_npz
from gateway.store.damage import ArtifactFaults
from gateway.store.place import Storage
from gateway.store.roi_key import RoiKey


class TokenCache:
    """The tokens in one folder of an ROI, one file ``<name>.npz`` for each image."""

    def __init__(self, storage: Storage, folder: str, key: RoiKey, faults: ArtifactFaults) -> None:
        self.folder = storage.folder(key) / folder
        self._storage = storage
        self._key = key
        self._faults = faults

    def tokens(self, name: str, made_by: str) -> NDArray[np.float16] | None:
        """Return the stored tokens of an image, float16 [N, D].

        Args:
            name: SHA-256 of the image.
            made_by: fingerprint of the model and, after a slash, what else the tokens depend on.

        Returns:
            The tokens, or None where they are missing, damaged or made by something else.
        """
        stored = self._read_tokens(name)
        return None if stored is None or stored[1] != made_by else stored[0]

    def has_tokens(self, name: str, fingerprint: str, n_tokens: int | None = None) -> bool:
        """Return whether whole tokens of a model are stored for an image, whatever else they depend on.

        Args:
            name: SHA-256 of the image.
            fingerprint: of the model.
            n_tokens: how many there must be; None for any number.
        """
        stored = self._read_tokens(name)
        if stored is None:
            return False
        tokens, made_by = stored
        return made_by.partition("/")[0] == fingerprint and n_tokens in (None, len(tokens))

    def require_whole_tokens(self, name: str) -> None:
        """Check the stored tokens of an image. Missing ones are no damage: the next fit computes them.

        Args:
            name: SHA-256 of the image.

        Raises:
            DamagedError: they fail their checksum.
        """
        with suppress(OSError):
            self._whole_tokens(name)

    def _read_tokens(self, name: str) -> tuple[NDArray[np.float16], str] | None:
        try:
            return self._whole_tokens(name)
        except OSError:
            return None
        except DamagedError as error:
            self._faults.met(self._key, "ok_tokens", f"tokens of an image are damaged and are computed again: {error}")
            return None

    def _whole_tokens(self, name: str) -> tuple[NDArray[np.float16], str]:
        name = f"{name}.npz"
        data = (self.folder / name).read_bytes()
        try:
            arrays = unsealed_npz(data, name)
            tokens = arrays["tokens"]
            if str(arrays["sha256"]) != hashlib.sha256(np.ascontiguousarray(tokens).data).hexdigest():
                raise DamagedError(f"{name}: the tokens fail their checksum")
            made_by = str(arrays["fingerprint"])
        except (KeyError, ValueError) as error:
            raise DamagedError(f"{name}: {error}") from error
        return tokens.astype(np.float16, copy=False), made_by

    def add_tokens(self, name: str, made_by: str, tokens: NDArray[np.float16]) -> None:
        """Store the tokens of an image, so that the next fit does not compute them again.

        Raises:
            StorageFullError: the file cannot be written.
        """
        digest = hashlib.sha256(np.ascontiguousarray(tokens).data).hexdigest()
        data = sealed_npz(
            tokens=tokens,
            fingerprint=np.array(made_by),
            sha256=np.array(digest),
        )
        self._storage.replace(self._key, self.folder / f"{name}.npz", data)
