"""Compile an exported graph in this process: OpenVINO on CPU, ONNX Runtime on CUDA. Only one call at a time."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from gateway.networks.model_description import GRAPH_FILE, ModelDescription

Precision = Literal["f32", "bf16"]


class Network(Protocol):
    """A compiled graph."""

    @property
    def runtime(self) -> str:
        """Runtime and precision, as `ModelDescription.parity` names them."""

    @property
    def device(self) -> str:
        """``cuda`` or ``cpu``."""

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Preferred batch sizes, largest first. They include 1."""

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Compute tokens: uint8 [B, S, S, 3] RGB -> float32 [B, N, D], for any B of at least 1."""


def _of_folder(graph: Path | bytes) -> Path | bytes:
    return graph / GRAPH_FILE if isinstance(graph, Path) and graph.is_dir() else graph


def supports_bf16() -> bool:
    """Tell whether OpenVINO runs bf16 on this processor (AMX or AVX-512-bf16)."""
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class OpenVinoNetwork:
    """OpenVINO on CPU with static shapes: one compiled graph per batch size, compiled when first needed."""

    device = "cpu"

    def __init__(
        self,
        graph: Path | bytes,
        description: ModelDescription,
        *,
        precision: Precision,
        threads: int = 0,
        cache_dir: Path | None = None,
        batch_sizes: Sequence[int] = (4, 1),
    ) -> None:
        """Read and compile the graph.

        Args:
            graph: the ONNX file, a version folder that holds it, or its bytes.
            description: of the graph.
            precision: of the matrix products; the types of input and output stay.
            threads: 0 leaves the choice to OpenVINO.
            cache_dir: folder of compiled graphs, which makes the next start faster.
            batch_sizes: sizes that batches are split into.
        """
        import openvino

        self._core = openvino.Core()
        options: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": precision,
            "PERFORMANCE_HINT": "LATENCY",
        }
        if threads:
            options["INFERENCE_NUM_THREADS"] = threads
        if cache_dir is not None:
            options["CACHE_DIR"] = str(cache_dir)
        self._options = options
        self._graph = _of_folder(graph)
        self._model = description
        self.batch_sizes: tuple[int, ...] = tuple(sorted({*batch_sizes, 1}, reverse=True))
        self.runtime = f"openvino-{precision}"
        self._requests: dict[int, Any] = {}
        self._request(1)

    def _request(self, batch: int) -> Any:
        if batch not in self._requests:
            size = self._model.input_size
            graph = self._core.read_model(self._graph)
            graph.reshape({self._model.input_name: [batch, size, size, 3]})
            self._requests[batch] = self._core.compile_model(graph, "CPU", self._options).create_infer_request()
        return self._requests[batch]

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `Network.run`."""
        images = np.ascontiguousarray(images)
        tokens = np.empty((len(images), self._model.n_tokens, self._model.dim), np.float32)
        start = 0
        while start < len(images):
            batch = next(b for b in self.batch_sizes if b <= len(images) - start)
            request = self._request(batch)
            request.infer({0: images[start : start + batch]}, share_inputs=True)
            tokens[start : start + batch] = request.get_output_tensor(0).data
            start += batch
        return tokens


class OnnxRuntimeNetwork:
    """ONNX Runtime in fp32: on CUDA for serving, on CPU as the reference for the other runtimes."""

    batch_sizes: tuple[int, ...] = (16, 8, 4, 2, 1)

    def __init__(self, graph: Path | bytes, description: ModelDescription, *, device: Literal["cpu", "cuda"]) -> None:
        """Open a session.

        Raises:
            RuntimeError: this build of ONNX Runtime or this machine cannot run on `device`.
        """
        import onnxruntime

        provider = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}[device]
        if provider not in onnxruntime.get_available_providers():
            raise RuntimeError(f"this ONNX Runtime has no {provider}: install the gpu extra")
        self._session = onnxruntime.InferenceSession(_of_folder(graph), providers=[provider])
        if provider not in self._session.get_providers():
            raise RuntimeError(f"ONNX Runtime could not start {provider} on this machine")
        self._model = description
        self.device = device
        self.runtime = f"onnxruntime-{device}-f32"

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `Network.run`."""
        (tokens,) = self._session.run([self._model.output_name], {self._model.input_name: images})
        return np.asarray(tokens, np.float32)
