"""What an exported token model is: written beside its graph by ``export``, read and compared by ``gateway``."""

import hashlib
import re
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

DESCRIPTION_FILE = "model.json"
GRAPH_FILE = "model.onnx"
INT8_FILES = ("model.int8.xml", "model.int8.bin")
"""OpenVINO's format: the graph, and its constants."""
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


class Int8Export(BaseModel):
    """The graph in int8, and how its decisions compare with those in f32, on images of the site.

    A memory bank of half of the images judges the others, as they are and with defects pasted on them. Both precisions
    use the same centres.
    """

    model_config = ConfigDict(frozen=True)

    graph_sha256: str
    """SHA-256 over both files."""
    fingerprint: str
    n_calibration: int
    """Images that the ranges of the values are from. The memory bank has learned them."""
    n_inspected: int
    """Other images, each of them inspected without and with pasted defects."""
    images_sha256: str
    """SHA-256 over the checksums of all images, in order."""
    spearman: float
    """Rank correlation of the peaks in int8 and in f32."""
    least_spearman: float
    auroc_f32: float
    """By the peaks, of images with a pasted defect against those without."""
    auroc_int8: float
    largest_auroc_loss: float
    mean_cosine: float
    """Of a token with the same token in f32. It decides nothing."""
    min_cosine: float
    passed: bool
    nncf: str
    """Version."""

    @property
    def in_words(self) -> str:
        """The figures of the check in one line."""
        return (
            f"rank correlation of the peaks {self.spearman:.3f}, at least {self.least_spearman:g}; AUROC on pasted"
            f" defects {self.auroc_int8:.3f}, in f32 {self.auroc_f32:.3f}, at most {self.largest_auroc_loss:g} lower"
        )


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
    precision: Literal["f32", "int8"] = "f32"
    """Of the graph that is served. ``model.json`` describes the graph in f32."""
    int8: Int8Export | None = None
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

    def as_int8(self) -> "ModelDescription":
        """Return the description of the graph in int8, which is another model: tokens of the two must not be compared.

        Raises:
            ValueError: there is none.
        """
        if self.int8 is None:
            raise ValueError(f"{self.name} has no int8 export")
        return self.model_copy(
            update={
                "precision": "int8",
                "graph_sha256": self.int8.graph_sha256,
                "fingerprint": self.int8.fingerprint,
                "parity": {},
                "int8": None,
                "typed_graphs": {},
            }
        )

    def same_model_as(self, other: "ModelDescription") -> bool:
        """Whether tokens of the two may be compared."""
        return self.fingerprint == other.fingerprint


def typed_graph_file(half: str) -> str:
    """Return the name of a graph for TensorRT in the folder of a version; see `ModelDescription.typed_graphs`."""
    return f"model.tensorrt-{half}.onnx"


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
