"""Heatmaps as files, for clients that ask for ``heatmap=path``."""

import time
import uuid
from pathlib import Path

from gateway.errors import InvalidRequestError, StorageFullError
from gateway.store.atomic import storage_errors
from gateway.store.roi_key import RoiKey


class HeatmapFiles:
    """The folder for heatmaps: ``<role_id>/<roi_id>/<YYYY-MM-DD>/<32 hexadecimal digits>.png``."""

    def __init__(self, folder: Path | None) -> None:
        """Use a folder; it is created with the first heatmap.

        Args:
            folder: None where the gateway writes no heatmaps.
        """
        self._folder = folder

    def require_folder(self) -> Path:
        """Return the folder.

        Raises:
            InvalidRequestError: the gateway has none.
        """
        if self._folder is None:
            raise InvalidRequestError(
                "heatmap: 'path' was asked for, but this gateway has no folder for heatmaps",
                "Set GATEWAY_HEATMAP_DIR, or send heatmap=base64 or heatmap=none.",
            )
        return self._folder

    def write(self, key: RoiKey, png: bytes) -> str:
        """Write a heatmap to a new file and return its path relative to the folder.

        Raises:
            StorageFullError: the file cannot be written, or it would lie outside the folder.
        """
        folder = self.require_folder()
        relative = Path(key.role_id) / key.roi_id / time.strftime("%Y-%m-%d") / f"{uuid.uuid4().hex}.png"
        path = folder / relative
        with storage_errors("the heatmap folder"):
            # Somebody may have replaced the folder of an ROI by a link.
            if not path.resolve().is_relative_to(folder.resolve()):
                raise StorageFullError(
                    f"the heatmaps of {key} would be written outside GATEWAY_HEATMAP_DIR",
                    f"Replace the link {key} in the folder for heatmaps by a folder.",
                )
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                path.write_bytes(png)
            except OSError:
                path.unlink(missing_ok=True)  # half a picture: no client knows its name
                raise
        return relative.as_posix()
