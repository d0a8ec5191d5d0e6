"""NVIDIA's own parser and builder on the typed graphs, ahead of time for SM 8.9, on a machine without a GPU.

The layers of each graph, the size of its engine, and NVIDIA's warnings are printed at the end of the test run.
"""

import logging
from pathlib import Path
from typing import Any

import pytest

from export.errors import ExportError
from export.triton_options import ServingOptions
from export.triton_tensorrt import build_plan
from export.typed_files import provide_typed_graph
from export.typed_graph import HALF_TYPES, HalfType
from gateway.networks.model_description import newest_version
from gateway.networks.student_description import read_any_description
from tests.conftest import copied_version
from tests.export.tiny_model import write_version
from tests.export.tiny_student import trained_once

trt = pytest.importorskip(
    "tensorrt_rtx", reason="NVIDIA's builder is not installed: pip install -c constraints.txt -e '.[trt-rtx]'"
)


class Messages(trt.ILogger):
    """Keep the warnings and errors of TensorRT."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def log(self, severity: Any, message: str) -> None:
        if int(severity) <= int(trt.ILogger.WARNING):
            self.said.append(f"{severity.name}: {message}")


def built(version: Path, half: HalfType, caplog, record_property, name: str) -> tuple[bytes, Messages]:
    """Build an engine of a copied version, and have its figures printed."""
    graph, model = provide_typed_graph(version, read_any_description(version), half)
    messages = Messages()
    options = ServingOptions("tensorrt", output="fp16", tensorrt_dtype=half).resolved()
    with caplog.at_level(logging.INFO, "export.triton_tensorrt"):
        engine = build_plan(trt, graph, model, options, logger=messages, compute_capability=trt.ComputeCapability.SM89)
    (figures,) = [line for line in caplog.messages if line.startswith("TensorRT")]
    record_property("figures", f"{name}, SM 8.9: {figures}; warnings: {'; '.join(messages.said) or 'none'}")
    return engine, messages


@pytest.mark.parametrize("half", HALF_TYPES)
def test_tensorrt_rtx_builds_an_engine_of_the_token_model(
    small_model_repository, request, full, tmp_path, caplog, record_property, half
):
    repository = request.getfixturevalue("model_repository") if full else small_model_repository
    version = copied_version(newest_version(repository / "dinov2_vits14"), tmp_path)
    engine, messages = built(version, half, caplog, record_property, "token model" if full else "two of its blocks")
    assert not [each for each in messages.said if "ERROR" in each]
    # The engine holds the products' weights in two bytes each. In f32 they alone would take more.
    weights = (version / "model.onnx").stat().st_size
    assert weights / 2 < len(engine) < weights


@pytest.mark.parametrize("half", HALF_TYPES)
def test_tensorrt_rtx_builds_an_engine_of_the_student(tmp_path, caplog, record_property, half):
    _, trained = trained_once(14, 40)
    version = copied_version(trained, tmp_path)
    engine, messages = built(version, half, caplog, record_property, "student")
    assert not [each for each in messages.said if "ERROR" in each]
    assert engine


def test_tensorrt_rtx_names_what_it_cannot_read(tmp_path):
    model = write_version(tmp_path / "1")
    (tmp_path / "1" / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(ExportError, match=r"cannot read .*model\.onnx"):
        build_plan(trt, tmp_path / "1" / "model.onnx", model, ServingOptions("tensorrt").resolved(), logger=Messages())
