"""The TensorRT builder without a GPU: the calls of TensorRT's API, and what is published."""

import json
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest

from export import triton_tensorrt
from export.errors import ExportError
from export.triton_config import write_serving_files
from export.triton_options import ServingOptions
from export.triton_tensorrt import build_plan, profile, provide_plan, publish_plan, wanted_record
from gateway.networks.embedded.runtimes import OnnxRuntimeNetwork
from gateway.networks.model_description import read_description
from tests.export.tiny_model import write_version

OPTIONS = ServingOptions("tensorrt", max_batch_size=4).resolved()


@pytest.fixture
def version(tmp_path: Path) -> Path:
    folder = tmp_path / "dinov2_vits14" / "1"
    write_version(folder)
    return folder


@pytest.fixture
def trt() -> MagicMock:
    """A stand-in for TensorRT that builds the plan b"plan"."""
    module = MagicMock(__version__="10.13.2")
    builder = module.Builder.return_value
    builder.build_serialized_network.return_value = b"plan"
    builder.create_builder_config.return_value.get_timing_cache.return_value.serialize.return_value = b"timings"
    return module


def publish(version: Path, *, off: float = 0.0) -> None:
    """Publish b"plan", which returns the tokens of the graph, or wrong tokens if `off`."""
    model = read_description(version)
    network = OnnxRuntimeNetwork(version, model, device="cpu")

    def run(images):
        tokens = network.run(images)
        return tokens + off * np.abs(tokens).max() * np.arange(3, dtype=np.float32)

    publish_plan(version, model, OPTIONS, b"plan", wanted_record("10.13.2", model, OPTIONS), run)


def test_the_profile_goes_from_one_image_to_the_largest_batch(version):
    shapes = profile(read_description(version), OPTIONS)
    assert shapes == {"min": (1, 28, 28, 3), "opt": (2, 28, 28, 3), "max": (4, 28, 28, 3)}


def test_tensorrt_is_asked_for_a_strongly_typed_network_with_that_profile_and_keeps_its_timings(version, trt, tmp_path):
    timings = tmp_path / "timing.cache"
    trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED = 1  # its value in TensorRT 10 and 11
    graph, model = version / "model.onnx", read_description(version)
    assert build_plan(trt, graph, model, OPTIONS, timing_cache=timings) == b"plan"
    builder = trt.Builder.return_value
    config = builder.create_builder_config.return_value
    builder.create_network.assert_called_once_with(2)
    config.set_flag.assert_not_called()  # TensorRT 11 has no BuilderFlag.FP16
    builder.create_optimization_profile.return_value.set_shape.assert_called_once_with(
        "image", (1, 28, 28, 3), (2, 28, 28, 3), (4, 28, 28, 3)
    )
    config.create_timing_cache.assert_called_once_with(b"")
    assert timings.read_bytes() == b"timings"

    build_plan(trt, graph, model, OPTIONS, timing_cache=timings)
    config.create_timing_cache.assert_called_with(b"timings")


def test_a_graph_that_tensorrt_cannot_read_is_a_clear_error(version, trt, tmp_path):
    parser = trt.OnnxParser.return_value
    parser.parse_from_file.return_value = False
    parser.num_errors = 1
    parser.get_error.return_value = "node 3: unknown operator"
    with pytest.raises(ExportError, match="unknown operator"):
        build_plan(trt, version / "model.onnx", read_description(version), OPTIONS)


def test_an_engine_that_was_not_built_is_a_clear_error(version, trt, tmp_path):
    trt.Builder.return_value.build_serialized_network.return_value = None
    with pytest.raises(ExportError, match="built no engine"):
        build_plan(trt, version / "model.onnx", read_description(version), OPTIONS)


def test_a_plan_that_agrees_is_published_with_its_parity_and_the_same_fingerprint(version):
    before = read_description(version)
    publish(version)
    after = read_description(version)
    assert (version / "model.plan").read_bytes() == b"plan"
    assert after.parity["tensorrt-fp16"].passed
    assert after.same_model_as(before)


def test_a_plan_that_disagrees_is_not_published(version):
    before = {path.name: path.read_bytes() for path in version.iterdir()}
    with pytest.raises(ExportError, match=r"too far .* was not published"):
        publish(version, off=0.2)
    assert {path.name: path.read_bytes() for path in version.iterdir()} == before


def test_a_plan_is_built_again_only_for_another_record(version, trt, monkeypatch):
    publish(version)
    model = read_description(version)
    built = []
    monkeypatch.setattr(triton_tensorrt, "_tensorrt", lambda: trt)
    monkeypatch.setattr(triton_tensorrt, "build_plan", lambda *_, **__: built.append(1) or b"another")
    monkeypatch.setattr(
        triton_tensorrt, "engine_runner", lambda *_: OnnxRuntimeNetwork(version, model, device="cpu").run
    )
    provide_plan(version, model, OPTIONS)
    assert built == []
    provide_plan(version, model, ServingOptions("tensorrt", max_batch_size=8).resolved())
    assert built == [1]
    assert json.loads((version / "model.plan.json").read_text())["profile"]["max"][0] == 8
    trt.__version__ = "10.14.0"
    provide_plan(version, model, ServingOptions("tensorrt", max_batch_size=8).resolved())
    assert built == [1, 1]
    provide_plan(version, model, ServingOptions("tensorrt", max_batch_size=8, tensorrt_dtype="bf16").resolved())
    assert built == [1, 1, 1]
    assert read_description(version).parity["tensorrt-bf16"].passed


def test_the_configuration_is_written_after_the_plan_and_holds_its_parity(version, trt, monkeypatch):
    publish(version)
    monkeypatch.setattr(triton_tensorrt, "_tensorrt", lambda: trt)
    trt.__version__ = "10.13.2"
    config = write_serving_files(version.parent, OPTIONS).read_text()
    assert "tensorrt-fp16" in config
    assert 'default_model_filename: "model.plan"' in config


def test_without_tensorrt_nothing_is_written_and_the_error_says_where_to_run_it(version):
    with pytest.raises(ExportError, match=r"docker/export\.Dockerfile"):
        write_serving_files(version.parent, OPTIONS)
    assert sorted(path.name for path in version.parent.iterdir()) == ["1"]
