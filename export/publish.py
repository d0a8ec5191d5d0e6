"""Export a model into a model repository. A new version appears complete or not at all."""

import logging
import time
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from export.backbone import TIMM_ID, load_weights
from export.errors import ExportError
from export.onnx_writer import INPUT, OUTPUT, onnx_bytes, write
from export.parity import TOLERANCE_COSINE, check_parity
from export.token_graph import TokenGraph, check_layout
from export.versions import DEFAULT_REPOSITORY, aside, check_name, locked, move_into_place
from export.weights import HUB, Weights
from gateway.networks.model_description import (
    DESCRIPTION_FILE,
    GRAPH_FILE,
    DescriptionError,
    ModelDescription,
    Parity,
    fingerprint_of,
    newest_version,
    read_description,
)

DEFAULT_NAME = "dinov2_vits14"
DEFAULT_SCALES = (384,)
DEFAULT_LAYERS = (9, 11)

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExportOptions:
    """What to export, and into which repository."""

    weights: str = HUB
    """``hub``, ``seed:N``, or a ``.safetensors`` or ``.pth`` file with the original DINOv2 key names."""
    repository: Path = DEFAULT_REPOSITORY
    name: str = DEFAULT_NAME
    scales: tuple[int, ...] = DEFAULT_SCALES
    """Image sizes in pixels, ascending; the graph takes the last."""
    layers: tuple[int, ...] = DEFAULT_LAYERS
    """Blocks whose outputs are concatenated, counted from 0, ascending."""
    force: bool = False
    """Publish a new version even if the newest has the same fingerprint."""
    tolerance_f32: float = TOLERANCE_COSINE["f32"]
    """The smallest allowed cosine between a token and torch's. Below it, nothing is published."""
    tolerance_bf16: float = TOLERANCE_COSINE["bf16"]
    """The same in bf16. Below it, the runtime is recorded as failed."""


def publish(options: ExportOptions) -> Path:
    """Export a model as the next version of its folder in the repository.

    Returns:
        The folder of the version, or that of the newest version if it is the same model.

    Raises:
        ExportError: an option is invalid, the weights are unavailable, the graph is invalid, an f32 runtime disagrees
            with torch, or the repository cannot be written. The repository is then unchanged.
    """
    check_name(options.name)
    check_layout(options.scales, options.layers)
    started = time.monotonic()
    weights = load_weights(options.weights)
    model_folder = options.repository / options.name
    try:
        model_folder.mkdir(parents=True, exist_ok=True)
        with locked(model_folder):  # before the work, so that nobody works in vain
            graph, description, data = _build(options, weights)
            same = None if options.force else _newest_if_same(model_folder, description)
            if same is not None:
                _logger.info(
                    "version %s is this model already: nothing to publish (--force publishes it again)", same.name
                )
                return same
            with aside(model_folder) as folder:
                _logger.info("writing %s: %.0f MB", GRAPH_FILE, len(data) / 1e6)
                write(data, folder / GRAPH_FILE)
                parity = check_parity(
                    folder, description, graph, {"f32": options.tolerance_f32, "bf16": options.tolerance_bf16}
                )
                _refuse_disagreement(parity)
                description = description.model_copy(update={"parity": parity})
                write(description.model_dump_json(indent=2).encode() + b"\n", folder / DESCRIPTION_FILE)
                version = move_into_place(folder, model_folder)
    except OSError as error:
        raise ExportError(f"cannot write to {model_folder}: {error.strerror or error}") from error
    _logger.info(
        "published version %s in %.0f s: %s", version.name, time.monotonic() - started, description.fingerprint
    )
    return version


def _build(options: ExportOptions, weights: Weights) -> tuple[TokenGraph, ModelDescription, bytes]:
    graph = TokenGraph(weights, scales=options.scales, layers=options.layers)
    _logger.info(
        "tracing: %s [B, %d, %d, 3] -> %s [B, %d, %d]",
        INPUT,
        graph.input_size,
        graph.input_size,
        OUTPUT,
        graph.token_hw[0] * graph.token_hw[1],
        graph.dim,
    )
    data = onnx_bytes(graph, graph.input_size)
    graph_sha256 = sha256(data).hexdigest()
    description = ModelDescription(
        name=options.name,
        timm_id=TIMM_ID,
        input_name=INPUT,
        output_name=OUTPUT,
        input_size=graph.input_size,
        scales=graph.scales,
        layers=graph.layers,
        token_hw=graph.token_hw,
        dim=graph.dim,
        weights=weights.source,
        graph_sha256=graph_sha256,
        fingerprint=fingerprint_of(weights.source.sha256, graph_sha256),
    )
    return graph, description, data


def _newest_if_same(model_folder: Path, description: ModelDescription) -> Path | None:
    try:
        newest = newest_version(model_folder)
        return newest if read_description(newest).same_model_as(description) else None
    except DescriptionError:
        return None


def _refuse_disagreement(parity: dict[str, Parity]) -> None:
    failed = [runtime for runtime, found in parity.items() if not found.passed]
    fatal = [runtime for runtime in failed if runtime.endswith("-f32")]
    if fatal:
        worst = min(parity[runtime].min_cosine for runtime in fatal)
        raise ExportError(
            f"{' and '.join(fatal)} disagree with torch (lowest cosine {worst:.9f}, required"
            f" {parity[fatal[0]].tolerance_cosine:g}): nothing was published. Check the versions of torch, onnxruntime"
            " and openvino, and that the weights are finite"
        )
    for runtime in failed:
        _logger.warning(
            "%s is too far from torch for this model: the description records it, and the model is served in f32",
            runtime,
        )
