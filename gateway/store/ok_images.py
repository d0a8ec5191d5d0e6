"""The folder ``ok/`` of an ROI: OK images as sent, and their tokens."""

import hashlib
import re
from collections.abc import Set
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gateway.errors import ArtifactCorruptError
from gateway.store.atomic import replace_file, storage_errors
from gateway.store.checksummed import DamagedError, sealed_npz, sha256_of, unsealed_npz
from gateway.store.damage import ArtifactFaults
from gateway.store.manifest import OkImage
from gateway.store.roi_key import RoiKey

_NAME = re.compile(r"[0-9a-f]{64}\.[a-z]{1,8}")


class OkFiles:
    """The OK images of one ROI. An image counts only if a manifest references it."""

    def __init__(self, folder: Path, key: RoiKey, faults: ArtifactFaults) -> None:
        self.folder = folder
        self._key = key
        self._faults = faults

    def image(self, image: OkImage) -> bytes:
        """Return the bytes of an OK image as sent.

        Raises:
            ArtifactCorruptError: the file is damaged or missing.
        """
        what = None
        try:
            data = self._image_path(image).read_bytes()
            if sha256_of(data) != image.sha256:
                what = "is damaged"
        except OSError as error:
            what = f"cannot be read: {error.strerror}"
        if what is None:
            return data
        self._faults.met(self._key, "ok_image", f"OK image {image.sha256} {what}")
        raise ArtifactCorruptError(
            f"{self._key}: OK image {image.sha256} ({image.file_name}) {what}",
            f"Send it to /fit_ok again, or DELETE /rois/{self._key}/ok/{image.sha256}; "
            "for a student-teacher model, publish it again.",
        )

    def add_image(self, image: OkImage, data: bytes) -> None:
        """Store an OK image as sent.

        Raises:
            StorageFullError: the file cannot be written.
        """
        with storage_errors():
            self.folder.mkdir(parents=True, exist_ok=True)
            replace_file(self._image_path(image), data)

    def mend_image(self, image: OkImage, data: bytes) -> None:
        """Restore an OK image that was sent again, if the stored file is damaged or missing.

        Raises:
            StorageFullError: the file cannot be written.
        """
        path = self._image_path(image)
        try:
            if path.read_bytes() == data:
                return
        except OSError:
            pass
        self._faults.met(
            self._key, "ok_image", f"OK image {image.sha256} was damaged or missing; restored from the request"
        )
        self.add_image(image, data)

    def is_whole(self, image: OkImage) -> bool:
        """Return whether the file of an OK image is there and undamaged."""
        try:
            return sha256_of(self._image_path(image).read_bytes()) == image.sha256
        except OSError:
            return False

    def tokens(self, sha256: str, made_by: str) -> NDArray[np.float16] | None:
        """Return the stored tokens of an OK image, float16 [N, D].

        Args:
            sha256: SHA-256 of the image.
            made_by: fingerprint of the model and, after a slash, what else the tokens depend on.

        Returns:
            The tokens, or None where they are missing, damaged or made by something else.
        """
        stored = self._read_tokens(sha256)
        return None if stored is None or stored[1] != made_by else stored[0]

    def has_tokens(self, sha256: str, fingerprint: str) -> bool:
        """Return whether whole tokens of a model are stored for an OK image, whatever else they depend on."""
        stored = self._read_tokens(sha256)
        return stored is not None and stored[1].partition("/")[0] == fingerprint

    def _read_tokens(self, sha256: str) -> tuple[NDArray[np.float16], str] | None:
        name = f"{sha256}.npz"
        try:
            data = (self.folder / name).read_bytes()
        except OSError:
            return None
        try:
            arrays = unsealed_npz(data, name)
            tokens = arrays["tokens"]
            if str(arrays["sha256"]) != hashlib.sha256(np.ascontiguousarray(tokens).data).hexdigest():
                raise DamagedError(f"{name}: the tokens fail their checksum")
            made_by = str(arrays["fingerprint"])
        except (DamagedError, KeyError, ValueError) as error:
            self._faults.met(
                self._key, "ok_tokens", f"tokens of an OK image are damaged and are computed again: {error}"
            )
            return None
        return tokens.astype(np.float16, copy=False), made_by

    def add_tokens(self, sha256: str, made_by: str, tokens: NDArray[np.float16]) -> None:
        """Store the tokens of an OK image, so that the next fit does not compute them again.

        Raises:
            StorageFullError: the file cannot be written.
        """
        digest = hashlib.sha256(np.ascontiguousarray(tokens).data).hexdigest()
        data = sealed_npz(
            tokens=tokens,
            fingerprint=np.array(made_by),
            sha256=np.array(digest),
        )
        with storage_errors():
            self.folder.mkdir(parents=True, exist_ok=True)
            replace_file(self.folder / f"{sha256}.npz", data)

    def keep_only(self, named: Set[str]) -> int:
        """Remove all images and tokens except those with the given SHA-256. Return the number of removed files."""
        gone = 0
        for path in self.folder.glob("*") if self.folder.is_dir() else ():
            if _NAME.fullmatch(path.name) and path.stem not in named:
                path.unlink(missing_ok=True)
                gone += 1
        return gone

    def _image_path(self, image: OkImage) -> Path:
        return self.folder / f"{image.sha256}.{image.extension}"
