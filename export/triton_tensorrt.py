"""Build the TensorRT plan of a version. This runs in NVIDIA's TensorRT container, on the GPU that serves the plan.

A plan works on one GPU architecture with one version of TensorRT. So it is built on the serving machine, from the ONNX
graph of an existing version: ``python -m export.triton_config --backend tensorrt``. It replaces the previous plan only
after its tokens agree with those of ONNX Runtime in f32.
"""

import ctypes
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.comparison import camera_images, compare
from export.errors import ExportError
from export.files import replace_file
from export.served import Description, output_shape
from export.student_teacher.comparison import compare_maps
from export.triton_options import ServingOptions
from gateway.networks.embedded.runtimes import OnnxRuntimeNetwork
from gateway.networks.model_description import DESCRIPTION_FILE, GRAPH_FILE
from gateway.networks.student_description import StudentDescription

PLAN_FILE = "model.plan"
RECORD_FILE = "model.plan.json"
"""Describes how the plan beside it was built."""
RUNTIME = "tensorrt-fp16"
# As for bf16. fp16 has three more bits of mantissa, so it has no reason to differ more.
TOLERANCE_COSINE = 0.999
TOLERANCE_MAP = 0.1

# In the folder of the model, so that the next build finds it, in any container.
_TIMING_CACHE = ".tensorrt-timing.cache"
_WORKSPACE_BYTES = 4 * 2**30

Run = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def provide_plan(folder: Path, model: Description, options: ServingOptions) -> None:
    """Build the plan of a version, unless it exists for the same model, options and version of TensorRT.

    Args:
        folder: of the version. The plan, its record and, last, its parity in the description are written there.
        model: the description of the version.
        options: resolved: the batch sizes of the profile, and the type of the tokens.

    Raises:
        ExportError: TensorRT is missing, it cannot build the graph, or the tokens of the plan are too far from those of
            ONNX Runtime.
    """
    trt = _tensorrt()
    record = wanted_record(trt.__version__, model, options)
    path = folder / PLAN_FILE
    if path.is_file() and _record_of(folder) == record:
        return
    plan = build_plan(trt, folder / GRAPH_FILE, model, options, folder.parent / _TIMING_CACHE)
    publish_plan(folder, model, options, plan, record, engine_runner(trt, plan, model, options))


def wanted_record(tensorrt_version: str, model: Description, options: ServingOptions) -> dict[str, Any]:
    """Return the record of a plan for `options`. A plan with another record is built again."""
    return {
        "tensorrt": tensorrt_version,
        "fingerprint": model.fingerprint,
        "profile": {name: list(shape) for name, shape in profile(model, options).items()},
        "output": options.output,
    }


def profile(model: Description, options: ServingOptions) -> dict[str, tuple[int, int, int, int]]:
    """Return the shapes ``min``, ``opt`` and ``max`` of the image batch."""
    sizes = {"min": 1, "opt": options.opt_batch_size, "max": options.max_batch_size}
    return {name: (size, model.input_size, model.input_size, 3) for name, size in sizes.items() if size is not None}


def build_plan(trt: Any, graph: Path, model: Description, options: ServingOptions, timing_cache: Path) -> bytes:
    """Return the serialised engine of an ONNX file: fp16, one profile, tokens in the type of `options`.

    Args:
        trt: the module ``tensorrt``, 10.x.
        graph: ONNX file.
        model: its description.
        options: resolved.
        timing_cache: file that is read if it exists, and written. It makes the next build on such a GPU faster.

    Raises:
        ExportError: TensorRT cannot read or build the graph.
    """
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(graph)):
        reasons = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise ExportError(f"TensorRT cannot read {graph}: {reasons}")
    network.get_output(0).dtype = trt.DataType.HALF if options.output == "fp16" else trt.DataType.FLOAT

    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, _WORKSPACE_BYTES)
    config.set_flag(trt.BuilderFlag.FP16)
    shapes = profile(model, options)
    optimisation = builder.create_optimization_profile()
    optimisation.set_shape(model.input_name, shapes["min"], shapes["opt"], shapes["max"])
    config.add_optimization_profile(optimisation)
    cache = config.create_timing_cache(timing_cache.read_bytes() if timing_cache.is_file() else b"")
    # With a cache of another GPU or version, TensorRT logs that and measures again.
    config.set_timing_cache(cache, ignore_mismatch=False)

    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ExportError("TensorRT built no engine: see its messages above")
    replace_file(timing_cache, bytes(config.get_timing_cache().serialize()))
    return bytes(plan)


def publish_plan(
    folder: Path, model: Description, options: ServingOptions, plan: bytes, record: dict[str, Any], run: Run
) -> None:
    """Write `plan` if `run`, which runs it, gives the same tokens as ONNX Runtime.

    Raises:
        ExportError: the tokens differ too much. Nothing is written then.
    """
    shapes = profile(model, options)
    batches = sorted({shape[0] for shape in shapes.values()})
    images = np.split(camera_images(sum(batches), model.input_size), np.cumsum(batches)[:-1])
    graph = model.as_tokens() if isinstance(model, StudentDescription) else model
    reference = OnnxRuntimeNetwork(folder, graph, device="cpu")
    expected = np.concatenate([reference.run(image[None]) for batch in images for image in batch])
    given = np.concatenate([run(batch) for batch in images])
    described: Description
    if isinstance(model, StudentDescription):
        map_parity = compare_maps(given, expected, TOLERANCE_MAP)
        passed, wrong = (
            map_parity.passed,
            f"largest error {map_parity.max_error:.3g}, allowed {TOLERANCE_MAP}",
        )
        described = model.model_copy(update={"parity": {**model.parity, RUNTIME: map_parity}})
    else:
        parity = compare(given, expected, TOLERANCE_COSINE)
        passed, wrong = parity.passed, f"lowest cosine {parity.min_cosine:.6f}, required {TOLERANCE_COSINE}"
        described = model.model_copy(update={"parity": {**model.parity, RUNTIME: parity}})
    if not passed:
        raise ExportError(
            f"the output of the plan is too far from that of ONNX Runtime in f32: {wrong}. It was not published."
            " Serve this model with --backend onnxruntime"
        )
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
