"""Graphs for TensorRT: which operations are in a half type, and what that changes in the output."""

import hashlib

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from export import typed_files
from export.backbone import load_weights
from export.comparison import camera_images, compare
from export.errors import ExportError
from export.token_graph import TokenGraph
from export.typed_files import provide_typed_graph
from export.typed_graph import HALF_TYPES, typed, widened
from gateway.networks.model_description import newest_version, read_description
from gateway.networks.student_description import read_student
from tests.conftest import copied_version
from tests.export.tiny_student import trained_once

ELEMENT = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}


def small_graph() -> bytes:
    """x [1, 2] -> softmax(x · identity + (1/256, 0)) + x · identity: a product, a bias, scores and a sum."""
    nodes = [
        helper.make_node("MatMul", ["x", "identity"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["biased"]),
        helper.make_node("Softmax", ["biased"], ["shares"]),
        helper.make_node("Add", ["shares", "product"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])],
        [
            numpy_helper.from_array(np.eye(2, dtype=np.float32), "identity"),
            numpy_helper.from_array(np.array([1 / 256, 0], np.float32), "bias"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()


def types_of(data: bytes) -> dict[str, int]:
    """Return the element type of each value of a graph."""
    graph = onnx.shape_inference.infer_shapes(onnx.load_from_string(data), strict_mode=True).graph
    values = [*graph.value_info, *graph.input, *graph.output]
    return {each.name: each.type.tensor_type.elem_type for each in values}


def run(data: bytes, **inputs: np.ndarray) -> np.ndarray:
    return onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, inputs)[0]


@pytest.mark.parametrize("half", HALF_TYPES)
def test_products_and_biases_are_in_the_half_type_and_softmax_sums_and_tensors_are_in_f32(half):
    types = types_of(typed(small_graph(), half))
    assert types["product"] == ELEMENT[half]
    assert {types[name] for name in ("x", "shares", "y")} == {TensorProto.FLOAT}
    assert types["biased"] == ELEMENT[half]


def test_bf16_rounds_each_result_and_fp16_keeps_what_bf16_cannot_hold():
    # 1 + 1/256 lies between two numbers of bf16, 1 and 1 + 1/128, and rounds to the even one, with and without bias.
    x = np.array([[1 + 1 / 256, 0]], np.float32)
    share = np.e / (np.e + 1)
    np.testing.assert_allclose(run(widened(typed(small_graph(), "bf16")), x=x), [[share + 1, 1 - share]], atol=1e-6)
    np.testing.assert_allclose(run(typed(small_graph(), "fp16"), x=x), run(small_graph(), x=x), atol=1e-6)


@pytest.mark.parametrize("half", HALF_TYPES)
def test_every_product_of_the_served_graph_but_the_scores_in_bf16_takes_the_half_type(small_model_repository, half):
    data = (newest_version(small_model_repository / "dinov2_vits14") / "model.onnx").read_bytes()
    written = typed(data, half)
    types = types_of(written)
    model = onnx.load_from_string(written)
    types |= {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    taken = {"MatMul": set(), "Conv": set(), "LayerNormalization": set(), "Softmax": set()}
    scores = {node.input[0] for node in model.graph.node if node.op_type == "Softmax"}
    for node in model.graph.node:
        if node.op_type in taken and not scores.intersection(node.output):
            taken[node.op_type].add(types[node.input[0]])
    assert taken["MatMul"] == taken["Conv"] == {ELEMENT[half]}
    assert taken["LayerNormalization"] == taken["Softmax"] == {TensorProto.FLOAT}
    assert len(written) < 0.55 * len(data)


def test_the_tokens_of_a_typed_graph_are_those_of_torch(small_model_repository):
    data = (newest_version(small_model_repository / "dinov2_vits14") / "model.onnx").read_bytes()
    images = camera_images(2, 112, seed=5)
    with torch.inference_mode():
        graph = TokenGraph(load_weights("seed:0"), scales=[112], layers=[0, 1])
        expected = graph(torch.from_numpy(images)).numpy()
    assert compare(run(typed(data, "fp16"), image=images), expected, 0.99999).passed
    in_bf16 = compare(run(widened(typed(data, "bf16")), image=images), expected, 0.999)
    assert in_bf16.passed
    assert in_bf16.min_cosine < 0.99999  # it has been rounded


def test_an_export_writes_the_typed_graph_that_it_is_asked_for_with_checksum_and_parity(small_model_repository):
    version = newest_version(small_model_repository / "dinov2_vits14")  # exported with --tensorrt-dtype fp16
    model = read_description(version)
    data = (version / "model.tensorrt-fp16.onnx").read_bytes()
    assert data == typed((version / "model.onnx").read_bytes(), "fp16")
    assert model.typed_graphs == {"fp16": hashlib.sha256(data).hexdigest()}
    assert model.parity["onnxruntime-cpu-fp16"].passed


def test_a_version_gets_another_typed_graph_and_keeps_its_fingerprint_and_a_damaged_one_is_written_again(
    small_model_repository, tmp_path
):
    version = copied_version(newest_version(small_model_repository / "dinov2_vits14"), tmp_path)
    before = read_description(version)
    path, after = provide_typed_graph(version, before, "bf16")
    assert after == read_description(version)
    assert after.same_model_as(before)
    assert after.typed_graphs == {**before.typed_graphs, "bf16": hashlib.sha256(path.read_bytes()).hexdigest()}

    written = path.stat().st_mtime_ns
    assert provide_typed_graph(version, after, "bf16") == (path, after)
    assert path.stat().st_mtime_ns == written
    path.write_bytes(b"damaged")
    provide_typed_graph(version, after, "bf16")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == after.typed_graphs["bf16"]


def test_a_typed_graph_that_is_too_far_from_f32_is_not_written(small_model_repository, tmp_path, monkeypatch):
    version = copied_version(newest_version(small_model_repository / "dinov2_vits14"), tmp_path)
    before = {path.name: path.read_bytes() for path in version.iterdir()}
    monkeypatch.setattr(typed_files, "TOLERANCE_COSINE", 0.9999999)
    with pytest.raises(ExportError, match=r"onnxruntime-cpu-bf16: .* too far .* other --tensorrt-dtype"):
        provide_typed_graph(version, read_description(version), "bf16")
    assert {path.name: path.read_bytes() for path in version.iterdir()} == before


@pytest.mark.parametrize("half", HALF_TYPES)
def test_the_typed_graph_of_a_student_gives_nearly_its_maps(tmp_path, half):
    version = copied_version(trained_once(14, 40)[1], tmp_path)
    _, described = provide_typed_graph(version, read_student(version), half)
    assert described == read_student(version)
    found = described.parity[f"onnxruntime-cpu-{half}"]
    assert found.passed
    assert 0 < found.max_error < 0.1
