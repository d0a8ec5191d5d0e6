"""Bodies of health and readiness."""

from typing import Literal

from pydantic import BaseModel, Field

from gateway.api.schemas.errors import ErrorBody
from gateway.networks.model_description import WeightsKind


class HealthAnswer(BaseModel):
    """The process is alive."""

    status: Literal["ok"]
    device: Literal["cuda", "cpu"]
    model: str
    version: str
    engine: Literal["embedded", "triton"]
    runtime: str = Field(description="runtime that computes tokens, such as openvino-bf16")
    runtime_reason: str | None = Field(description="why the network computes in this precision; null on a GPU")
    search: str = Field(description="library that finds nearest neighbours")
    model_fingerprint: str | None = Field(description="null while no model is loaded or reachable")
    model_weights: WeightsKind | None = Field(
        description="origin of the weights; seed: random weights, scores mean nothing; stand-in: fine-tuned weights, "
        "not stock DINOv2"
    )


class ReadyAnswer(BaseModel):
    """Whether inspections are possible now."""

    ready: bool
    engine: str = Field(description="'ready', or why the token model is not ready")
    storage: str = Field(description="'ready', or why nothing can be learned; inspections go on")
    process: str = Field(description="'ready', or why the process is not ready: it is shutting down")
    networks: list[str] = Field(
        description="networks in use that single ROIs need, each with 'ready' or the reason: of student-teacher "
        "models, and token models of other input sizes"
    )
    input_sizes: list[int] = Field(
        description="input sizes in pixels of the token models that this gateway knows, for input_size of a fit; "
        "on Triton there may be others"
    )
    degraded: list[str] = Field(
        description="ROIs with files that this process found damaged; their inspections use the last undamaged "
        "version, or are refused"
    )
    error: ErrorBody | None = Field(description="why inspections are impossible, in answers with status 503")
