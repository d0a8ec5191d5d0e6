"""Triton's Python backend: the exported graph on OpenVINO (CPU) or ONNX Runtime (CUDA), one execution per batch.

`export.triton_config` copies this file into the folder of a version as ``model.py``. Triton's Python must be able to
import ``gateway`` (this project, without its dependencies), ``numpy``, ``pydantic``, and ``openvino`` or
``onnxruntime-gpu``. The network is that of the gateway, so that both compute the same tokens.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

from gateway.networks.embedded.runtimes import Network, OnnxRuntimeNetwork, OpenVinoNetwork, Precision, supports_bf16
from gateway.networks.model_description import ModelDescription
from gateway.networks.student_description import StudentDescription, read_any_description


class TritonPythonModel:
    """Image uint8 [B, S, S, 3] RGB -> tokens [B, N, D] or a map [B, S, S], in the type of the configuration."""

    def initialize(self, args: dict[str, str]) -> None:
        """Compile the graph of this version.

        Args:
            args: from Triton: ``model_config`` (JSON), ``model_repository`` (the folder of the model),
                ``model_version`` and ``model_instance_kind``.

        Raises:
            TritonModelException: the configuration and the folder of the version contain different models.
        """
        config = json.loads(args["model_config"])
        version = args["model_version"]
        parameters = {key: value["string_value"] for key, value in config["parameters"].items()}
        folder = Path(args["model_repository"]) / version
        described = read_any_description(folder)
        model = described.as_tokens() if isinstance(described, StudentDescription) else described
        stated = parameters.get(f"fingerprint/{version}")
        if stated != model.fingerprint:
            raise pb_utils.TritonModelException(
                f"config.pbtxt says that version {version} is {stated}, but {folder} holds {model.fingerprint}:"
                " write it again with `python -m export.triton_config --backend python`"
            )
        self._model = model
        self._dtype = pb_utils.triton_string_to_numpy(config["output"][0]["data_type"])
        self._network = _network(folder, model, args["model_instance_kind"], int(parameters.get("threads", "0")))
        pb_utils.Logger.log_info(f"{config['name']} version {version}: {self._network.runtime}, {model.fingerprint}")

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer the requests of one batch, in their order, with one execution of the graph."""
        responses: list[Any] = [None] * len(requests)
        taken: list[tuple[int, NDArray[np.uint8]]] = []
        for i, request in enumerate(requests):
            if request.is_cancelled():
                responses[i] = _error("the client has cancelled the request", pb_utils.TritonError.CANCELLED)
                continue
            tensor = pb_utils.get_input_tensor_by_name(request, self._model.input_name)
            if tensor is None:
                responses[i] = _error(f"no input {self._model.input_name!r}", pb_utils.TritonError.INVALID_ARG)
                continue
            images = tensor.as_numpy()
            expected = (self._model.input_size, self._model.input_size, 3)
            if images.dtype != np.uint8 or images.shape[1:] != expected or not len(images):
                responses[i] = _error(
                    f"expected uint8 [B, {', '.join(map(str, expected))}], got {images.dtype} {list(images.shape)}",
                    pb_utils.TritonError.INVALID_ARG,
                )
                continue
            taken.append((i, images))
        if not taken:
            return responses
        try:
            tokens = self._network.run(np.concatenate([images for _, images in taken])).astype(self._dtype)
        except Exception as error:  # noqa: BLE001 - an error of the runtime concerns only these requests
            for i, _ in taken:
                responses[i] = _error(f"{type(error).__name__}: {error}", pb_utils.TritonError.INTERNAL)
            return responses
        start = 0
        for i, images in taken:
            own = tokens[start : start + len(images)]
            start += len(images)
            responses[i] = pb_utils.InferenceResponse([pb_utils.Tensor(self._model.output_name, own)])
        return responses


def _network(folder: Path, model: ModelDescription, kind: str, threads: int) -> Network:
    if kind == "GPU":
        return OnnxRuntimeNetwork(folder, model, device="cuda")
    checked = model.parity.get("openvino-bf16")
    precision: Precision = "bf16" if checked is not None and checked.passed and supports_bf16() else "f32"
    cache = os.environ.get("OPENVINO_CACHE_DIR")
    return OpenVinoNetwork(
        folder, model, precision=precision, threads=threads, cache_dir=Path(cache) if cache else None
    )


def _error(message: str, code: int) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))
