"""Write a version in int8 with NNCF, beside its graph, if it decides on images of the site as f32 does.

It is another model: its tokens differ from those in f32 more than memory banks allow for, so it has a fingerprint of
its own. NNCF's preset for transformers smooths activations into weights first (Xiao et al., "SmoothQuant", 2023).
"""

import hashlib
import logging
import os
import sys
from contextlib import redirect_stdout
from dataclasses import asdict
from importlib.metadata import version as installed
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.errors import ExportError
from export.files import replace_file
from export.int8_gate import LARGEST_AUROC_LOSS, LEAST_SPEARMAN, compare_decisions
from export.student_teacher.dataset import TrainingImages, load, read_folder
from export.versions import aside, locked
from gateway.networks.embedded.runtimes import OpenVinoNetwork
from gateway.networks.model_description import (
    DESCRIPTION_FILE,
    GRAPH_FILE,
    INT8_FILES,
    Int8Export,
    ModelDescription,
    fingerprint_of,
)

LARGEST_CALIBRATION = LARGEST_INSPECTION = 60
_SEED = 0

_logger = logging.getLogger(__name__)


def provide_int8(version: Path, model: ModelDescription, folder: Path) -> ModelDescription:
    """Write the graph of a version in int8, unless it is there from the same images.

    Half of the images give the ranges of the values. The decisions are compared on the other half.

    Args:
        version: folder of the version. The two files of the graph and, last, ``model.json`` are written there.
        model: its description.
        folder: OK images of the site, which the gateway can read.

    Returns:
        The description with `Int8Export`.

    Raises:
        ExportError: NNCF is missing, an image cannot be read, there are too few, the repository cannot be written, or
            the decisions differ too much. The last is recorded in ``model.json``, without files.
    """
    images = load(read_folder(folder, folder.resolve().name), model.input_size, _SEED, validation_share=0.5)
    calibration, inspected = images.train[:LARGEST_CALIBRATION], images.validation[:LARGEST_INSPECTION]
    images_sha256 = _images_sha256(images)
    if model.int8 is not None and model.int8.images_sha256 == images_sha256 and _is_whole(version, model.int8):
        _logger.info("int8: version %s has it from the same images", version.name)
        return model
    try:
        with locked(version.parent), aside(version.parent) as written:
            return _provide(version, model, written, calibration, inspected, images_sha256)
    except OSError as error:
        raise ExportError(f"cannot write to {version}: {error.strerror or error}") from error


def _provide(
    version: Path,
    model: ModelDescription,
    written: Path,
    calibration: NDArray[np.uint8],
    inspected: NDArray[np.uint8],
    images_sha256: str,
) -> ModelDescription:
    _quantise(version / GRAPH_FILE, model, calibration, written)
    graph_sha256 = _sha256(written)
    in_int8 = model.model_copy(update={"precision": "int8", "graph_sha256": graph_sha256})
    _logger.info("int8: comparing decisions on %d images", len(inspected))
    found = compare_decisions(
        OpenVinoNetwork(version, model, precision="f32").run,
        OpenVinoNetwork(written, in_int8, precision="int8").run,
        calibration,
        inspected,
        model.token_hw,
    )
    record = Int8Export(
        graph_sha256=graph_sha256,
        fingerprint=fingerprint_of(model.weights.sha256, graph_sha256),
        n_calibration=len(calibration),
        n_inspected=len(inspected),
        images_sha256=images_sha256,
        least_spearman=LEAST_SPEARMAN,
        largest_auroc_loss=LARGEST_AUROC_LOSS,
        **asdict(found),
        passed=found.passed,
        nncf=installed("nncf"),
    )
    # While its files change, the version has no int8: a gateway that starts then serves another precision.
    _describe(version, model.model_copy(update={"int8": None}))
    for name in INT8_FILES:
        if found.passed:
            replace_file(version / name, (written / name).read_bytes())
        else:
            (version / name).unlink(missing_ok=True)
    described = model.model_copy(update={"int8": record})
    _describe(version, described)
    _logger.info("int8: %s", record.in_words)
    if not found.passed:
        raise ExportError(
            f"int8 decides too differently from f32, and is not served: {record.in_words}. Use more images, or images"
            " that show what the line shows"
        )
    return described


def _describe(version: Path, model: ModelDescription) -> None:
    replace_file(version / DESCRIPTION_FILE, model.model_dump_json(indent=2).encode() + b"\n")


def _quantise(graph: Path, model: ModelDescription, images: NDArray[np.uint8], folder: Path) -> None:
    os.environ["NNCF_CI"] = "1"  # else NNCF sends statistics of its use
    try:
        import nncf
    except ImportError as error:
        raise ExportError(f"int8 needs NNCF ({error}): install the int8 extra") from error
    import openvino

    logging.getLogger("nncf").setLevel(logging.ERROR)
    _logger.info("int8: calibrating on %d images", len(images))
    with redirect_stdout(sys.stderr):  # NNCF shows its progress on stdout, which is for the names of versions
        quantised = nncf.quantize(
            openvino.Core().read_model(graph),
            nncf.Dataset(list(images), lambda image: {model.input_name: image[None]}),
            model_type=nncf.ModelType.TRANSFORMER,
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(images),
        )
    openvino.save_model(quantised, folder / INT8_FILES[0], compress_to_fp16=False)


def _images_sha256(images: TrainingImages) -> str:
    lines = [f"{each}\n" for each in (*images.train_sha256, "", *images.validation_sha256)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _is_whole(version: Path, record: Int8Export) -> bool:
    try:
        return record.passed and _sha256(version) == record.graph_sha256
    except OSError:
        return False


def _sha256(folder: Path) -> str:
    digest = hashlib.sha256()
    for name in INT8_FILES:
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()
