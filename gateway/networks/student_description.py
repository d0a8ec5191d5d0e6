"""The description of an exported student-teacher model. ``export`` writes it beside the graph, ``gateway`` reads it."""

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
    description_text,
    first_error,
    read_description,
)

STUDENT_EXTRACTOR = "student-teacher-resnet18"
OK_MAPS_FILE = "ok_maps.npz"


class MapParity(BaseModel):
    """How far one runtime at one precision is from torch fp32 on the same images, and whether that is close enough.

    An error is absolute for values up to 1, the unit of a map, and relative for larger values.
    """

    model_config = ConfigDict(frozen=True)

    max_error: float
    max_score_error: float
    """Largest error of the mean of an image's highest 1 %, measured in the same way."""
    tolerance: float
    """Largest `max_error` that passes."""
    passed: bool


class Layer(BaseModel):
    """One layer of both networks, and how its maps are normalised."""

    model_config = ConfigDict(frozen=True)

    name: str
    stride: int
    channels: int
    q_low: float
    q_high: float
    """Quantiles of the layer's map on the OK validation images; ``q_high - q_low`` is its unit in the graph."""


class TrainingImage(BaseModel):
    """One OK image of the student's training or validation."""

    model_config = ConfigDict(frozen=True)

    name: str
    sha256: str
    """SHA-256 of the file."""
    part: Literal["train", "validation"]


class Training(BaseModel):
    """How the student was trained. Two trainings of one `recipe_sha256` on one machine give the same weights."""

    model_config = ConfigDict(frozen=True)

    recipe_sha256: str
    """SHA-256 over the images, the teacher's weights, all options and the versions of the libraries."""
    seed: int
    options: dict[str, float | int | str | dict[str, float]]
    device: str
    threads: int
    versions: dict[str, str]
    n_train: int
    n_validation: int
    n_duplicates: int
    """Files left out because another file has the same content."""
    unused: dict[str, int]
    """Number of rows with another label than OK, by label. Their files are not opened."""
    images: tuple[TrainingImage, ...]
    images_sha256: str
    """SHA-256 over the checksum and the part of each image."""
    epochs: int
    best_epoch: int
    """Counted from 1. The student has the weights of this epoch."""
    losses: tuple[tuple[float, float], ...]
    """Loss on the training and on the validation images, for each epoch."""
    seconds: float


class OkMapsRecord(BaseModel):
    """The file of the fused maps of the validation images, beside the graph. `read_ok_maps` reads it."""

    model_config = ConfigDict(frozen=True)

    file: str = OK_MAPS_FILE
    sha256: str
    n: int
    scores: tuple[float, ...]
    """Mean of the highest 1 % of each map, before spatial weights."""


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
    """S: the side, in pixels, of the square input image and of the map."""
    layers: tuple[Layer, ...]
    quantiles: tuple[float, float]
    """The levels of `Layer.q_low` and `Layer.q_high`, from 0 to 1."""
    weights: WeightsSource
    """Source of the teacher's weights."""
    student_sha256: str
    """SHA-256 over names, shapes and values of the student's weights."""
    graph_sha256: str
    fingerprint: str
    """Two models with the same fingerprint give the same maps."""
    training: Training
    ok_maps: OkMapsRecord
    parity: dict[str, MapParity] = {}
    """By runtime and precision, such as ``openvino-bf16``. A combination that is absent was not checked."""
    typed_graphs: dict[str, str] = {}
    """See `ModelDescription.typed_graphs`."""

    @property
    def has_random_weights(self) -> bool:
        """True for a test model, whose scores mean nothing."""
        return self.weights.kind == "seed"

    def as_tokens(self) -> ModelDescription:
        """Return a description for the code that runs token graphs: each row of the map is a token of S features."""
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
        DescriptionError: the file is missing, not JSON, or of another kind or format.
    """
    text = description_text(folder)
    try:
        return StudentDescription.model_validate_json(text)
    except ValidationError as error:
        path = folder / DESCRIPTION_FILE
        raise DescriptionError(
            f"{path}: not a student-teacher description of format 1 ({first_error(error)})"
        ) from error


def model_from_json(text: str) -> ModelDescription:
    """Parse a ``model.json`` of either kind, for the code that runs token graphs.

    Raises:
        ValueError: the text is of neither kind.
    """
    try:
        return StudentDescription.model_validate_json(text).as_tokens()
    except ValidationError:
        return ModelDescription.model_validate_json(text)


def read_any_description(folder: Path) -> ModelDescription | StudentDescription:
    """Read ``model.json`` of one version folder, of either kind.

    Raises:
        DescriptionError: the file is missing, not JSON, or of neither kind.
    """
    try:
        return read_student(folder)
    except DescriptionError:
        return read_description(folder)


def read_ok_maps(folder: Path, model: StudentDescription) -> tuple[NDArray[np.float32], list[str]]:
    """Return the maps of the validation images, before spatial weights, and the SHA-256 of each image.

    Returns:
        The maps, float32 [n, S, S], and n checksums.

    Raises:
        DescriptionError: the file is missing, or its checksum differs from that in `model`.
    """
    path = folder / OK_MAPS_FILE
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DescriptionError(f"{path}: {error.strerror}") from error
    if hashlib.sha256(data).hexdigest() != model.ok_maps.sha256:
        raise DescriptionError(f"{path}: damaged, its checksum differs from that in {DESCRIPTION_FILE}")
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return np.asarray(arrays["maps"], np.float32), [str(each) for each in arrays["sha256"]]
