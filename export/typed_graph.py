"""Rewrite a graph in the precision that a GPU computes in: fp16 or bf16, and f32 where parity asks for it.

TensorRT 11 and TensorRT-RTX take the type of each operation from the graph, and so does TensorRT 10 for a *strongly
typed* network. This module needs onnx, but no torch, since it also runs in NVIDIA's container.
"""

from typing import Any, Literal, get_args

import numpy as np

from export.errors import ExportError

HalfType = Literal["fp16", "bf16"]
HALF_TYPES: tuple[HalfType, ...] = get_args(HalfType)

_PRODUCTS = {"Conv", "Gemm", "MatMul"}
# They are computed in the half type where all of their values come from operations in the half type.
_FOLLOWERS = {"Add", "Div", "Erf", "Flatten", "MaxPool", "Mul", "Relu", "Reshape", "Slice", "Squeeze", "Transpose"}
# ONNX has Conv and MaxPool in bf16 from this opset on.
_BF16_OPSET = 22


def typed(data: bytes, half: HalfType) -> bytes:
    """Return an ONNX graph with its products in `half`. Input and output keep their names and types.

    In f32 stay: layer norms, softmax, sums over an axis, and the sum of two computed values, such as that of a residual
    connection. In bf16, whose mantissa has 8 bits, the scores of an attention stay in f32 as well: rounded to bf16,
    they take the worst token of DINOv2 from a cosine of 0.9994 to one of 0.992.

    Raises:
        ExportError: onnx is missing.
    """
    onnx = _onnx()
    model = onnx.load_model_from_string(data)
    if half == "bf16":
        model = onnx.version_converter.convert_version(model, _BF16_OPSET)
    model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    _Typing(onnx, model.graph, half).apply()
    del model.graph.value_info[:]
    onnx.checker.check_model(model, full_check=True)
    written: bytes = model.SerializeToString(deterministic=True)
    return written


def widened(data: bytes) -> bytes:
    """Return a graph of `typed` for a runtime without bf16: in f32, and each result in bf16 is rounded to it.

    A GPU sums up the terms of a product in f32 and rounds once, so it computes the same, but for the order of the sums.

    Raises:
        ExportError: onnx is missing.
    """
    onnx = _onnx()
    model = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(data), strict_mode=True)
    graph, bf16 = model.graph, onnx.TensorProto.BFLOAT16
    rounded = {value.name for value in graph.value_info if value.type.tensor_type.elem_type == bf16}
    for tensor in graph.initializer:
        if tensor.data_type == bf16:
            values = onnx.numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    nodes = []
    for node in graph.node:
        results = [name for name in node.output if name in rounded]
        nodes.append(node)
        if node.op_type != "Cast":
            node.input[:] = [f"{name}_wide" if name in rounded else name for name in node.input]
            node.output[:] = [f"{name}_exact" if name in rounded else name for name in node.output]
            nodes += [onnx.helper.make_node("Cast", [f"{name}_exact"], [name], to=bf16) for name in results]
        nodes += [
            onnx.helper.make_node("Cast", [name], [f"{name}_wide"], to=onnx.TensorProto.FLOAT) for name in results
        ]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    runnable: bytes = onnx.version_converter.convert_version(model, 18).SerializeToString()
    return runnable


class _Typing:
    """One pass over the nodes of a graph, in their order, which is topological."""

    def __init__(self, onnx: Any, graph: Any, half: HalfType) -> None:
        self._onnx = onnx
        self._graph = graph
        self._float = onnx.TensorProto.FLOAT
        self._half = {"fp16": onnx.TensorProto.FLOAT16, "bf16": onnx.TensorProto.BFLOAT16}[half]
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        values = [*graph.value_info, *graph.input, *graph.output]
        self._types = {value.name: value.type.tensor_type.elem_type for value in values}
        self._types |= {name: tensor.data_type for name, tensor in self._constants.items()}
        scores = {name for node in graph.node if node.op_type == "Softmax" for name in node.input}
        self._kept = scores if half == "bf16" else set()
        self._in_half: set[str] = set()
        self._converted: dict[tuple[str, int], str] = {}
        self._nodes: list[Any] = []

    def apply(self) -> None:
        """Rewrite the graph in place."""
        outputs = {value.name for value in self._graph.output}
        for node in self._graph.node:
            wanted = self._half if self._is_half(node) else self._float
            for i, name in enumerate(node.input):
                if self._types.get(name) == self._float:
                    node.input[i] = self._as(name, wanted)
            self._nodes.append(node)
            if wanted == self._half:
                for i, name in enumerate(node.output):
                    if name in outputs:
                        node.output[i] = f"{name}_half"
                        self._cast(f"{name}_half", name, self._float)
                    else:
                        self._in_half.add(name)
        del self._graph.node[:]
        self._graph.node.extend(self._nodes)
        used = {name for node in self._nodes for name in node.input}
        kept = [tensor for tensor in self._graph.initializer if tensor.name in used]
        del self._graph.initializer[:]
        self._graph.initializer.extend(kept)

    def _is_half(self, node: Any) -> bool:
        if node.op_type in _PRODUCTS:
            return not self._kept.intersection(node.output)
        computed = [name for name in node.input if self._types.get(name) == self._float and name not in self._constants]
        is_sum = node.op_type == "Add" and len(computed) > 1
        return (
            node.op_type in _FOLLOWERS
            and bool(computed)
            and not is_sum
            and all(name in self._in_half for name in computed)
        )

    def _as(self, name: str, wanted: int) -> str:
        """Return the name of a float value in the type `wanted`. Add a cast, or a constant, where there is none yet."""
        if (wanted == self._half) == (name in self._in_half):
            return name
        key = name, wanted
        if key not in self._converted:
            other = self._converted[key] = f"{name}_{'half' if wanted == self._half else 'float'}"
            if name in self._constants:
                self._graph.initializer.append(self._constant(self._constants[name], other))
            else:
                self._cast(name, other, wanted)
        return self._converted[key]

    def _constant(self, tensor: Any, name: str) -> Any:
        values = self._onnx.numpy_helper.to_array(tensor)
        dtype = self._onnx.helper.tensor_dtype_to_np_dtype(self._half)
        return self._onnx.numpy_helper.from_array(values.astype(dtype), name)

    def _cast(self, source: str, target: str, to: int) -> None:
        self._nodes.append(self._onnx.helper.make_node("Cast", [source], [target], to=to))


def _onnx() -> Any:
    try:
        import onnx
        import onnx.version_converter
    except ImportError as error:
        raise ExportError(f"a graph for TensorRT needs onnx ({error}): install the export extra") from error
    return onnx
