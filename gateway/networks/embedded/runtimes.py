"""Compile an exported graph in this process: OpenVINO on CPU, ONNX Runtime on CUDA. Only one call at a time."""

import hashlib
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from gateway.networks.embedded.compiled_cache import compile_graph
from gateway.networks.model_description import GRAPH_FILE, INT8_FILES, ModelDescription

Precision = Literal["f32", "bf16", "int8"]

# y = x, in ONNX: float32 [1], opset 18. It shows whether a device computes, before there is a model.
_IDENTITY = (
    b'\x08\x08:7\n\x10\n\x01x\x12\x01y"\x08Identity\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01'
    b"b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\x12"
)


class CudaUnavailableError(RuntimeError):
    """ONNX Runtime cannot compute on CUDA here. The message says why and names the remedy."""


class Network(Protocol):
    """A compiled graph."""

    @property
    def runtime(self) -> str:
        """Runtime and precision, as `ModelDescription.parity` names them."""

    @property
    def device(self) -> str:
        """``cuda`` or ``cpu``."""

    @property
    def largest_batch(self) -> int:
        """Largest batch that callers pass to `run`, so that an inspection does not wait long for a fit."""

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Compute tokens: uint8 [B, S, S, 3] RGB -> float32 [B, N, D], for any B of at least 1.

        Raises:
            RuntimeError: the runtime failed, or a value is not finite.
        """


def _verified(graph: Path | bytes, model: ModelDescription) -> list[bytes]:
    """Return the ONNX graph, or both files of a graph in int8. Files must be those that the description names."""
    if isinstance(graph, bytes):
        return [graph]
    names = INT8_FILES if model.precision == "int8" else (GRAPH_FILE,)
    paths = [graph / name for name in names] if graph.is_dir() else [graph]
    digest = hashlib.sha256()
    found = []
    for path in paths:
        try:
            found.append(path.read_bytes())
        except OSError as error:
            raise RuntimeError(f"{path}: {error.strerror}; export the model again") from error
        digest.update(found[-1])
    if digest.hexdigest() != model.graph_sha256:
        raise RuntimeError(
            f"{' or '.join(map(str, paths))} is damaged or belongs to another model: the checksum differs from that in"
            " the description. Copy the version folder again, or export the model again"
        )
    return found


def require_finite(tokens: NDArray[np.float32]) -> None:
    """Check the output of a network.

    Raises:
        RuntimeError: a value is NaN or infinite.
    """
    if not np.isfinite(tokens).all():
        raise RuntimeError("the network returned values that are not finite")


def supports_bf16() -> bool:
    """Tell whether OpenVINO runs bf16 on this processor (AMX or AVX-512-bf16)."""
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def network_bytes(model: ModelDescription, graph_bytes: int) -> int:
    """Estimate the memory of a compiled network, without compiling it.

    Measured for student-teacher networks in f32: 60 MB for a graph of 21 MB, 204 MB for one of 85 MB, and 3.5 MB more
    for an image of 256 instead of 128 pixels. bf16 takes a fifth less. The estimate is up to a tenth higher.

    Args:
        model: the description of the graph.
        graph_bytes: size of the ONNX file.
    """
    return round(2.4 * graph_bytes) + 12 * 2**20 + 96 * model.input_size**2


class OpenVinoNetwork:
    """OpenVINO on CPU with static shapes, one image at a time.

    The constructor compiles the graph, and `run` compiles nothing. A second graph for batches of 4 images does not save
    time per image (2 % in bf16, 1 % in f32 on 2 cores), takes 250 MB, and makes inspections wait for 4 images of a fit.
    """

    device = "cpu"
    largest_batch = 1

    def __init__(
        self,
        graph: Path | bytes,
        description: ModelDescription,
        *,
        precision: Precision,
        threads: int = 0,
        cache_dir: Path | None = None,
    ) -> None:
        """Read and compile the graph.

        Args:
            graph: the ONNX file, a version folder that holds it, or its bytes.
            description: of the graph.
            precision: of the matrix products; the types of input and output stay. int8 is that of the graph, which must
                be one in int8; the rest of it is computed in bf16 where the processor has it.
            threads: 0 leaves the choice to OpenVINO.
            cache_dir: folder of compiled graphs, which makes the next start faster.

        Raises:
            RuntimeError: the graph is missing, damaged or of another model, or OpenVINO cannot compile it.
        """
        import openvino

        core = openvino.Core()
        around_int8 = "bf16" if supports_bf16() else "f32"
        options: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": around_int8 if precision == "int8" else precision,
            "PERFORMANCE_HINT": "LATENCY",
        }
        if threads:
            options["INFERENCE_NUM_THREADS"] = threads
        self._model = description
        self.runtime = f"openvino-{precision}"
        read = core.read_model(*_verified(graph, description))
        read.reshape({description.input_name: [1, description.input_size, description.input_size, 3]})
        folder = None if cache_dir is None else cache_dir / f"{description.graph_sha256[:16]}-{precision}"
        self._request = compile_graph(core, read, options, folder).create_infer_request()

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `Network.run`."""
        images = np.ascontiguousarray(images)
        tokens = np.empty((len(images), self._model.n_tokens, self._model.dim), np.float32)
        for i in range(len(images)):
            self._request.infer({0: images[i : i + 1]}, share_inputs=True)
            tokens[i] = self._request.get_output_tensor(0).data[0]
        require_finite(tokens)
        return tokens


def require_cuda() -> None:
    """Compute on CUDA once, with ONNX Runtime.

    Raises:
        CudaUnavailableError: this build of ONNX Runtime has no CUDA, or it or the driver cannot use it.
    """
    session = _session(_IDENTITY, "cuda")
    try:
        session.run(None, {"x": np.zeros(1, np.float32)})
    except Exception as error:
        raise CudaUnavailableError(f"ONNX Runtime cannot compute on CUDA: {error}") from error


def _session(graph: bytes, device: Literal["cpu", "cuda"]) -> Any:
    """Open a session that computes on `device`. ONNX Runtime would take the CPU in silence where CUDA fails."""
    import onnxruntime

    if device == "cpu":
        return onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    provider = "CUDAExecutionProvider"
    if provider not in onnxruntime.get_available_providers():
        raise CudaUnavailableError(
            f"this ONNX Runtime has no {provider}: install the gpu extra, or set GATEWAY_DEVICE=cpu"
        )
    onnxruntime.preload_dlls()  # CUDA and cuDNN of NVIDIA's wheels, which the system does not search
    session = onnxruntime.InferenceSession(graph, providers=[provider])
    if provider not in session.get_providers():
        raise CudaUnavailableError(
            f"ONNX Runtime cannot start {provider} on this machine, see its message above: install a driver for CUDA 12"
            " and the gpu extra, or set GATEWAY_DEVICE=cpu"
        )
    return session


class OnnxRuntimeNetwork:
    """ONNX Runtime in fp32: on CUDA for serving, on CPU as the reference for the other runtimes."""

    largest_batch = 16

    def __init__(self, graph: Path | bytes, description: ModelDescription, *, device: Literal["cpu", "cuda"]) -> None:
        """Open a session.

        Raises:
            CudaUnavailableError: this build of ONNX Runtime or this machine has no CUDA.
            RuntimeError: the graph is missing, damaged or of another model.
        """
        (data,) = _verified(graph, description)
        self._session = _session(data, device)
        self._model = description
        self.device = device
        self.runtime = f"onnxruntime-{device}-f32"

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `Network.run`."""
        (found,) = self._session.run([self._model.output_name], {self._model.input_name: images})
        tokens = np.asarray(found, np.float32)
        require_finite(tokens)
        return tokens
