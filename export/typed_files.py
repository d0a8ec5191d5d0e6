"""Write the typed graph of a version beside its graph, after a comparison of the two on a CPU."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.comparison import camera_images, compare
from export.errors import ExportError
from export.files import replace_file
from export.served import Description
from export.student_teacher.comparison import compare_maps
from export.typed_graph import HalfType, typed, widened
from gateway.networks.embedded.runtimes import OnnxRuntimeNetwork
from gateway.networks.model_description import DESCRIPTION_FILE, GRAPH_FILE, ModelDescription, typed_graph_file
from gateway.networks.student_description import StudentDescription

# As for bf16 in OpenVINO. fp16 has three more bits of mantissa, so it has no reason to differ more.
TOLERANCE_COSINE = 0.999
TOLERANCE_MAP = 0.1

_BATCHES = (1, 4)  # alone and together

Run = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def provide_typed_graph(folder: Path, model: Description, half: HalfType) -> tuple[Path, Description]:
    """Write the typed graph of a version, unless it is there.

    Args:
        folder: of the version. The file and, last, its checksum and parity in ``model.json`` are written there.
        model: the description of the version.
        half: type of the products.

    Returns:
        The path of the file, and the description with it.

    Raises:
        ExportError: onnx is missing, a file cannot be read or written, or the output of the typed graph is too far from
            that of the graph in f32. Nothing is written then.
    """
    path = folder / typed_graph_file(half)
    try:
        if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == model.typed_graphs.get(half):
            return path, model
        exported = (folder / GRAPH_FILE).read_bytes()
    except OSError as error:
        raise ExportError(f"cannot read {folder}: {error.strerror or error}") from error
    data = typed(exported, half)
    runnable = widened(data) if half == "bf16" else data
    run = OnnxRuntimeNetwork(runnable, _as_tokens(model), device="cpu").run
    described = with_parity(folder, model, f"onnxruntime-cpu-{half}", run, _BATCHES)
    described = described.model_copy(
        update={"typed_graphs": {**model.typed_graphs, half: hashlib.sha256(data).hexdigest()}}
    )
    replace_file(path, data)
    replace_file(folder / DESCRIPTION_FILE, described.model_dump_json(indent=2).encode() + b"\n")
    return path, described


def with_parity(folder: Path, model: Description, runtime: str, run: Run, batches: Sequence[int]) -> Description:
    """Compare the output of `run` with that of the graph in f32, and return the description with the result.

    Args:
        folder: of the version.
        model: its description.
        runtime: the name of the result.
        run: uint8 [B, S, S, 3] RGB -> tokens [B, N, D] or maps [B, S, S], float32.
        batches: sizes of the batches to compare.

    Raises:
        ExportError: the output is too far from that of ONNX Runtime in f32, which was compared with torch.
    """
    images = np.split(camera_images(sum(batches), model.input_size), np.cumsum(batches)[:-1])
    reference = OnnxRuntimeNetwork(folder, _as_tokens(model), device="cpu")
    expected = np.concatenate([reference.run(image[None]) for batch in images for image in batch])
    given = np.concatenate([run(batch) for batch in images])
    described: Description
    if isinstance(model, StudentDescription):
        map_parity = compare_maps(given, expected, TOLERANCE_MAP)
        passed, found = map_parity.passed, f"largest error {map_parity.max_error:.3g}, allowed {TOLERANCE_MAP}"
        described = model.model_copy(update={"parity": {**model.parity, runtime: map_parity}})
    else:
        parity = compare(given, expected, TOLERANCE_COSINE)
        passed, found = parity.passed, f"lowest cosine {parity.min_cosine:.6f}, required {TOLERANCE_COSINE}"
        described = model.model_copy(update={"parity": {**model.parity, runtime: parity}})
    if not passed:
        raise ExportError(
            f"{runtime}: the output is too far from that of ONNX Runtime in f32: {found}. It was not published. Try the"
            " other --tensorrt-dtype, or serve this model with --backend onnxruntime"
        )
    return described


def _as_tokens(model: Description) -> ModelDescription:
    return model.as_tokens() if isinstance(model, StudentDescription) else model
