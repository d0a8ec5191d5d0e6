"""The model of the Python backend without a server: a stand-in replaces Triton's utilities."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from export.triton_config import write_serving_files
from export.triton_options import ServingOptions
from tests.export.tiny_model import SIZE, write_version

CANCELLED, INVALID_ARG, INTERNAL = 1, 2, 3


class FakeUtils(ModuleType):
    TritonModelException = type("TritonModelException", (Exception,), {})
    Logger = SimpleNamespace(log_info=lambda message: None)

    class TritonError(Exception):
        CANCELLED, INVALID_ARG, INTERNAL = CANCELLED, INVALID_ARG, INTERNAL

        def __init__(self, message, code):
            super().__init__(message)
            self.message, self.code = message, code

    class Tensor:
        def __init__(self, name, array):
            self.name, self.array = name, array

        def as_numpy(self):
            return self.array

    class InferenceResponse:
        def __init__(self, output_tensors=(), error=None):
            self.tensors, self.error = output_tensors, error

    @staticmethod
    def triton_string_to_numpy(name):
        return {"TYPE_FP16": np.float16, "TYPE_FP32": np.float32}[name]

    @staticmethod
    def get_input_tensor_by_name(request, name):
        return request.tensors.get(name)


class Request:
    def __init__(self, images=None, *, cancelled=False):
        self.tensors = {} if images is None else {"image": FakeUtils.Tensor("image", images)}
        self.cancelled = cancelled

    def is_cancelled(self):
        return self.cancelled


@pytest.fixture
def version(tmp_path: Path) -> Path:
    folder = tmp_path / "dinov2_vits14" / "1"
    write_version(folder)
    return folder


@pytest.fixture
def load(version: Path, monkeypatch: pytest.MonkeyPatch):
    """Load the model as Triton's stub does: from the folder of the version, with the configuration as JSON."""
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", FakeUtils("triton_python_backend_utils"))

    def loaded(options=ServingOptions("python"), **parameters):  # noqa: B008 - frozen
        config = write_serving_files(version.parent, options)
        spec = importlib.util.spec_from_file_location("model", version / "model.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        stated = {"fingerprint/1": json.loads((version / "model.json").read_text())["fingerprint"], **parameters}
        model = module.TritonPythonModel()
        model.initialize(
            {
                "model_config": json.dumps(
                    {
                        "name": "dinov2_vits14",
                        "output": [{"data_type": "TYPE_FP16" if "TYPE_FP16" in config.read_text() else "TYPE_FP32"}],
                        "parameters": {key: {"string_value": value} for key, value in stated.items()},
                    }
                ),
                "model_repository": str(version.parent),
                "model_version": "1",
                "model_instance_kind": "CPU",
            }
        )
        return model

    return loaded


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)


def tokens(response) -> np.ndarray:
    assert response.error is None, response.error
    (tensor,) = response.tensors
    assert tensor.name == "tokens"
    return tensor.array


def counted(model) -> list[int]:
    """Record the batch sizes of the network from now on."""
    asked = []
    run = model._network.run

    def counting(batch):
        asked.append(len(batch))
        return run(batch)

    model._network = SimpleNamespace(run=counting)
    return asked


def test_a_batch_is_one_execution_and_each_request_gets_its_own(load):
    model = load()
    alone = [tokens(model.execute([Request(images(count, count))])[0]) for count in (1, 3, 2)]
    asked = counted(model)
    together = model.execute([Request(images(count, count)) for count in (1, 3, 2)])
    assert asked == [6]
    for response, expected in zip(together, alone, strict=True):
        np.testing.assert_array_equal(tokens(response), expected)
        assert tokens(response).dtype == np.float16


def test_tokens_are_fp32_where_the_configuration_says_so(load):
    assert tokens(load(ServingOptions("python", output="fp32")).execute([Request(images(1))])[0]).dtype == np.float32


def test_a_cancelled_request_is_not_run_and_does_not_affect_others(load):
    model = load()
    asked = counted(model)
    responses = model.execute([Request(images(2)), Request(images(3), cancelled=True), Request(images(1))])
    assert asked == [3]
    assert responses[1].error.code == CANCELLED
    assert [len(tokens(responses[i])) for i in (0, 2)] == [2, 1]


def test_a_batch_of_cancelled_requests_is_not_run(load):
    model = load()
    asked = counted(model)
    (response,) = model.execute([Request(images(1), cancelled=True)])
    assert (asked, response.error.code) == ([], CANCELLED)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((1, SIZE, SIZE + 14, 3), np.uint8),
        np.zeros((1, SIZE, SIZE, 3), np.float32),
        np.zeros((0, SIZE, SIZE, 3), np.uint8),
        None,
    ],
    ids=["shape", "type", "empty", "absent"],
)
def test_a_wrong_input_fails_alone(load, wrong):
    right, error = load().execute([Request(images(1)), Request(wrong)])
    assert error.error.code == INVALID_ARG
    assert "image" in error.error.message or "uint8" in error.error.message
    assert len(tokens(right)) == 1


def test_an_error_of_the_runtime_is_answered_and_the_model_continues(load):
    model = load()
    run = model._network.run

    def failing(batch):
        raise RuntimeError("out of memory")

    model._network = SimpleNamespace(run=failing)
    responses = model.execute([Request(images(1)), Request(images(1), cancelled=True)])
    assert responses[0].error.code == INTERNAL
    assert "out of memory" in responses[0].error.message
    assert responses[1].error.code == CANCELLED
    model._network = SimpleNamespace(run=run)
    assert len(tokens(model.execute([Request(images(1))])[0])) == 1


def test_a_version_that_differs_from_the_configuration_is_not_loaded(load):
    with pytest.raises(FakeUtils.TritonModelException, match=r"config\.pbtxt says that version 1 is ffff"):
        load(**{"fingerprint/1": "ffff"})
