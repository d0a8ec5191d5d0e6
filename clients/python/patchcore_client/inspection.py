"""The inspection of an image: the answer of the gateway, with its heatmap and its regions as arrays and pictures."""

import base64
import io
from functools import cached_property
from typing import TYPE_CHECKING, Any

from patchcore_client.images import needed
from patchcore_client.models import InferAnswer

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Inspection(InferAnswer):
    """The answer of `infer`. What is said of pixels is in pixels of the image as sent."""

    @property
    def is_ok(self) -> bool:
        """Whether the verdict is ok. An uncalibrated ROI has no verdict: neither `is_ok` nor `is_ng`."""
        return self.verdict == "ok"

    @property
    def is_ng(self) -> bool:
        """Whether the verdict is ng."""
        return self.verdict == "ng"

    @property
    def heatmap_png(self) -> bytes | None:
        """The heatmap as an 8-bit grey PNG file, or None if the answer has none (`heatmap="path"` or `"none"`)."""
        return None if self.heatmap_png_base64 is None else base64.b64decode(self.heatmap_png_base64)

    @cached_property
    def heatmap(self) -> "NDArray[Any] | None":
        """The heatmap as distances, float32 [H, W], 0 outside the shape; None if the answer has none.

        Decoded when it is first read. Needs the extra `images`.
        """
        png = self.heatmap_png
        if png is None:
            return None
        np = needed("numpy")
        with needed("PIL.Image").open(io.BytesIO(png)) as grey:
            return np.asarray(grey, np.float32) * np.float32(self.heatmap_max / 255)  # type: ignore[no-any-return]
