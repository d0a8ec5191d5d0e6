"""Build the TensorRT plan of a version. This runs in NVIDIA's TensorRT container, on the GPU that serves the plan.

A plan works on one GPU architecture with one version of TensorRT. So it is built on the serving machine, from the graph
of an existing version: ``python -m export.triton_config --backend tensorrt``. It replaces the previous plan only after
its tokens agree with those of ONNX Runtime in f32.

The precision is that of the typed graph (`typed_graph`), in TensorRT 10 and 11 alike. `build_plan` also runs with
TensorRT-RTX, which has the same interface and needs no GPU. The tests do that.
"""

import ctypes
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.errors import ExportError
from export.files import replace_file
from export.served import Description, output_shape
from export.triton_options import ServingOptions
from export.typed_files import Run, provide_typed_graph, with_parity
from gateway.networks.model_description import DESCRIPTION_FILE

PLAN_FILE = "model.plan"
RECORD_FILE = "model.plan.json"
"""Describes how the plan beside it was built."""

# In the folder of the model, so that the next build finds it, in any container.
_TIMING_CACHE = ".tensorrt-timing.cache"
_WORKSPACE_BYTES = 4 * 2**30

_logger = logging.getLogger(__name__)


def provide_plan(folder: Path, model: Description, options: ServingOptions) -> None:
    """Build the plan of a version, unless it exists for the same model, options and version of TensorRT.

    Args:
        folder: of the version. The plan, its record and, last, its parity in the description are written there.
        model: the description of the version.
        options: resolved: the batch sizes of the profile, and the type of the tokens.

    Raises:
        ExportError: TensorRT is missing, it cannot build the graph, or the tokens of the typed graph or of the plan are
            too far from those of ONNX Runtime.
    """
    trt = _tensorrt()
    graph, model = provide_typed_graph(folder, model, options.tensorrt_dtype)
    record = wanted_record(trt.__version__, model, options)
    path = folder / PLAN_FILE
    if path.is_file() and _record_of(folder) == record:
        return
    plan = build_plan(trt, graph, model, options, timing_cache=folder.parent / _TIMING_CACHE)
    publish_plan(folder, model, options, plan, record, engine_runner(trt, plan, model, options))


def wanted_record(tensorrt_version: str, model: Description, options: ServingOptions) -> dict[str, Any]:
    """Return the record of a plan for `options`. A plan with another record is built again."""
    return {
        "tensorrt": tensorrt_version,
        "fingerprint": model.fingerprint,
        "profile": {name: list(shape) for name, shape in profile(model, options).items()},
        "output": options.output,
        "dtype": options.tensorrt_dtype,
    }


def profile(model: Description, options: ServingOptions) -> dict[str, tuple[int, int, int, int]]:
    """Return the shapes ``min``, ``opt`` and ``max`` of the image batch."""
    sizes = {"min": 1, "opt": options.opt_batch_size, "max": options.max_batch_size}
    return {name: (size, model.input_size, model.input_size, 3) for name, size in sizes.items() if size is not None}


def build_plan(
    trt: Any,
    graph: Path,
    model: Description,
    options: ServingOptions,
    *,
    timing_cache: Path | None = None,
    logger: Any = None,
    compute_capability: Any = None,
) -> bytes:
    """Return the serialised engine of a typed graph: one profile, tokens in the type of `options`.

    Args:
        trt: the module ``tensorrt``, 10.x or 11.x, or ``tensorrt_rtx``.
        graph: ONNX file in the precision of the engine.
        model: its description.
        options: resolved.
        timing_cache: file that is read if it exists, and written. It makes the next build on such a GPU faster.
        logger: ``trt.ILogger``; None prints warnings and errors.
        compute_capability: ``trt.ComputeCapability`` of the GPU that the engine is for, with TensorRT-RTX; None takes
            the GPU of this machine.

    Raises:
        ExportError: TensorRT cannot read or build the graph.
    """
    logger = logger or trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(graph)):
        reasons = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise ExportError(f"TensorRT cannot read {graph}: {reasons}")
    if options.output == "fp16":
        _cast_output(network, model.output_name, trt.DataType.HALF)

    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, _WORKSPACE_BYTES)
    if compute_capability is not None:
        config.num_compute_capabilities = 1
        config.set_compute_capability(compute_capability, 0)
    shapes = profile(model, options)
    optimisation = builder.create_optimization_profile()
    optimisation.set_shape(model.input_name, shapes["min"], shapes["opt"], shapes["max"])
    config.add_optimization_profile(optimisation)
    if timing_cache is not None:
        cache = config.create_timing_cache(timing_cache.read_bytes() if timing_cache.is_file() else b"")
        # With a cache of another GPU or version, TensorRT logs that and measures again.
        config.set_timing_cache(cache, ignore_mismatch=False)

    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ExportError("TensorRT built no engine: see its messages above")
    if timing_cache is not None:
        replace_file(timing_cache, bytes(config.get_timing_cache().serialize()))
    written = bytes(plan)
    _logger.info(
        "TensorRT %s: %d layers of %s, an engine of %.1f MB",
        trt.__version__,
        network.num_layers,
        graph.name,
        len(written) / 1e6,
    )
    return written


def _cast_output(network: Any, name: str, dtype: Any) -> None:
    """Let the output `name` have another type. In a strongly typed network only a layer can change a type."""
    exact = network.get_output(0)
    network.unmark_output(exact)
    exact.name = f"{name}_exact"
    cast = network.add_cast(exact, dtype).get_output(0)
    cast.name = name
    network.mark_output(cast)


def publish_plan(
    folder: Path, model: Description, options: ServingOptions, plan: bytes, record: dict[str, Any], run: Run
) -> None:
    """Write `plan` if `run`, which runs it, gives the same tokens as ONNX Runtime.

    Raises:
        ExportError: the tokens differ too much. Nothing is written then.
    """
    batches = sorted({shape[0] for shape in profile(model, options).values()})
    described = with_parity(folder, model, f"tensorrt-{options.tensorrt_dtype}", run, batches)
    # The record is written after the plan: a plan without a record is built again.
    (folder / RECORD_FILE).unlink(missing_ok=True)
    replace_file(folder / PLAN_FILE, plan)
    replace_file(folder / RECORD_FILE, json.dumps(record, indent=2).encode() + b"\n")
    replace_file(folder / DESCRIPTION_FILE, described.model_dump_json(indent=2).encode() + b"\n")


def engine_runner(trt: Any, plan: bytes, model: Description, options: ServingOptions) -> Run:
    """Return a function that runs `plan`: images uint8 [B, S, S, 3] -> tokens float32 [B, N, D].

    Raises:
        ExportError: TensorRT cannot load the plan, or CUDA fails.
    """
    engine = trt.Runtime(trt.Logger(trt.Logger.WARNING)).deserialize_cuda_engine(plan)
    if engine is None:
        raise ExportError("TensorRT cannot load the engine that it built")
    context = engine.create_execution_context()
    dtype = np.float16 if options.output == "fp16" else np.float32

    def run(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        tokens = np.empty((len(images), *output_shape(model)), dtype)
        images = np.ascontiguousarray(images)
        with _Device(images.nbytes) as image_memory, _Device(tokens.nbytes) as token_memory:
            image_memory.fill(images)
            context.set_input_shape(model.input_name, images.shape)
            context.set_tensor_address(model.input_name, image_memory.address)
            context.set_tensor_address(model.output_name, token_memory.address)
            if not context.execute_async_v3(0):
                raise ExportError("TensorRT cannot run the engine that it built")
            token_memory.read(tokens)
        return tokens.astype(np.float32)

    return run


class _Device:
    """Memory on the GPU. It uses CUDA's runtime library directly, which saves a package for one check."""

    _TO_DEVICE, _TO_HOST = 1, 2

    def __init__(self, size: int) -> None:
        try:
            self._cuda = ctypes.CDLL("libcudart.so")
        except OSError as error:
            raise ExportError(f"CUDA's runtime library is missing: {error}") from error
        self._pointer = ctypes.c_void_p()
        self._size = size
        self._check(self._cuda.cudaMalloc(ctypes.byref(self._pointer), ctypes.c_size_t(size)))

    @property
    def address(self) -> int:
        return self._pointer.value or 0

    def fill(self, array: NDArray[Any]) -> None:
        self._copy(self._pointer, ctypes.c_void_p(array.ctypes.data), self._TO_DEVICE)

    def read(self, array: NDArray[Any]) -> None:
        """Wait for the default stream, then copy."""
        self._copy(ctypes.c_void_p(array.ctypes.data), self._pointer, self._TO_HOST)

    def __enter__(self) -> "_Device":
        return self

    def __exit__(self, *_: object) -> None:
        self._cuda.cudaFree(self._pointer)

    def _copy(self, to: ctypes.c_void_p, source: ctypes.c_void_p, kind: int) -> None:
        self._check(self._cuda.cudaMemcpy(to, source, ctypes.c_size_t(self._size), kind))

    @staticmethod
    def _check(status: int) -> None:
        if status != 0:
            raise ExportError(f"CUDA failed with status {status}")


def _record_of(folder: Path) -> Any:
    try:
        return json.loads((folder / RECORD_FILE).read_bytes())
    except (OSError, ValueError):
        return None


def _tensorrt() -> Any:
    try:
        import tensorrt
    except ImportError as error:
        raise ExportError(
            "a TensorRT plan is built on the GPU that serves it, and TensorRT is missing here: run this in the image of"
            " docker/export.Dockerfile (docker/README.md), for an exported version"
        ) from error
    return tensorrt
