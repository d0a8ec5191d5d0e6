"""Bodies of fits."""

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from gateway.api.fields import Seed
from gateway.learning.request import CalibrationState
from gateway.store.manifest import ScoreSummary, WeightsRecipe

_EXAMPLE: dict[str, JsonValue] = {
    "role_id": "disc-front",
    "roi_id": "pad-1",
    "recipe_id": "default",
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
    "tiles": [1, 1],
    "ok_scores": {"n": 30, "mean": 0.52, "p50": 0.51, "p95": 0.6, "p99": 0.63, "max": 0.64},
    "n_ok_excluded": 0,
    "suspect_images": [
        {
            "sha256": "9f86…",
            "file_name": "pad-1_0017.png",
            "score": 0.64,
            "robust_z": 5.4,
            "excluded": False,
        }
    ],
    "spatial_weights": {
        "kind": "manual",
        "box": [16, 112, 16, 112],
        "box_space": 128,
        "min_weight": 0.1,
        "max_weight": 2.0,
    },
    "calibration": "none",
    "warnings": [],
}


class SuspectAnswer(BaseModel):
    """An OK image that looks unlike the others and should be checked."""

    sha256: str
    file_name: str
    score: float = Field(description="score against the bank without this image")
    robust_z: float = Field(
        description="(score − median) / (1.4826 · MAD) of all OK scores; above 5 the image is suspect"
    )
    excluded: bool = Field(description="excluded from the bank because of exclude_suspects")


class FitAnswer(BaseModel):
    """Result of a fit."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    role_id: str
    roi_id: str
    recipe_id: str
    n_ok_total: int = Field(description="OK images that the ROI has learned in total")
    n_ok_added: int
    duplicates: int = Field(description="images of this request that were already learned, or sent twice")
    n_embeddings: int = Field(description="tokens in the memory bank, after the coreset")
    n_tokens_total: int = Field(description="tokens of all OK images, before the coreset")
    coreset_rate: float
    coreset_rate_applied: float
    covering_radius: float = Field(description="largest distance of an OK token to the bank, 0 to 2")
    seed: Seed
    checksum: str = Field(description="SHA-256 of the bank; the same images, order and seed give the same checksum")
    version: int
    token_shape: tuple[int, int]
    tiles: tuple[int, int] = Field(description="rows and columns of tiles that an image is cut into; 1, 1: the whole")
    ok_scores: ScoreSummary | None = Field(
        description="scores of the OK images, each against the bank without it; null with one image only"
    )
    n_ok_excluded: int = Field(
        description="images sent as OK that are excluded from the bank; n_ok_total does not count them"
    )
    suspect_images: list[SuspectAnswer] = Field(
        description="largest score first; needs at least 10 images. Images that exclude_suspects excluded come "
        "before those that stand out among the remaining images"
    )
    spatial_weights: WeightsRecipe
    calibration: CalibrationState = Field(
        description="state of the calibration after this fit: recomputed if it rested on leave-one-out scores alone, "
        "stale if it rested on given scores, current if the bank did not change"
    )
    warnings: list[str]


class FitProgressAnswer(BaseModel):
    """What the running fit of an ROI is doing."""

    role_id: str
    roi_id: str
    recipe_id: str
    running: bool
    stage: str | None = Field(
        description="wait (for another fit), engine (the network reads images), store, gather, coreset, loo (the "
        "leave-one-out maps), stored (the stored images are scored); null without a fit"
    )
    done: int | None = Field(description="images or centres of this stage that are done; null if they are not counted")
    total: int | None
    elapsed_s: float | None = Field(description="since the fit began")


class RemovedAnswer(FitAnswer):
    """Result of a fit without the removed image."""

    model_config = ConfigDict(json_schema_extra={"examples": [{**_EXAMPLE, "removed": "2c26…"}]})

    removed: str = Field(description="SHA-256 of the removed image")
