"""The explanation of an answer: the OK patch that the most anomalous patch was compared with."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.errors import GatewayError
from gateway.images.decoding import Limits, decode_picture, read_header
from gateway.inspection.request import PreparedRequest
from gateway.store.manifest import OkImage
from gateway.store.reader import ArtifactReader
from gateway.store.roi_key import RoiKey
from postprocess.patches import Box, crop_png, patch_at, patch_box, with_context

KEPT_PIXELS = 1_000_000
"""Pixels of an image that stay in memory until its explanation. A larger image is decoded again."""


@dataclass(frozen=True, slots=True)
class Crop:
    """A patch with its surroundings."""

    box: Box
    """In pixels of the image."""
    png: bytes


@dataclass(frozen=True, slots=True)
class Explanation:
    """Where an image is most anomalous, and the nearest patch of an OK image."""

    distance: float
    """Of the two patches, before the spatial weights, 0–2."""
    box: Box
    """The patch in the inspected image, in its pixels."""
    crop: Crop
    ok_image: OkImage
    ok_box: Box
    """The patch in the OK image, in its pixels."""
    ok_crop: Crop | None
    """None where the file of the OK image is damaged or missing."""


class Explainer:
    """Explains answers with the OK images of the store."""

    def __init__(self, store: ArtifactReader, limits: Limits) -> None:
        """Read nothing yet.

        Args:
            store: has the OK images.
            limits: of one image.
        """
        self._store = store
        self._limits = limits

    def explain(
        self, prepared: PreparedRequest, tokens: NDArray[np.float32], peak_xy: tuple[int, int]
    ) -> tuple[Explanation | None, list[str]]:
        """Find the OK patch nearest to the patch under the peak. Blocks.

        Args:
            prepared: the request.
            tokens: float32 [N, D] of the image.
            peak_xy: the pixel of the peak, in pixels of the image as sent.

        Returns:
            The explanation, or None where there is none, and the warnings, which say why.
        """
        request, image, loaded = prepared.request, prepared.image, prepared.roi.loaded
        manifest = loaded.manifest
        if image.nothing_shown is not None:
            return None, ["explain: the image shows nothing, so there is nothing to compare"]
        if manifest.detector == "student-teacher":
            return None, ["explain: a student-teacher model keeps no OK patches, so there is none to show"]
        place = patch_at(peak_xy, manifest.token_hw, image.size_wh)
        # A student's output has no token for each patch.
        nearest = loaded.detector.nearest_ok_patch(tokens[place]) if manifest.is_taught else None
        if nearest is None:
            return None, [f"explain: a {manifest.detector} model keeps no OK patches, so there is none to show"]
        ok_image = manifest.images[nearest.image]
        ok_size = (ok_image.width, ok_image.height)
        box = patch_box(place, manifest.token_hw, image.size_wh)
        ok_box = patch_box(nearest.token, manifest.token_hw, ok_size)
        warnings = []
        try:
            ok_crop = _crop(self._ok_pixels(request.key, ok_image, manifest.bit_depth), ok_box)
        except GatewayError as error:
            ok_crop = None
            warnings.append(f"explain: no crop of the OK image: {error.message}")
        crop = _crop(self._pixels(prepared), box)
        return Explanation(nearest.distance, box, crop, ok_image, ok_box, ok_crop), warnings

    def _pixels(self, prepared: PreparedRequest) -> NDArray[np.uint8]:
        request, kept = prepared.request, prepared.image.pixels
        bit_depth = prepared.roi.loaded.manifest.bit_depth if request.bit_depth is None else request.bit_depth
        return self._decoded(request.image, request.image_name, bit_depth) if kept is None else kept

    def _ok_pixels(self, key: RoiKey, image: OkImage, bit_depth: int | None) -> NDArray[np.uint8]:
        return self._decoded(self._store.ok(key).image(image), image.file_name, bit_depth)

    def _decoded(self, data: bytes, name: str, bit_depth: int | None) -> NDArray[np.uint8]:
        return decode_picture(data, name, read_header(data, name, self._limits), bit_depth).pixels


def kept_pixels(pixels: NDArray[np.uint8], *, explain: bool) -> NDArray[np.uint8] | None:
    """Return the pixels if an explanation will need them and they are few, else None."""
    return pixels if explain and pixels.shape[0] * pixels.shape[1] <= KEPT_PIXELS else None


def _crop(pixels: NDArray[np.uint8], patch: Box) -> Crop:
    height, width = pixels.shape[:2]
    box = with_context(patch, (width, height))
    return Crop(box, crop_png(pixels, box))
