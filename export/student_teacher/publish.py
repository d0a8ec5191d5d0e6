"""Train a student and publish it as the next version of its model. A version appears complete or not at all."""

import hashlib
import importlib.metadata
import io
import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from export.errors import ExportError
from export.onnx_writer import INPUT, onnx_bytes, write
from export.student_teacher.comparison import robust_scores
from export.student_teacher.dataset import TrainingImages
from export.student_teacher.graph import StudentTeacherGraph, check_size
from export.student_teacher.parity import check_parity
from export.student_teacher.resnet import STRIDE, TIMM_ID, WIDTH, check_layers, load_teacher, new_student
from export.student_teacher.training import Trained, TrainingOptions, layer_maps, train
from export.versions import DEFAULT_REPOSITORY, aside, check_name, locked, move_into_place
from export.weights import HUB, Weights, sha256_of
from gateway.networks.model_description import (
    DESCRIPTION_FILE,
    GRAPH_FILE,
    DescriptionError,
    fingerprint_of,
    newest_version,
)
from gateway.networks.student_description import (
    OK_MAPS_FILE,
    Layer,
    MapParity,
    OkMapsRecord,
    StudentDescription,
    Training,
    TrainingImage,
    read_ok_maps,
    read_student,
)

OUTPUT = "map"
DEFAULT_LAYERS = ("layer2", "layer3", "layer4")
DEFAULT_SIZE = 128
# The quantiles of EfficientAD's map normalisation.
QUANTILES = (0.9, 0.995)
# A change of this number invalidates older checkpoints and recipes.
_RECIPE = 1
# Not `.tmp-…`, since folders of that name are removed after a killed export, and a training continues from this one.
_CHECKPOINT = ".training"

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StudentOptions:
    """What to train, and the repository to publish into."""

    weights: str = HUB
    """Weights of the teacher: ``hub``, ``seed:N``, or a ``.safetensors`` or ``.pth`` file."""
    repository: Path = DEFAULT_REPOSITORY
    size: int = DEFAULT_SIZE
    """Side of the square image in pixels."""
    layers: tuple[str, ...] = DEFAULT_LAYERS
    training: TrainingOptions = field(default_factory=TrainingOptions)
    force: bool = False
    """Train and publish even if the newest version has the same recipe."""

    def check(self) -> None:
        """Check the options.

        Raises:
            ExportError: an option is out of range.
        """
        check_size(self.size)
        check_layers(self.layers)
        self.training.check()
        self.training.resolved_device()


def model_name(connector: str) -> str:
    """Return the name of the model's folder in the repository.

    Raises:
        ExportError: the name of the connector cannot be part of the name of a folder.
    """
    name = f"st_{connector}"
    try:
        check_name(name)
    except ExportError as error:
        raise ExportError(f"connector {connector!r}: {error}") from None
    return name


def publish_student(options: StudentOptions, connector: str, images: TrainingImages, unused: dict[str, int]) -> Path:
    """Train a student for a connector, as the next version of ``st_<connector>``. Continue an interrupted training.

    Args:
        options: what to train.
        connector: its name.
        images: OK images, from `dataset.load`.
        unused: number of the connector's other rows by label, for the record.

    Returns:
        The folder of the version, or that of the newest version if it has the same recipe.

    Raises:
        ExportError: an option is invalid, the weights are unavailable, an f32 runtime disagrees with torch, or the
            repository cannot be written. Only the checkpoint of the training is left then.
    """
    options.check()
    name = model_name(connector)
    teacher, weights = load_teacher(options.weights, options.layers)
    recipe = _recipe(options, weights, images)
    model_folder = options.repository / name
    try:
        model_folder.mkdir(parents=True, exist_ok=True)
        with locked(model_folder):
            same = None if options.force else _newest_if_same(model_folder, recipe)
            if same is not None:
                _logger.info(
                    "%s: version %s has the same images and options: nothing to train (--force trains again)",
                    name,
                    same.name,
                )
                return same
            graph = StudentTeacherGraph(teacher, new_student(options.layers, options.training.seed), options.size)
            trained = train(
                graph, images, options.training, recipe=recipe, folder=model_folder / _CHECKPOINT, name=connector
            )
            record = _training_record(options, images, unused, trained, recipe)
            with aside(model_folder) as folder:
                _write_version(folder, graph, name, connector, weights, images, record)
                version = move_into_place(folder, model_folder)
            shutil.rmtree(model_folder / _CHECKPOINT)
    except OSError as error:
        raise ExportError(f"cannot write to {model_folder}: {error.strerror or error}") from error
    _logger.info(
        "published %s version %s: epoch %d of %d, %.0f s of training",
        name,
        version.name,
        trained.best_epoch,
        len(trained.history),
        trained.seconds,
    )
    return version


def _write_version(
    folder: Path,
    graph: StudentTeacherGraph,
    name: str,
    connector: str,
    weights: Weights,
    images: TrainingImages,
    record: Training,
) -> None:
    quantiles = _set_units(graph, images.validation)
    data = onnx_bytes(graph, graph.size, OUTPUT)
    write(data, folder / GRAPH_FILE)
    graph_sha256 = hashlib.sha256(data).hexdigest()
    with torch.inference_mode():
        ok_maps = np.concatenate([graph(torch.from_numpy(image[None])).numpy() for image in images.validation])
    maps_file = _npz(maps=ok_maps, sha256=np.array(images.validation_sha256))
    write(maps_file, folder / OK_MAPS_FILE)
    description = StudentDescription(
        name=name,
        connector=connector,
        timm_id=TIMM_ID,
        input_name=INPUT,
        output_name=OUTPUT,
        input_size=graph.size,
        layers=tuple(
            Layer(name=layer, stride=STRIDE[layer], channels=WIDTH[layer], q_low=low, q_high=high)
            for layer, (low, high) in zip(graph.layers, quantiles, strict=True)
        ),
        quantiles=QUANTILES,
        weights=weights.source,
        student_sha256=sha256_of(graph.student.state_dict()),
        graph_sha256=graph_sha256,
        fingerprint=fingerprint_of(sha256_of(graph.state_dict()), graph_sha256),
        training=record,
        ok_maps=OkMapsRecord(
            sha256=hashlib.sha256(maps_file).hexdigest(),
            n=len(ok_maps),
            scores=tuple(float(score) for score in robust_scores(ok_maps)),
        ),
    )
    parity = check_parity(folder, description, graph, images.validation)
    _refuse_disagreement(parity)
    description = description.model_copy(update={"parity": parity})
    write(description.model_dump_json(indent=2).encode() + b"\n", folder / DESCRIPTION_FILE)


def _set_units(graph: StudentTeacherGraph, images: NDArray[np.uint8]) -> list[tuple[float, float]]:
    """Set the unit of each layer of `graph`. Return the two quantiles of each."""
    found = []
    for layer, maps in zip(graph.layers, layer_maps(graph, images), strict=True):
        low, high = (float(each) for each in np.quantile(maps.astype(np.float64), QUANTILES))
        if not high > low:
            raise ExportError(f"the maps of {layer} are constant on all OK images: check that the images show a part")
        found.append((low, high))
    graph.set_units([high - low for low, high in found])
    return found


def _recipe(options: StudentOptions, weights: Weights, images: TrainingImages) -> str:
    """Return the SHA-256 over everything that the weights of the student depend on."""
    told = {
        "recipe": _RECIPE,
        "images": _images_sha256(images),
        "teacher": weights.source.sha256,
        "size": options.size,
        "layers": options.layers,
        "options": _told(options.training),
        "device": options.training.resolved_device(),
        "threads": options.training.resolved_threads(),
        "versions": _versions(),
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _training_record(
    options: StudentOptions, images: TrainingImages, unused: dict[str, int], trained: Trained, recipe: str
) -> Training:
    return Training(
        recipe_sha256=recipe,
        seed=options.training.seed,
        options=_told(options.training),
        device=options.training.resolved_device(),
        threads=options.training.resolved_threads(),
        versions=_versions(),
        n_train=len(images.train),
        n_validation=len(images.validation),
        n_duplicates=images.n_duplicates,
        unused=unused,
        images=tuple(
            TrainingImage(name=images.files[sha256].name, sha256=sha256, part=part)
            for part, checksums in (("train", images.train_sha256), ("validation", images.validation_sha256))
            for sha256 in checksums
        ),
        images_sha256=_images_sha256(images),
        epochs=len(trained.history),
        best_epoch=trained.best_epoch,
        losses=tuple(trained.history),
        seconds=round(trained.seconds, 1),
    )


def _told(training: TrainingOptions) -> dict[str, Any]:
    """Return the options that change the result. The actual device and threads are recorded separately."""
    return {key: value for key, value in asdict(training).items() if key not in ("device", "threads")}


def _versions() -> dict[str, str]:
    return {
        package: importlib.metadata.version(package) for package in ("torch", "timm", "numpy", "opencv-python-headless")
    }


def _images_sha256(images: TrainingImages) -> str:
    digest = hashlib.sha256()
    for part, checksums in (("train", images.train_sha256), ("validation", images.validation_sha256)):
        digest.update("".join(f"{part} {sha256}\n" for sha256 in checksums).encode())
    return digest.hexdigest()


def _npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _newest_if_same(model_folder: Path, recipe: str) -> Path | None:
    try:
        newest = newest_version(model_folder)
        model = read_student(newest)
    except DescriptionError:
        return None
    if model.training.recipe_sha256 != recipe:
        return None
    try:
        read_ok_maps(newest, model)
        is_whole = hashlib.sha256((newest / GRAPH_FILE).read_bytes()).hexdigest() == model.graph_sha256
    except (DescriptionError, OSError):
        is_whole = False
    if not is_whole:
        _logger.warning("%s has the same images and options, but it is damaged: training it again", newest)
    return newest if is_whole else None


def _refuse_disagreement(parity: dict[str, MapParity]) -> None:
    failed: Sequence[str] = [runtime for runtime, found in parity.items() if not found.passed]
    fatal = [runtime for runtime in failed if runtime.endswith("-f32")]
    if fatal:
        raise ExportError(
            f"{' and '.join(fatal)} disagree with torch (largest error {max(parity[r].max_error for r in fatal):.3g},"
            f" allowed {parity[fatal[0]].tolerance:g}): nothing was published. Check the versions of torch, onnxruntime"
            " and openvino, and that the weights are finite"
        )
    for runtime in failed:
        _logger.warning(
            "%s is too far from torch for this model: the description records it, and the model is served in f32",
            runtime,
        )
