"""Options for serving a model with Triton, and their command line."""

import argparse
from dataclasses import dataclass, replace
from typing import Literal, get_args

from export.errors import ExportError
from export.typed_graph import HALF_TYPES, HalfType

Backend = Literal["tensorrt", "onnxruntime", "openvino", "python"]
Device = Literal["gpu", "cpu"]
OutputType = Literal["fp16", "fp32"]

BACKENDS: tuple[Backend, ...] = get_args(Backend)

INSPECT_PRIORITY, FIT_PRIORITY = 1, 2
"""Triton's priority levels. The lowest number is served first."""


@dataclass(frozen=True)
class ServingOptions:
    """How Triton serves the model. `resolved` replaces None by a default for the backend and the device."""

    backend: Backend
    device: Device | None = None
    """The ``python`` backend runs OpenVINO on ``cpu`` or ONNX Runtime on ``gpu``. Each other backend has one device."""
    output: OutputType = "fp16"
    """Type of the tokens in the response. fp16 halves the bytes, and a memory bank keeps its tokens in fp16 as well."""
    max_batch_size: int | None = None
    opt_batch_size: int | None = None
    """The batch size that TensorRT's profile is tuned for, and that Triton waits for, within the delay."""
    queue_delay_us: int | None = None
    """How long a batch waits for more images."""
    instances: int = 1
    inspect_queue_size: int = 64
    inspect_timeout_ms: int = 10_000
    """Longest time in the queue. A request may ask for less, but not for more."""
    fit_queue_size: int = 256
    fit_timeout_ms: int = 120_000
    tensorrt: bool = True
    """For ``onnxruntime``: use the TensorRT execution provider, else only CUDA."""
    tensorrt_dtype: HalfType = "fp16"
    """For ``tensorrt``: the type of the products in the plan."""
    cache: str = "/var/cache/triton"
    """Folder on the host of Triton for ONNX Runtime's TensorRT engines and timings."""
    threads: int = 0
    """Threads on a CPU. 0 means one per core."""

    def resolved(self) -> "ServingOptions":
        """Return these options with all defaults filled in.

        Raises:
            ExportError: a value is out of range, or options contradict each other.
        """
        device: Device = self.device or ("cpu" if self.backend in ("openvino", "python") else "gpu")
        if self.backend == "openvino" and device != "cpu":
            raise ExportError("Triton's OpenVINO backend runs only on a CPU")
        if self.backend in ("tensorrt", "onnxruntime") and device != "gpu":
            raise ExportError(f"the {self.backend} backend needs a GPU: on a CPU use openvino or python")
        # The OpenVINO backend compiles one batch size and pads smaller batches with zeros. On a CPU, a larger batch
        # hardly saves time per image, and an inspection waits for the batch before it.
        largest, best, delay = self.max_batch_size, self.opt_batch_size, self.queue_delay_us
        if largest is None:
            largest = {"openvino": 1, "python": 8}[self.backend] if device == "cpu" else 16
        if best is None:
            best = max(1, largest // 2)
        if delay is None:
            delay = 5000 if device == "cpu" else 2000
        limits = {
            "max batch size": (largest, 1, 256),
            "opt batch size": (best, 1, largest),
            "queue delay": (delay, 0, 10**6),
            "instances": (self.instances, 1, 64),
            "queue size of inspections": (self.inspect_queue_size, 1, 10**5),
            "queue size of fits": (self.fit_queue_size, 1, 10**5),
            "timeout of inspections": (self.inspect_timeout_ms, 1, 10**7),
            "timeout of fits": (self.fit_timeout_ms, 1, 10**7),
            "threads": (self.threads, 0, 1024),
        }
        for name, (value, least, most) in limits.items():
            if not least <= value <= most:
                raise ExportError(f"{name} {value}: must be between {least} and {most}")
        return replace(self, device=device, max_batch_size=largest, opt_batch_size=best, queue_delay_us=delay)


def add_arguments(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """Add the options of serving to a command line. `options_from` reads them."""
    group = parser.add_argument_group("serving by Triton")
    group.add_argument(
        "--backend",
        choices=BACKENDS,
        required=required,
        help="write config.pbtxt and the other files that Triton needs, for this backend",
    )
    group.add_argument(
        "--device",
        choices=get_args(Device),
        help="device of the python backend: OpenVINO on cpu (default) or CUDA on gpu",
    )
    group.add_argument(
        "--output",
        choices=get_args(OutputType),
        default=ServingOptions.output,
        help="type of the tokens in a response (default: %(default)s)",
    )
    group.add_argument(
        "--max-batch-size", type=int, metavar="N", help="most images in a batch (default: depends on the backend)"
    )
    group.add_argument(
        "--opt-batch-size",
        type=int,
        metavar="N",
        help="batch size that TensorRT is tuned for (default: half of the largest)",
    )
    group.add_argument(
        "--queue-delay-us",
        type=int,
        metavar="µs",
        help="time to wait for a fuller batch (default: 2000, on a CPU 5000)",
    )
    for name, text in (
        ("instances", "copies of the network"),
        ("inspect-queue-size", "most inspections in the queue"),
        ("inspect-timeout-ms", "longest time of an inspection in the queue"),
        ("fit-queue-size", "most requests of fits in the queue"),
        ("fit-timeout-ms", "longest time of a request of a fit in the queue"),
        ("threads", "threads on a CPU; 0 means one per core"),
    ):
        default = getattr(ServingOptions, name.replace("-", "_"))
        group.add_argument(f"--{name}", type=int, default=default, metavar="N", help=f"{text} (default: %(default)s)")
    group.add_argument(
        "--no-tensorrt",
        dest="tensorrt",
        action="store_false",
        help="onnxruntime backend: use CUDA without the TensorRT execution provider",
    )
    group.add_argument(
        "--tensorrt-dtype",
        choices=HALF_TYPES,
        help="write the graph for TensorRT with products in this type, compared with f32 on this CPU; the tensorrt"
        f" backend builds its plan from it (its default: {ServingOptions.tensorrt_dtype})",
    )
    group.add_argument(
        "--cache",
        default=ServingOptions.cache,
        metavar="DIR",
        help="onnxruntime backend: folder of TensorRT engines on the host of Triton (default: %(default)s)",
    )


def options_from(parsed: argparse.Namespace) -> ServingOptions | None:
    """Return the options of serving, or None if the command line names no backend."""
    if parsed.backend is None:
        return None
    given = {name: getattr(parsed, name) for name in ServingOptions.__dataclass_fields__}
    return ServingOptions(**{name: value for name, value in given.items() if value is not None})
