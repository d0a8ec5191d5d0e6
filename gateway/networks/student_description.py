"""What an exported student-teacher model is: written beside its graph by ``export``, read by ``gateway``."""

import hashlib
import io
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from gateway.networks.model_description import (
    DESCRIPTION_FILE,
    DescriptionError,
    ModelDescription,
    Parity,
    WeightsSource,
    read_description,
)

STUDENT_EXTRACTOR = "student-teacher-resnet18"
OK_MAPS_FILE = "ok_maps.npz"


class MapParity(BaseModel):
    """How far one runtime at one precision is from torch fp32 on the same images, and whether that was close enough.

    An error counts as it is on values up to 1, which is the unit of a map, and as a share of the value above.
    """

    model_config = ConfigDict(frozen=True)

    max_error: float
    max_score_error: float
    """Of the mean of an image's highest 1 %, counted alike."""
    tolerance: float
    """Of `max_error`."""
    passed: bool


class Layer(BaseModel):
    """One layer of both networks, and how its maps were normalised."""

    model_config = ConfigDict(frozen=True)

    name: str
    stride: int
    channels: int
    q_low: float
    q_high: float
    """Quantiles of the layer's map on the OK images of the validation; ``q_high - q_low`` is its unit in the graph."""


class TrainingImage(BaseModel):
    """One OK image that the student was trained with."""

    model_config = ConfigDict(frozen=True)

    name: str
    sha256: str
    """Of the file."""
    part: Literal["train", "validation"]


class Training(BaseModel):
    """How the student came about. Two trainings of one `recipe_sha256` on one machine give the same weights."""

    model_config = ConfigDict(frozen=True)

    recipe_sha256: str
    """Over the images, the teacher's weights, all options and the versions of the libraries."""
    seed: int
    options: dict[str, float | int | str | dict[str, float]]
    device: str
    threads: int
    versions: dict[str, str]
    n_train: int
    n_validation: int
    n_duplicates: int
    """Files left out since their content was there already."""
    unused: dict[str, int]
    """Rows that were not OK, by label: none of their files was opened."""
    images: tuple[TrainingImage, ...]
    images_sha256: str
    """Over checksum and part of each image."""
    epochs: int
    best_epoch: int
    """Counted from 1; the student is that epoch's."""
    losses: tuple[tuple[float, float], ...]
    """On the training and the validation images, of each epoch."""
    seconds: float


class OkMapsRecord(BaseModel):
    """The fused maps of the validation images, in a file beside the graph; `read_ok_maps` reads it."""

    model_config = ConfigDict(frozen=True)

    file: str = OK_MAPS_FILE
    sha256: str
    n: int
    scores: tuple[float, ...]
    """Mean of the highest 1 % of each map, without spatial weights."""


class StudentDescription(BaseModel):
    """One exported graph: ``image`` uint8 [B, S, S, 3] RGB -> ``map`` float32 [B, S, S], 0 or above."""

    model_config = ConfigDict(frozen=True)

    format: Literal[1] = 1
    kind: Literal["student-teacher"] = "student-teacher"
    name: str
    connector: str
    extractor: str = STUDENT_EXTRACTOR
    timm_id: str
    input_name: str = "image"
    output_name: str = "map"
    input_size: int
    """S: the side, in pixels, of the square image that the graph takes and of the map that it gives."""
    layers: tuple[Layer, ...]
    quantiles: tuple[float, float]
    """Which ones `Layer.q_low` and `Layer.q_high` are, 0 to 1."""
    weights: WeightsSource
    """The teacher's."""
    student_sha256: str
    """Over names, shapes and values of the student's weights."""
    graph_sha256: str
    fingerprint: str
    """Two models with the same fingerprint give the same maps."""
    training: Training
    ok_maps: OkMapsRecord
    parity: dict[str, MapParity] = {}
    """By runtime and precision, such as ``openvino-bf16``. What is not here was not checked."""

    @property
    def has_random_weights(self) -> bool:
        """True for a test model, whose scores mean nothing."""
        return self.weights.kind == "seed"

    def as_tokens(self) -> ModelDescription:
        """The same graph as what compiles and runs token graphs sees it: each row of the map a token of S features."""
        return ModelDescription(
            name=self.name,
            extractor=self.extractor,
            timm_id=self.timm_id,
            input_name=self.input_name,
            output_name=self.output_name,
            input_size=self.input_size,
            scales=(self.input_size,),
            layers=(),
            token_hw=(self.input_size, 1),
            dim=self.input_size,
            weights=self.weights,
            graph_sha256=self.graph_sha256,
            fingerprint=self.fingerprint,
            parity={
                runtime: Parity(max_abs_error=found.max_error, min_cosine=0, tolerance_cosine=0, passed=found.passed)
                for runtime, found in self.parity.items()
            },
        )


def read_student(folder: Path) -> StudentDescription:
    """Read ``model.json`` of one version folder.

    Raises:
        DescriptionError: the file is absent, not JSON, or not of this kind and format.
    """
    path = folder / DESCRIPTION_FILE
    try:
        return StudentDescription.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DescriptionError(f"{path}: {error.strerror}") from error
    except ValidationError as error:
        raise DescriptionError(
            f"{path}: not a student-teacher description of format 1 ({error.error_count()} errors)"
        ) from error


def model_from_json(text: str) -> ModelDescription:
    """The text of a ``model.json`` of either kind, as what runs token graphs sees it.

    Raises:
        ValueError: it is of neither kind.
    """
    try:
        return StudentDescription.model_validate_json(text).as_tokens()
    except ValidationError:
        return ModelDescription.model_validate_json(text)


def read_any_description(folder: Path) -> ModelDescription | StudentDescription:
    """Read ``model.json`` of one version folder, whichever kind of model it is.

    Raises:
        DescriptionError: the file is absent, not JSON, or of neither kind.
    """
    try:
        return read_student(folder)
    except DescriptionError:
        return read_description(folder)


def read_ok_maps(folder: Path, model: StudentDescription) -> tuple[NDArray[np.float32], list[str]]:
    """The maps float32 [n, S, S] of the validation images, before spatial weights, and the SHA-256 of each image.

    Raises:
        DescriptionError: the file is absent, or not the one that `model` speaks of.
    """
    path = folder / OK_MAPS_FILE
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DescriptionError(f"{path}: {error.strerror}") from error
    if hashlib.sha256(data).hexdigest() != model.ok_maps.sha256:
        raise DescriptionError(f"{path}: damaged, its checksum is not that of {DESCRIPTION_FILE}")
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return np.asarray(arrays["maps"], np.float32), [str(each) for each in arrays["sha256"]]
