"""Compare the tokens of each runtime with those of torch, on images like those of a camera."""

import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from export.comparison import camera_images, compare
from export.token_graph import TokenGraph
from gateway.networks.embedded.runtimes import Network, OnnxRuntimeNetwork, OpenVinoNetwork, Precision, supports_bf16
from gateway.networks.model_description import ModelDescription, Parity

# The smallest allowed cosine between a token and torch's. Tokens have norm 1, so a cosine of c is a distance of
# sqrt(2 - 2c). In f32 that is 0.0045, far below the difference between the scores of OK and NG. Measured distances are
# below 2e-5, so a runtime beyond the limit computes something else. In bf16, with its 8 bits of mantissa, the limit is
# a distance of 0.045. The worst of 3645 tokens measured 0.04, and the score of an image 0.01.
TOLERANCE_COSINE: Mapping[Precision, float] = {"f32": 0.99999, "bf16": 0.999}

_logger = logging.getLogger(__name__)

_BATCHES = (1, 4)  # the shapes that the embedded engine compiles


def check_parity(
    folder: Path, description: ModelDescription, graph: TokenGraph, tolerance: Mapping[Precision, float]
) -> dict[str, Parity]:
    """Run the exported graph on every runtime of this machine, alone and in a batch, and compare with torch fp32.

    Args:
        folder: holds the exported graph.
        description: of that graph.
        graph: the torch module of the export.
        tolerance: the smallest allowed cosine, by precision: ``f32`` and ``bf16``.

    Returns:
        The result of each runtime and precision, by names such as ``openvino-f32``.
    """
    images = camera_images(sum(_BATCHES), description.input_size)
    _logger.info("parity: torch on %d images", len(images))
    with torch.inference_mode():
        expected = np.concatenate([graph(torch.from_numpy(batch)).numpy() for batch in _batches(images)])
    parity = {}
    _logger.info("parity: %-20s %-14s %-14s %s", "runtime", "largest error", "lowest cosine", "required")
    for precision, load in _networks(folder, description):
        network = load()
        found = compare(np.concatenate([network.run(b) for b in _batches(images)]), expected, tolerance[precision])
        parity[network.runtime] = found
        _logger.info(
            "parity: %-20s %-14.3g %-14.9f %g%s",
            network.runtime,
            found.max_abs_error,
            found.min_cosine,
            found.tolerance_cosine,
            "" if found.passed else "  FAILED",
        )
    return parity


def _batches(images: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    return np.split(images, np.cumsum(_BATCHES)[:-1])


def _networks(folder: Path, description: ModelDescription) -> Iterator[tuple[Precision, Callable[[], Network]]]:
    yield "f32", lambda: OnnxRuntimeNetwork(folder, description, device="cpu")
    yield "f32", lambda: OpenVinoNetwork(folder, description, precision="f32")
    if supports_bf16():
        yield "bf16", lambda: OpenVinoNetwork(folder, description, precision="bf16")
