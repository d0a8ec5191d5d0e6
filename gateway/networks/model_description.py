"""What an exported token model is: written beside its graph by ``export``, read and compared by ``gateway``."""

import hashlib
import re
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

DESCRIPTION_FILE = "model.json"
GRAPH_FILE = "model.onnx"
EXTRACTOR = "dinov2-vit-s/14"
WeightsKind = Literal["hub", "file", "seed", "stand-in"]
_VERSION = re.compile(r"[1-9][0-9]{0,17}")


class DescriptionError(ValueError):
    """A ``model.json`` that is absent, unreadable or of another format."""


class WeightsSource(BaseModel):
    """Where the weights came from. ``sha256`` is over names, shapes and values, not over a file's bytes."""

    model_config = ConfigDict(frozen=True)

    kind: WeightsKind
    detail: str
    sha256: str


class Parity(BaseModel):
    """How far one runtime at one precision is from torch fp32 on the same images, and whether that was close enough."""

    model_config = ConfigDict(frozen=True)

    max_abs_error: float
    min_cosine: float
    tolerance_cosine: float
    passed: bool


class ModelDescription(BaseModel):
    """One exported graph: ``image`` uint8 [B, S, S, 3] RGB -> ``tokens`` [B, H*W, D], each token of L2 norm 1."""

    model_config = ConfigDict(frozen=True)

    format: Literal[1] = 1
    name: str
    extractor: str = EXTRACTOR
    timm_id: str
    input_name: str = "image"
    output_name: str = "tokens"
    input_size: int
    """S: the side, in pixels, of the square image that the graph takes."""
    scales: tuple[int, ...]
    """The sizes asked for at export; each is served at the largest multiple of the patch size below it."""
    layers: tuple[int, ...]
    """Transformer blocks whose outputs are concatenated, counted from 0."""
    token_hw: tuple[int, int]
    dim: int
    weights: WeightsSource
    graph_sha256: str
    fingerprint: str
    """Two models with the same fingerprint give the same tokens; a memory bank is bound to it."""
    parity: dict[str, Parity] = {}
    """By runtime and precision, such as ``openvino-bf16``. What is not here was not checked."""
    typed_graphs: dict[str, str] = {}
    """SHA-256 of each graph for TensorRT beside the graph, by the type of its products: ``fp16`` or ``bf16``."""

    @property
    def n_tokens(self) -> int:
        """Tokens per image."""
        return self.token_hw[0] * self.token_hw[1]

    @property
    def has_random_weights(self) -> bool:
        """True for a test model, whose scores mean nothing."""
        return self.weights.kind == "seed"

    @property
    def weights_warning(self) -> str | None:
        """What the log says of the weights at each start; None for stock weights and a named file."""
        if self.weights.kind == "stand-in":
            return (
                f"the model has stand-in weights: a DINOv2 ViT-S/14 that {self.weights.detail} fine-tuned for another "
                "task, not stock DINOv2; export again with DINOV2_WEIGHTS=hub or DINOV2_WEIGHTS=FILE for other weights"
            )
        return "the model has random weights: its scores mean nothing" if self.has_random_weights else None

    def same_model_as(self, other: "ModelDescription") -> bool:
        """Whether tokens of the two may be compared."""
        return self.fingerprint == other.fingerprint


def fingerprint_of(weights_sha256: str, graph_sha256: str) -> str:
    """SHA-256 (hex) that stands for the weights and the graph together."""
    return hashlib.sha256(f"weights:{weights_sha256}\ngraph:{graph_sha256}\n".encode()).hexdigest()


def read_description(folder: Path) -> ModelDescription:
    """Read ``model.json`` of one version folder.

    Raises:
        DescriptionError: the file is absent, not JSON, or not of this format.
    """
    text = description_text(folder)
    try:
        return ModelDescription.model_validate_json(text)
    except ValidationError as error:
        path = folder / DESCRIPTION_FILE
        raise DescriptionError(f"{path}: not a model description of format 1 ({first_error(error)})") from error


def description_text(folder: Path) -> str:
    """Read the text of ``model.json`` of one version folder, without a byte order mark.

    Raises:
        DescriptionError: the file is missing, unreadable, or not UTF-8.
    """
    path = folder / DESCRIPTION_FILE
    try:
        return path.read_text("utf-8-sig")
    except OSError as error:
        raise DescriptionError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DescriptionError(f"{path}: not UTF-8; copy it again from the export") from error


def first_error(error: ValidationError) -> str:
    """Return the first error of a validation in one line."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg']}" if place else first["msg"]


def version_folders(model_folder: Path) -> list[Path]:
    """Return the version folders with a description, highest number first.

    As in Triton, the name of a version is a positive number without leading zeros. Other folders are ignored.
    """
    if not model_folder.is_dir():
        return []
    folders = [p for p in model_folder.iterdir() if _VERSION.fullmatch(p.name) and (p / DESCRIPTION_FILE).is_file()]
    return sorted(folders, key=lambda p: -int(p.name))


def newest_version(model_folder: Path) -> Path:
    """Return the version folder with the highest number, as Triton's ``latest`` version policy does.

    Raises:
        DescriptionError: the model has no version.
    """
    versions = version_folders(model_folder)
    if not versions:
        raise DescriptionError(
            f"no exported model under {model_folder} (a folder named by a number, such as 1, with a file"
            f" {DESCRIPTION_FILE})"
        )
    return versions[0]
