"""Answers of the gateway: inspect."""

# Written by `python -m tests.clients.client_sources`: change the source of it instead.

from typing import Annotated, Literal

from patchcore_client.answer import OPEN, Answer
from patchcore_client.models.shared import Verdict, VerdictReason

ThresholdSource = Annotated[Literal["calibration", "shape", "parameters"], OPEN]


class CropAnswer(Answer):
    """A patch with its surroundings, three times its width and height."""

    box: tuple[int, int, int, int]
    """x, y, w, h of the crop in pixels of its image."""
    png_base64: str
    """Scaled down where a side has more than 256 pixels; nothing is drawn into it."""


class OkPatchAnswer(Answer):
    """The patch of the learned OK images that is nearest to it."""

    sha256: str
    """The OK image, as in images of GET /rois/{role_id}/{roi_id}."""
    file_name: str
    box: tuple[int, int, int, int]
    """x, y, w, h in pixels of the OK image."""
    crop: CropAnswer | None = None
    """Null where the file of the OK image is damaged or missing."""


class PatchAnswer(Answer):
    """The most anomalous patch of the inspected image: the one under the peak of its map."""

    box: tuple[int, int, int, int]
    """x, y, w, h in pixels of the image as sent."""
    crop: CropAnswer


class ExplanationAnswer(Answer):
    """Where the image is most anomalous, and what the gateway compared it with."""

    distance: float
    """Of the two patches, 0 to 2, before the spatial weights."""
    patch: PatchAnswer
    ok_patch: OkPatchAnswer


class ParamsAnswer(Answer):
    """Parameters of an inspection."""

    extractor: str
    coreset_rate: float
    k: int
    p_score: float
    blur_sigma: float
    area_mm2_thr: float
    mm_per_px: float
    bit_depth: int | None = None
    """Bits per sample of the camera; null scales by the bits of the file."""


class RegionAnswer(Answer):
    """A connected region above the threshold, in pixels of the image as sent."""

    bbox: tuple[int, int, int, int]
    """x, y, w, h."""
    area_px: int
    area_mm2: float
    contour: list[tuple[int, int]]


class InferAnswer(Answer):
    """The inspection of one image."""

    role_id: str
    roi_id: str
    recipe_id: str
    score: float
    threshold: float | None = None
    """Null where the verdict is uncalibrated; then there are no regions."""
    peak: float | None = None
    """Highest level at which a region of at least area_mm2_thr survives in the blurred map within the shape; null if
    no such region fits into it."""
    peak_threshold: float | None = None
    """There is a region exactly if peak is at or above it; null as threshold is."""
    pixel_threshold: float | None = None
    """Another name of peak_threshold."""
    review_threshold: float | None = None
    """An image that is not ng is review if its peak is at or above it; null without a review band."""
    threshold_source: ThresholdSource | None = None
    """calibration: the stored thresholds. shape: the rule of the calibration over the OK images within the shape of
    this request, since they were scored within other pixels. parameters: the same rule with the blur_sigma and the
    smallest area of this request."""
    verdict: Verdict
    verdict_reason: VerdictReason | None = None
    """Why the verdict is ng; no_picture: all pixels are equal or transparent. Of uncalibrated: the parameter of the
    request that the thresholds were not made with (p_score, k or shape), null before calibration."""
    calibration_stale: bool
    """Whether the thresholds were made for another memory bank or other weights."""
    weights_stale: bool
    """Whether the manual box or the settings of the weights changed since the fit."""
    degraded: bool
    """Whether files in use are damaged; the last undamaged version or a copy answers (see warnings)."""
    heatmap_png_base64: str | None = None
    """Null for heatmap=path and none."""
    heatmap_path: str | None = None
    """Path below GATEWAY_HEATMAP_DIR; null unless heatmap=path."""
    heatmap_max: float
    """Map value of the grey level 255; the same for all heatmaps of a version."""
    regions: list[RegionAnswer]
    """Largest first."""
    token_shape: tuple[int, int]
    image_size: tuple[int, int]
    """Width and height of the image after EXIF orientation."""
    params: ParamsAnswer
    version: int
    """Version that answered."""
    explanation: ExplanationAnswer | None = None
    """Null unless explain is true, and where there is nothing to show; then warnings says why."""
    warnings: list[str]
