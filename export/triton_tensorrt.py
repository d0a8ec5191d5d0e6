"""Builds the TensorRT plan of a version; runs in NVIDIA's TensorRT container, on the GPU that is to serve it.

A plan belongs to one GPU architecture and one version of TensorRT, so it is built where it is used, from the ONNX graph
of a version that is there already: ``python -m export.triton_config --backend tensorrt``. It takes the place of the one
before only after its tokens were compared with those of ONNX Runtime in f32.
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
"""What the plan beside it was built for and with."""
RUNTIME = "tensorrt-fp16"
# As for bf16: fp16 has three bits of mantissa more, and no excuse to be further off.
TOLERANCE_COSINE = 0.999
TOLERANCE_MAP = 0.1

# In the model's folder: it is there again at the next build, whichever container that runs in.
_TIMING_CACHE = ".tensorrt-timing.cache"
_WORKSPACE_BYTES = 4 * 2**30

Run = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def provide_plan(folder: Path, model: Description, options: ServingOptions) -> None:
    """Build the plan of the version in `folder` where it is not there or was built for something else.

    Args:
        folder: the version's; the plan, its record and, last, its parity in the description are written there.
        model: the version's description.
        options: resolved ones: the profile's batch sizes and the type of the tokens.

    Raises:
        ExportError: TensorRT is not here, it cannot build the graph, or the plan's tokens are too far from ONNX's.
    """
    trt = _tensorrt()
    record = wanted_record(trt.__version__, model, options)
    path = folder / PLAN_FILE
    if path.is_file() and _record_of(folder) == record:
        return
    plan = build_plan(trt, folder / GRAPH_FILE, model, options, folder.parent / _TIMING_CACHE)
    publish_plan(folder, model, options, plan, record, engine_runner(trt, plan, model, options))


def wanted_record(tensorrt_version: str, model: Description, options: ServingOptions) -> dict[str, Any]:
    """What a plan for `options` is built for and with; another record asks for another plan."""
    return {
        "tensorrt": tensorrt_version,
        "fingerprint": model.fingerprint,
        "profile": {name: list(shape) for name, shape in profile(model, options).items()},
        "output": options.output,
    }


def profile(model: Description, options: ServingOptions) -> dict[str, tuple[int, int, int, int]]:
    """The shapes ``min``, ``opt`` and ``max`` of the image batch."""
    sizes = {"min": 1, "opt": options.opt_batch_size, "max": options.max_batch_size}
    return {name: (size, model.input_size, model.input_size, 3) for name, size in sizes.items() if size is not None}


def build_plan(trt: Any, graph: Path, model: Description, options: ServingOptions, timing_cache: Path) -> bytes:
    """Serialised engine of the ONNX file `graph`: fp16, one profile, tokens in the type that `options` say.

    Args:
        trt: the module ``tensorrt``, 10.x.
        graph: ONNX file.
        model: its description.
        options: resolved ones.
        timing_cache: read where it is there, and written: the next build on such a GPU is quicker for it.

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
    # A cache of another GPU or version is of no use: TensorRT then says so and times anew.
    config.set_timing_cache(cache, ignore_mismatch=False)

    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ExportError("TensorRT built no engine: its messages above say why")
    replace_file(timing_cache, bytes(config.get_timing_cache().serialize()))
    return bytes(plan)


def publish_plan(
    folder: Path, model: Description, options: ServingOptions, plan: bytes, record: dict[str, Any], run: Run
) -> None:
    """Put `plan` in its place once `run`, which runs it, gives the tokens that ONNX Runtime gives.

    Raises:
        ExportError: it does not; nothing is written then.
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
        passed, wrong = parity.passed, f"lowest cosine {parity.min_cosine:.6f}, needed {TOLERANCE_COSINE}"
        described = model.model_copy(update={"parity": {**model.parity, RUNTIME: parity}})
    if not passed:
        raise ExportError(
            f"the plan's output is too far from that of ONNX Runtime in f32: {wrong}. It was not published; serve this"
            " model with --backend onnxruntime"
        )
    # The record last of the two: a plan without it is built again.
    (folder / RECORD_FILE).unlink(missing_ok=True)
    replace_file(folder / PLAN_FILE, plan)
    replace_file(folder / RECORD_FILE, json.dumps(record, indent=2).encode() + b"\n")
    replace_file(folder / DESCRIPTION_FILE, described.model_dump_json(indent=2).encode() + b"\n")


def engine_runner(trt: Any, plan: bytes, model: Description, options: ServingOptions) -> Run:
    """A function that runs `plan`: images uint8 [B, S, S, 3] -> tokens float32 [B, N, D].

    Raises:
        ExportError: TensorRT cannot load the plan, or CUDA fails.
    """
    engine = trt.Runtime(trt.Logger(trt.Logger.WARNING)).deserialize_cuda_engine(plan)
    if engine is None:
        raise ExportError("TensorRT cannot load the engine that it has built")
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
                raise ExportError("TensorRT could not run the engine that it has built")
            token_memory.read(tokens)
        return tokens.astype(np.float32)

    return run


class _Device:
    """Memory on the GPU, through CUDA's runtime library alone: one plan's check is worth no further package."""

    _TO_DEVICE, _TO_HOST = 1, 2

    def __init__(self, size: int) -> None:
        try:
            self._cuda = ctypes.CDLL("libcudart.so")
        except OSError as error:
            raise ExportError(f"CUDA's runtime is not here: {error}") from error
        self._pointer = ctypes.c_void_p()
        self._size = size
        self._check(self._cuda.cudaMalloc(ctypes.byref(self._pointer), ctypes.c_size_t(size)))

    @property
    def address(self) -> int:
        return self._pointer.value or 0

    def fill(self, array: NDArray[Any]) -> None:
        self._copy(self._pointer, ctypes.c_void_p(array.ctypes.data), self._TO_DEVICE)

    def read(self, array: NDArray[Any]) -> None:
        """Wait for what the default stream is doing, then copy."""
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
            "a TensorRT plan is built on the GPU that it is for, and TensorRT is not here: run this in the image of"
            " docker/export.Dockerfile (docker/README.md), for a version that is exported already"
        ) from error
    return tensorrt
