"""Bodies of requests and answers, for validation and for the OpenAPI document."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from gateway.api.fields import AreaMm2, MmPerPx, Number, Percentile, RoiId, RoleId, Score
from gateway.calibration import Method
from gateway.storage import ScoreSummary


class ErrorBody(BaseModel):
    """What is wrong with which value, and what to do."""

    code: str
    message: str
    hint: str


class ErrorEnvelope(BaseModel):
    """The one form of every error."""

    error: ErrorBody


class FitAnswer(BaseModel):
    """What was learned."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "role_id": "disc-front",
                    "roi_id": "pad-1",
                    "n_ok_total": 30,
                    "n_ok_added": 30,
                    "duplicates": 0,
                    "n_embeddings": 437,
                    "n_tokens_total": 21870,
                    "coreset_rate": 0.02,
                    "coreset_rate_applied": 0.01998,
                    "covering_radius": 0.81,
                    "seed": 0,
                    "checksum": "5d41…",
                    "version": 1,
                    "token_shape": [27, 27],
                    "ok_scores": {"n": 30, "mean": 0.52, "p50": 0.51, "p95": 0.6, "p99": 0.63, "max": 0.64},
                    "warnings": [],
                }
            ]
        }
    )

    role_id: str
    roi_id: str
    n_ok_total: int = Field(description="OK images that the ROI has learned, all together")
    n_ok_added: int
    duplicates: int = Field(description="images of this request that were known, or sent twice")
    n_embeddings: int = Field(description="tokens in the memory bank, after the coreset")
    n_tokens_total: int = Field(description="tokens of all OK images, before the coreset")
    coreset_rate: float
    coreset_rate_applied: float
    covering_radius: float = Field(description="distance of the farthest OK token to the bank, 0 to 2")
    seed: int
    checksum: str = Field(description="SHA-256 of the bank; the same images, order and seed give the same")
    version: int
    token_shape: tuple[int, int]
    ok_scores: ScoreSummary | None = Field(
        description="score of each OK image against the bank without it; null while there is only one"
    )
    warnings: list[str]


class CalibrateRequest(BaseModel):
    """Scores that `/infer` gave for images known to be good or bad."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "role_id": "disc-front",
                    "roi_id": "pad-1",
                    "mm_per_px": 0.2,
                    "ok_scores": [0.51, 0.55, 0.49],
                    "ng_scores": [0.92],
                    "area_mm2_thr": 1.0,
                    "score_percentile": 99,
                }
            ]
        }
    )

    role_id: RoleId
    roi_id: RoiId
    mm_per_px: MmPerPx
    ok_scores: Annotated[
        list[Score],
        Field(max_length=100_000, description="of unseen OK images; none: the fit's leave-one-out scores are used"),
    ] = []
    ng_scores: Annotated[list[Score], Field(max_length=3)] = []
    area_mm2_thr: AreaMm2 | None = None
    score_percentile: Percentile | None = None


class CalibrateAnswer(BaseModel):
    """The threshold, stored from now on: an image is NG when its score is above it."""

    role_id: str
    roi_id: str
    threshold: float
    p99_ok: float
    p5_ng: float | None
    mm_per_px: float
    area_mm2_thr: float
    score_percentile: float
    method: Method
    ok_source: Literal["given", "leave-one-out"]
    n_ok: int
    n_ng: int
    ok_above: int = Field(description="OK scores above the threshold")
    ng_below: int = Field(description="NG scores not above it")
    separable: bool | None = Field(description="whether p99 of OK lies below p5 of NG; null without NG")
    version: int = Field(description="of the memory bank that it holds for")
    warnings: list[str]


class RegionAnswer(BaseModel):
    """A connected region above the threshold, in pixels of the image as sent."""

    bbox: tuple[int, int, int, int] = Field(description="x, y, w, h")
    area_px: int
    area_mm2: float
    contour: list[tuple[int, int]]


class ParamsAnswer(BaseModel):
    """What the answer was computed with."""

    extractor: str
    coreset_rate: float
    k: int
    p_score: float
    blur_sigma: float
    area_mm2_thr: float
    mm_per_px: float


class InferAnswer(BaseModel):
    """The inspection of one image."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "role_id": "disc-front",
                    "roi_id": "pad-1",
                    "score": 0.87,
                    "threshold": 0.63,
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
                    },
                    "version": 1,
                    "warnings": [],
                }
            ]
        }
    )

    role_id: str
    roi_id: str
    score: float
    threshold: float | None = Field(description="null before calibration: then there are no regions")
    heatmap_png_base64: str | None = Field(description="null for heatmap=path and none")
    heatmap_path: str | None = Field(description="below GATEWAY_HEATMAP_DIR, for heatmap=path")
    heatmap_max: float = Field(description="distance that 255 stands for; one for all heatmaps of a version")
    regions: list[RegionAnswer] = Field(description="largest first")
    token_shape: tuple[int, int]
    image_size: tuple[int, int] = Field(description="width, height of the image as seen (EXIF orientation applied)")
    params: ParamsAnswer
    version: int = Field(description="of the memory bank that answered")
    warnings: list[str]


class BatchItem(BaseModel):
    """One of several images to inspect together."""

    model_config = ConfigDict(extra="forbid")

    role_id: RoleId
    roi_id: RoiId
    mm_per_px: MmPerPx
    shape: dict[str, Any] | str | None = Field(None, description="as in /infer, or the same as a JSON object")
    k: int | None = Field(None, ge=1, le=100)
    p_score: Percentile | None = None
    blur_sigma: Annotated[Number, Field(ge=0, le=20)] | None = None
    area_mm2_thr: AreaMm2 | None = None
    heatmap: Literal["base64", "path", "none"] | None = None


class BatchAnswer(BaseModel):
    """The inspections of several images, in the order of the request."""

    results: list[InferAnswer | ErrorEnvelope] = Field(description="an answer of /infer, or an error envelope, each")


class HealthAnswer(BaseModel):
    """The process is alive."""

    status: Literal["ok"]
    device: Literal["cuda", "cpu"]
    model: str
    version: str
    engine: Literal["embedded", "triton"]
    runtime: str = Field(description="what computes tokens, such as openvino-bf16")
    search: str = Field(description="what finds nearest neighbours")
    model_fingerprint: str | None = Field(description="null while no model is loaded or reached")
    model_weights: Literal["hub", "file", "seed"] | None = Field(description="seed: random, scores mean nothing")


class ReadyAnswer(BaseModel):
    """Whether inspections can be served now."""

    ready: bool
    engine: str = Field(description="'ready', or why not")
    storage: str = Field(description="'ready', or why not")


class CalibrationSummary(BaseModel):
    """The calibration in use."""

    threshold: float
    p99_ok: float
    p5_ng: float | None
    area_mm2_thr: float
    score_percentile: float
    method: str
    n_ok: int
    n_ng: int
    version: int
    created_at: str
    stale: bool = Field(description="made for an earlier memory bank than the one in use")


class RoiSummary(BaseModel):
    """A fitted ROI."""

    role_id: str
    roi_id: str
    version: int
    created_at: str
    n_ok_total: int
    n_embeddings: int
    coreset_rate_applied: float
    mm_per_px: float
    checksum: str
    model_fingerprint: str
    ok_scores: ScoreSummary | None
    calibration: CalibrationSummary | None


class OkImageAnswer(BaseModel):
    """An OK image that an ROI has learned."""

    sha256: str
    file_name: str
    width: int
    height: int
    added_in: int
    score: float | None = Field(description="against the bank without it")


class RoiDetail(RoiSummary):
    """A fitted ROI and what it learned from."""

    covering_radius: float
    seed: int
    heatmap_max: float
    images: list[OkImageAnswer]


class RoiList(BaseModel):
    """Every fitted ROI."""

    rois: list[RoiSummary]
    unreadable: list[str] = Field(description="ROIs whose stored artifacts are damaged, and how")


class Deleted(BaseModel):
    """An ROI that is gone, with its OK images, versions and calibration."""

    role_id: str
    roi_id: str
    deleted: Literal[True] = True
