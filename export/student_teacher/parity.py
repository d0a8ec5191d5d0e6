"""Compare the maps of each runtime with those of torch, on images of the part."""

import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from export.comparison import camera_images
from export.student_teacher.comparison import compare_maps
from export.student_teacher.graph import StudentTeacherGraph
from gateway.networks.embedded.runtimes import Network, OnnxRuntimeNetwork, OpenVinoNetwork, Precision, supports_bf16
from gateway.networks.student_description import MapParity, StudentDescription

# The unit of a map is the difference between the 90th and the 99.5th percentile of OK pixels. In f32 a thousandth of it
# is far below any threshold, so a runtime beyond it computes something else. In bf16 a tenth is still small compared
# with the spread of OK images, which thresholds allow for.
TOLERANCE: Mapping[Precision, float] = {"f32": 1e-3, "bf16": 0.1}

_BATCHES = (1, 4)  # the shapes that the embedded engine compiles
_logger = logging.getLogger(__name__)


def check_parity(
    folder: Path, description: StudentDescription, graph: StudentTeacherGraph, ok_images: NDArray[np.uint8]
) -> dict[str, MapParity]:
    """Run the exported graph on every runtime of this machine, alone and in a batch, and compare with torch fp32.

    Args:
        folder: holds the exported graph.
        description: of that graph.
        graph: the torch module of the export.
        ok_images: uint8 [I, S, S, 3], of the validation. Their maps are near 0. The function adds images that are
            unlike the part, which give large values.

    Returns:
        The result of each runtime and precision, by names such as ``openvino-f32``.
    """
    unlike = camera_images(sum(_BATCHES), description.input_size)
    batches = [batch for images in (ok_images[: sum(_BATCHES)], unlike) for batch in _batches(images)]
    with torch.inference_mode():
        expected = np.concatenate([graph(torch.from_numpy(batch)).numpy() for batch in batches])
    parity = {}
    _logger.info("parity: %-20s %-14s %-14s %s", "runtime", "largest error", "score error", "allowed")
    for precision, load in _networks(folder, description):
        network = load()
        found = compare_maps(np.concatenate([network.run(b) for b in batches]), expected, TOLERANCE[precision])
        parity[network.runtime] = found
        _logger.info(
            "parity: %-20s %-14.3g %-14.3g %g%s",
            network.runtime,
            found.max_error,
            found.max_score_error,
            found.tolerance,
            "" if found.passed else "  EXCEEDED",
        )
    return parity


def _batches(images: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    return [batch for batch in np.split(images, np.cumsum(_BATCHES)[:-1]) if len(batch)]


def _networks(folder: Path, description: StudentDescription) -> Iterator[tuple[Precision, Callable[[], Network]]]:
    graph = description.as_tokens()
    yield "f32", lambda: OnnxRuntimeNetwork(folder, graph, device="cpu")
    yield "f32", lambda: OpenVinoNetwork(folder, graph, precision="f32")
    if supports_bf16():
        yield "bf16", lambda: OpenVinoNetwork(folder, graph, precision="bf16")
