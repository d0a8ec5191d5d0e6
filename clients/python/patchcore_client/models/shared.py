"""Answers of the gateway: shared."""

# Written by `python -m tests.clients.client_sources`: change the source of it instead.

from typing import Annotated, Literal

from patchcore_client.answer import OPEN, Answer

CalibrationMethod = Annotated[Literal["p99_ok+margin", "conformal", "grid", "given"], OPEN]

HeatmapMode = Annotated[Literal["base64", "path", "none"], OPEN]

ImageLabel = Annotated[Literal["ok", "ng"], OPEN]

OkSource = Annotated[Literal["given", "leave-one-out", "validation"], OPEN]

PixelThresholdSource = Annotated[Literal["peak", "score", "ok_pixels", "given"], OPEN]

SpatialWeightsKind = Annotated[Literal["none", "variance", "manual", "file"], OPEN]

SpatialWeightsMode = Annotated[Literal["none", "variance"], OPEN]

Verdict = Annotated[Literal["ok", "review", "ng", "uncalibrated"], OPEN]

VerdictReason = Annotated[Literal["score", "region", "both", "no_picture", "p_score", "k", "shape"], OPEN]


class ErrorBody(Answer):
    """What is wrong with which value, and what to do about it."""

    code: str
    message: str
    hint: str


class ScoreSummary(Answer):
    """Summary of the leave-one-out scores of a version's OK images."""

    n: int
    mean: float
    p50: float
    p95: float
    p99: float
    max: float


class WeightsRecipe(Answer):
    """How the spatial weights of a version were made."""

    kind: SpatialWeightsKind
    box: tuple[float, float, float, float] | None = None
    box_space: int | None = None
    min_weight: float | None = None
    max_weight: float | None = None
