"""A graph on an RTX GPU with NVIDIA's TensorRT-RTX, for ``GATEWAY_RUNTIME=tensorrt-rtx``.

An engine is built without the GPU, and serves any RTX GPU from Ampere on. It is compiled for the GPU at its first run,
and the runtime cache keeps the result. Building is tested; no GPU has run an engine yet.
"""

import hashlib
import logging
import weakref
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.networks.embedded.runtimes import CudaUnavailableError, require_finite
from gateway.networks.model_description import ModelDescription, typed_graph_file
from gateway.store.atomic import replace_file

log = logging.getLogger(__name__)

_HALVES = ("fp16", "bf16")
_EXTRA = "install the trt-rtx extra, or leave GATEWAY_RUNTIME out"


def require_tensorrt_rtx() -> None:
    """Check that TensorRT-RTX is installed and CUDA has a GPU.

    Raises:
        CudaUnavailableError: it says what is missing, and the remedy.
    """
    try:
        import tensorrt_rtx  # noqa: F401
        from cuda.bindings import runtime as cuda
    except ImportError as error:
        raise CudaUnavailableError(f"TensorRT-RTX is not installed ({error}): {_EXTRA}") from error
    status, count = cuda.cudaGetDeviceCount()
    if int(status) != 0 or count == 0:
        reason = cuda.cudaGetErrorString(status)[1].decode() if int(status) != 0 else "no GPU"
        raise CudaUnavailableError(
            f"CUDA finds no GPU here: {reason}. Install a driver for CUDA 13, or leave GATEWAY_RUNTIME out"
        )


def build_engine(graph: bytes, model: ModelDescription, *, largest_batch: int, compute_capability: Any = None) -> bytes:
    """Build the engine of a graph. This needs no GPU.

    Args:
        graph: ONNX, in the precision of the engine.
        model: its description.
        largest_batch: of images. The engine takes batches from one image on.
        compute_capability: ``tensorrt_rtx.ComputeCapability`` of the only GPUs that it is for; None: Ampere and later.

    Raises:
        RuntimeError: TensorRT-RTX cannot read or build the graph.
    """
    import tensorrt_rtx as trt

    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(graph):
        reasons = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise RuntimeError(f"TensorRT-RTX cannot read the graph: {reasons}")
    config = builder.create_builder_config()
    if compute_capability is not None:
        config.num_compute_capabilities = 1
        config.set_compute_capability(compute_capability, 0)
    image = (model.input_size, model.input_size, 3)
    profile = builder.create_optimization_profile()
    profile.set_shape(model.input_name, (1, *image), (1, *image), (largest_batch, *image))
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise RuntimeError("TensorRT-RTX built no engine: see its messages above")
    return bytes(engine)


def graph_for_tensorrt(graph: Path | bytes, model: ModelDescription) -> tuple[bytes, str]:
    """Return the graph that TensorRT-RTX builds, and the type of its products.

    Args:
        graph: version folder with typed graphs; or the bytes of a graph in f32, such as that of a student.
        model: its description.

    Raises:
        RuntimeError: the version has no typed graph, or the graph is damaged.
    """
    if isinstance(graph, bytes):
        return graph, "f32"
    for half in _HALVES:
        if half not in model.typed_graphs:
            continue
        path = graph / typed_graph_file(half)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise RuntimeError(f"{path}: {error.strerror}; export the model again") from error
        if hashlib.sha256(data).hexdigest() != model.typed_graphs[half]:
            raise RuntimeError(f"{path} is damaged: the checksum differs from that in the description")
        return data, half
    raise RuntimeError(f"{graph} has no graph for TensorRT: `python -m export --tensorrt-dtype fp16`")


class TensorRtRtxNetwork:
    """TensorRT-RTX on CUDA's first GPU."""

    device = "cuda"
    largest_batch = 16

    def __init__(self, graph: Path | bytes, description: ModelDescription, *, cache_dir: Path) -> None:
        """Build the engine or take it from the cache, and compile it for this GPU.

        Args:
            graph: version folder with typed graphs, or the bytes of a graph in f32.
            description: of the graph.
            cache_dir: folder of engines and of compiled kernels.

        Raises:
            CudaUnavailableError: TensorRT-RTX or a GPU is missing.
            RuntimeError: the graph is missing, damaged, or cannot be built or loaded.
        """
        require_tensorrt_rtx()
        import tensorrt_rtx as trt
        from cuda.bindings import runtime as cuda

        data, dtype = graph_for_tensorrt(graph, description)
        self.runtime = f"tensorrt-rtx-{dtype}"
        self._model = description
        self._cuda = cuda
        kept = cache_dir / f"{hashlib.sha256(data).hexdigest()[:16]}-{self.largest_batch}-{trt.__version__}"
        plan = read_kept(kept.with_name(f"{kept.name}.engine"))
        if plan is None:
            plan = build_engine(data, description, largest_batch=self.largest_batch)
            keep(kept.with_name(f"{kept.name}.engine"), plan)
        # An execution context uses its engine, and an engine its runtime.
        self._runtime = trt.Runtime(trt.Logger(trt.Logger.WARNING))
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise RuntimeError("TensorRT-RTX cannot load the engine on this GPU: see its messages above")
        config = self._engine.create_runtime_config()
        cache = config.create_runtime_cache()
        known = read_kept(kept.with_name(f"{kept.name}.cache"))
        is_known = known is not None and cache.deserialize(known)  # not that of another GPU or driver
        config.set_runtime_cache(cache)
        self._context = self._engine.create_execution_context(config)

        size = description.input_size
        self._stream = _value(cuda.cudaStreamCreate())
        memory: list[Any] = []
        weakref.finalize(self, _free, cuda, self._stream, memory)  # also where the second one finds no memory
        for n_bytes in (size * size * 3, description.n_tokens * description.dim * 4):
            memory.append(_value(cuda.cudaMalloc(self.largest_batch * n_bytes)))
        self._images, self._tokens = memory
        if not is_known:
            for batch in (1, self.largest_batch):
                self.run(np.zeros((batch, size, size, 3), np.uint8))
            keep(kept.with_name(f"{kept.name}.cache"), bytes(cache.serialize()))

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `Network.run`."""
        images = np.ascontiguousarray(images)
        tokens = np.empty((len(images), self._model.n_tokens, self._model.dim), np.float32)
        for start in range(0, len(images), self.largest_batch):
            self._run(images[start : start + self.largest_batch], tokens[start : start + self.largest_batch])
        require_finite(tokens)
        return tokens

    def _run(self, images: NDArray[np.uint8], tokens: NDArray[np.float32]) -> None:
        cuda, context, model = self._cuda, self._context, self._model
        context.set_input_shape(model.input_name, images.shape)
        context.set_tensor_address(model.input_name, self._images)
        context.set_tensor_address(model.output_name, self._tokens)
        to_device, to_host = cuda.cudaMemcpyKind.cudaMemcpyHostToDevice, cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        _value(cuda.cudaMemcpyAsync(self._images, images.ctypes.data, images.nbytes, to_device, self._stream))
        if not context.execute_async_v3(int(self._stream)):
            raise RuntimeError("TensorRT-RTX cannot run the engine: see its messages above")
        _value(cuda.cudaMemcpyAsync(tokens.ctypes.data, self._tokens, tokens.nbytes, to_host, self._stream))
        _value(cuda.cudaStreamSynchronize(self._stream))


def read_kept(path: Path) -> bytes | None:
    """Return what `keep` wrote; None where there is none, or it is damaged."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    return data[32:] if hashlib.sha256(data[32:]).digest() == data[:32] else None


def keep(path: Path, data: bytes) -> None:
    """Write a file behind its checksum. A folder that cannot be written is logged."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, hashlib.sha256(data).digest() + data)
    except OSError as error:
        log.warning("%s cannot be written, so each start builds again: %s", path, error)


def _value(answer: tuple[Any, ...]) -> Any:
    """Return the value in an answer of CUDA.

    Raises:
        RuntimeError: CUDA failed.
    """
    status, *values = answer
    if int(status) != 0:
        raise RuntimeError(f"CUDA failed: {status.name}")
    return values[0] if values else None


def _free(cuda: Any, stream: Any, memory: list[Any]) -> None:
    for each in memory:
        cuda.cudaFree(each)
    cuda.cudaStreamDestroy(stream)
