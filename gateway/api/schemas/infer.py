"""Bodies of inspections."""

from typing import Annotated, Literal

from fastapi import Form
from pydantic import BaseModel, ConfigDict, Field

from gateway.api.fields import (
    OR_NULL,
    AreaMm2,
    BitDepth,
    BlurSigma,
    FormBitDepth,
    FormMmPerPx,
    FormRecipe,
    FormRoi,
    FormRole,
    FormShape,
    JsonShape,
    MmPerPx,
    Neighbours,
    OneImage,
    Percentile,
    RecipeId,
    RoiId,
    RoleId,
)
from gateway.api.schemas.errors import ErrorEnvelope
from gateway.api.schemas.requests import RequestBody
from gateway.calibration.within_shape import ThresholdSource
from gateway.inspection.request import HeatmapMode
from postprocess.verdict import Verdict, VerdictReason


class RegionAnswer(BaseModel):
    """A connected region above the threshold, in pixels of the image as sent."""

    bbox: tuple[int, int, int, int] = Field(description="x, y, w, h")
    area_px: int
    area_mm2: float
    contour: list[tuple[int, int]]


class ParamsAnswer(BaseModel):
    """Parameters of an inspection."""

    extractor: str
    coreset_rate: float
    k: int
    p_score: float
    blur_sigma: float
    area_mm2_thr: float
    mm_per_px: float
    bit_depth: int | None = Field(description="bits per sample of the camera; null scales by the bits of the file")


class CropAnswer(BaseModel):
    """A patch with its surroundings, three times its width and height."""

    box: tuple[int, int, int, int] = Field(description="x, y, w, h of the crop in pixels of its image")
    png_base64: str = Field(description="scaled down where a side has more than 256 pixels; nothing is drawn into it")


class PatchAnswer(BaseModel):
    """The most anomalous patch of the inspected image: the one under the peak of its map."""

    box: tuple[int, int, int, int] = Field(description="x, y, w, h in pixels of the image as sent")
    crop: CropAnswer


class OkPatchAnswer(BaseModel):
    """The patch of the learned OK images that is nearest to it."""

    sha256: str = Field(description="the OK image, as in images of GET /rois/{role_id}/{roi_id}")
    file_name: str
    box: tuple[int, int, int, int] = Field(description="x, y, w, h in pixels of the OK image")
    crop: CropAnswer | None = Field(description="null where the file of the OK image is damaged or missing")


class ExplanationAnswer(BaseModel):
    """Where the image is most anomalous, and what the gateway compared it with."""

    distance: float = Field(description="of the two patches, 0 to 2, before the spatial weights")
    patch: PatchAnswer
    ok_patch: OkPatchAnswer


class InferAnswer(BaseModel):
    """The inspection of one image."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "role_id": "disc-front",
                    "roi_id": "pad-1",
                    "recipe_id": "default",
                    "score": 0.87,
                    "threshold": 0.63,
                    "peak": 0.91,
                    "peak_threshold": 0.66,
                    "pixel_threshold": 0.66,
                    "review_threshold": None,
                    "threshold_source": "calibration",
                    "verdict": "ng",
                    "verdict_reason": "both",
                    "calibration_stale": False,
                    "weights_stale": False,
                    "degraded": False,
                    "heatmap_png_base64": "iVBORw0KGgo…",
                    "heatmap_path": None,
                    "heatmap_max": 1.26,
                    "regions": [
                        {
                            "bbox": [120, 88, 34, 21],
                            "area_px": 512,
                            "area_mm2": 20.48,
                            "contour": [[120, 95], [131, 88], [153, 108]],
                        }
                    ],
                    "token_shape": [27, 27],
                    "image_size": [384, 384],
                    "params": {
                        "extractor": "dinov2-vit-s/14",
                        "coreset_rate": 0.02,
                        "k": 1,
                        "p_score": 99,
                        "blur_sigma": 1.0,
                        "area_mm2_thr": 1.0,
                        "mm_per_px": 0.2,
                        "bit_depth": None,
                    },
                    "version": 1,
                    "explanation": {
                        "distance": 0.91,
                        "patch": {
                            "box": [128, 85, 15, 15],
                            "crop": {"box": [113, 70, 45, 45], "png_base64": "iVBORw0KGgo…"},
                        },
                        "ok_patch": {
                            "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                            "file_name": "part-0042.png",
                            "box": [142, 85, 15, 15],
                            "crop": {"box": [127, 70, 45, 45], "png_base64": "iVBORw0KGgo…"},
                        },
                    },
                    "warnings": [],
                }
            ]
        }
    )

    role_id: str
    roi_id: str
    recipe_id: str
    score: float
    threshold: float | None = Field(description="null where the verdict is uncalibrated; then there are no regions")
    peak: float | None = Field(
        description="highest level at which a region of at least area_mm2_thr survives in the blurred map within the "
        "shape; null if no such region fits into it"
    )
    peak_threshold: float | None = Field(
        description="there is a region exactly if peak is at or above it; null as threshold is"
    )
    pixel_threshold: float | None = Field(description="another name of peak_threshold")
    review_threshold: float | None = Field(
        description="an image that is not ng is review if its peak is at or above it; null without a review band"
    )
    threshold_source: ThresholdSource | None = Field(
        description="calibration: the stored thresholds. shape: the rule of the calibration over the OK images within "
        "the shape of this request, since they were scored within other pixels. parameters: the same rule with the "
        "blur_sigma and the smallest area of this request"
    )
    verdict: Verdict
    verdict_reason: VerdictReason | None = Field(
        description="why the verdict is ng; no_picture: all pixels are equal or transparent. Of uncalibrated: the "
        "parameter of the request that the thresholds were not made with (p_score, k or shape), null before calibration"
    )
    calibration_stale: bool = Field(
        description="whether the thresholds were made for another memory bank or other weights"
    )
    weights_stale: bool = Field(
        description="whether the manual box or the settings of the weights changed since the fit"
    )
    degraded: bool = Field(
        description="whether files in use are damaged; the last undamaged version or a copy answers (see warnings)"
    )
    heatmap_png_base64: str | None = Field(description="null for heatmap=path and none")
    heatmap_path: str | None = Field(description="path below GATEWAY_HEATMAP_DIR; null unless heatmap=path")
    heatmap_max: float = Field(description="map value of the grey level 255; the same for all heatmaps of a version")
    regions: list[RegionAnswer] = Field(description="largest first")
    token_shape: tuple[int, int]
    image_size: tuple[int, int] = Field(description="width and height of the image after EXIF orientation")
    params: ParamsAnswer
    version: int = Field(description="version that answered")
    explanation: ExplanationAnswer | None = Field(
        description="null unless explain is true, and where there is nothing to show; then warnings says why"
    )
    warnings: list[str]


class InferForm(BaseModel):
    """The form of one inspection."""

    role_id: FormRole
    roi_id: FormRoi
    mm_per_px: FormMmPerPx
    image: OneImage
    recipe_id: FormRecipe = None
    shape: FormShape = None
    bit_depth: FormBitDepth = None
    k: Annotated[Neighbours | None, OR_NULL, Form(description="number of nearest neighbours to average")] = None
    p_score: Annotated[
        Percentile | None, OR_NULL, Form(description="percentile of the anomaly map that is the score")
    ] = None
    blur_sigma: Annotated[BlurSigma | None, OR_NULL, Form(description="standard deviation of the blur, in pixels")] = (
        None
    )
    area_mm2_thr: Annotated[AreaMm2 | None, OR_NULL, Form()] = None
    heatmap: Annotated[HeatmapMode | None, OR_NULL, Form(description="how the heatmap is returned")] = None
    explain: Annotated[
        bool | None,
        OR_NULL,
        Form(description="show the OK patch that is nearest to the most anomalous patch, as explanation"),
    ] = False


class BatchItem(RequestBody):
    """Parameters of one image of several."""

    role_id: RoleId
    roi_id: RoiId
    recipe_id: RecipeId | None = None
    mm_per_px: MmPerPx
    shape: JsonShape | None = Field(None, description="as in /infer, or as a JSON object")
    bit_depth: BitDepth | None = None
    k: Neighbours | None = None
    p_score: Percentile | None = None
    blur_sigma: BlurSigma | None = None
    area_mm2_thr: AreaMm2 | None = None
    heatmap: Literal["base64", "path", "none"] | None = None
    explain: bool | None = False


class BatchAnswer(BaseModel):
    """Inspections of several images, in the order of the request."""

    results: list[InferAnswer | ErrorEnvelope] = Field(description="each an answer of /infer or an error envelope")
