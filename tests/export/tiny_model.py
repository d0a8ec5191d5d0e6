"""An exported version made without torch: a graph of five operators with the tensors of the served graph."""

import hashlib
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from gateway.networks.model_description import ModelDescription, Parity, WeightsSource, fingerprint_of

SIZE, GRID = 28, 2


def description(fingerprint: str = "0" * 64, **changes: object) -> ModelDescription:
    """Return a description of the default model, without real weights."""
    passed = Parity(max_abs_error=0.008, min_cosine=0.9993, tolerance_cosine=0.999, passed=True)
    model = ModelDescription(
        name="dinov2_vits14",
        timm_id="vit_small_patch14_dinov2.lvd142m",
        input_size=378,
        scales=(384,),
        layers=(9, 11),
        token_hw=(27, 27),
        dim=768,
        weights=WeightsSource(kind="seed", detail="0", sha256="0" * 64),
        graph_sha256="0" * 64,
        fingerprint=fingerprint,
        parity={"openvino-bf16": passed},
    )
    return model.model_copy(update=changes)


def write_version(folder: Path, factor: float = 1.0, grid: int = GRID) -> ModelDescription:
    """Write a version whose tokens are mean colours of a grid, 2 x 2, times `factor`. Each factor is another model."""
    size, n_tokens = grid * SIZE // GRID, grid * grid
    initialisers = [
        helper.make_tensor("factor", TensorProto.FLOAT, [1], [factor]),
        helper.make_tensor("shape", TensorProto.INT64, [3], [0, 3, n_tokens]),
    ]
    nodes = [
        helper.make_node("Cast", ["image"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["real"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["planes"], ["means"], kernel_shape=[14, 14], strides=[14, 14]),
        helper.make_node("Reshape", ["means", "shape"], ["flat"]),
        helper.make_node("Transpose", ["flat"], ["colours"], perm=[0, 2, 1]),
        helper.make_node("Mul", ["colours", "factor"], ["tokens"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", size, size, 3])],
        [helper.make_tensor_value_info("tokens", TensorProto.FLOAT, ["batch", n_tokens, 3])],
        initialisers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    data = model.SerializeToString(deterministic=True)
    graph_sha256 = hashlib.sha256(data).hexdigest()
    described = description(
        fingerprint_of("0" * 64, graph_sha256),
        input_size=size,
        scales=(size,),
        layers=(0,),
        token_hw=(grid, grid),
        dim=3,
        graph_sha256=graph_sha256,
    )
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(data)
    (folder / "model.json").write_text(described.model_dump_json(indent=2) + "\n")
    return described
