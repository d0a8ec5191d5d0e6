"""Write a graph as one self-contained ONNX file. The same weights give the same bytes."""

import os
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch

from export.errors import ExportError

INPUT, OUTPUT = "image", "tokens"
# The oldest opset with LayerNormalization that torch exports without a conversion: most servers read it.
OPSET = 18


def onnx_bytes(graph: torch.nn.Module, size: int, output: str = OUTPUT) -> bytes:
    """Trace `graph` with a dynamic batch and serialise it as checked ONNX.

    Args:
        graph: takes images uint8 [B, S, S, 3].
        size: S.
        output: name of its output.

    Returns:
        The ONNX file.

    Raises:
        ExportError: the graph from torch is not valid ONNX.
    """
    example = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype=np.uint8))
    with warnings.catch_warnings():
        # torch's exporter calls functions that torch deprecates. An export cannot change that.
        warnings.filterwarnings("ignore", r".*isinstance\(treespec, LeafSpec\)", FutureWarning)
        program = torch.onnx.export(
            graph,
            (example,),
            dynamo=True,
            verbose=False,
            external_data=False,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[output],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
        )
    if program is None:
        raise ExportError("torch.onnx returned no graph")
    model = program.model_proto
    strip(model)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"torch.onnx returned a graph that is not valid ONNX: {error}") from error
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def strip(model: onnx.ModelProto) -> None:
    """Delete, in place, what differs between runs or machines: stack traces, doc strings, versions."""
    model.producer_version = ""
    model.doc_string = ""
    del model.metadata_props[:]
    graph = model.graph
    graph.doc_string = ""
    del graph.metadata_props[:]
    for part in [*graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info]:
        part.doc_string = ""
        del part.metadata_props[:]


def write(data: bytes, path: Path) -> None:
    """Write `data` to `path` and wait until it is on the disk."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
