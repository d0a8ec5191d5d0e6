"""The folder ``ok/`` of an ROI: OK images as sent, and their tokens."""

import re
from collections.abc import Set

from gateway.errors import ArtifactCorruptError
from gateway.store.checksummed import sha256_of
from gateway.store.manifest import OkImage
from gateway.store.place import Place
from gateway.store.token_cache import TokenCache

_NAME = re.compile(r"[0-9a-f]{64}\.[a-z]{1,8}")


class OkFiles(TokenCache):
    """The OK images of one ROI. An image counts only if a manifest references it."""

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
            f"Send it to /fit_ok again, or DELETE {self._key.url(f'/ok/{image.sha256}')}; "
            "for a student-teacher model, publish it again.",
        )

    def add_image(self, image: OkImage, data: bytes) -> None:
        """Store an OK image as sent.

        Raises:
            StorageFullError: the file cannot be written.
        """
        self._storage.replace(self._key, self._image_path(image), data)

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

    def size(self, image: OkImage) -> int:
        """Return the size of the file of an OK image in bytes, 0 if it is missing."""
        try:
            return self._storage.size(self._image_path(image))
        except OSError:
            return 0

    def is_whole(self, image: OkImage) -> bool:
        """Return whether the file of an OK image is there and undamaged."""
        try:
            return sha256_of(self._image_path(image).read_bytes()) == image.sha256
        except OSError:
            return False

    def keep_only(self, named: Set[str]) -> int:
        """Remove all images and tokens except those with the given SHA-256. Return the number of removed files."""
        gone = 0
        for path in list(self.folder.glob("*")) if self.folder.is_dir() else ():
            if _NAME.fullmatch(path.name) and path.stem not in named:
                self._storage.remove(self._key, path)
                gone += 1
        return gone

    def _image_path(self, image: OkImage) -> Place:
        return self.folder / f"{image.sha256}.{image.extension}"
