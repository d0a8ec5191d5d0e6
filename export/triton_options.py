"""How Triton is to serve the model, and the command line for it."""

import argparse
from dataclasses import dataclass, replace
from typing import Literal, get_args

from export.errors import ExportError

Backend = Literal["tensorrt", "onnxruntime", "openvino", "python"]
Device = Literal["gpu", "cpu"]
OutputType = Literal["fp16", "fp32"]

BACKENDS: tuple[Backend, ...] = get_args(Backend)

INSPECT_PRIORITY, FIT_PRIORITY = 1, 2
"""Triton's levels, the lower the sooner."""


@dataclass(frozen=True)
class ServingOptions:
    """How Triton serves the model. What is None depends on backend and device, see `resolved`."""

    backend: Backend
    device: Device | None = None
    """``python``: OpenVINO on ``cpu`` or ONNX Runtime on ``gpu``; of the others, each has one alone."""
    output: OutputType = "fp16"
    """Of the tokens on the wire. fp16 is half the bytes, and a memory bank keeps its tokens in fp16 as well."""
    max_batch_size: int | None = None
    opt_batch_size: int | None = None
    """The batch that TensorRT's profile is tuned for, and that is waited for, within the delay."""
    queue_delay_us: int | None = None
    """How long a batch waits for more."""
    instances: int = 1
    inspect_queue_size: int = 64
    inspect_timeout_ms: int = 10_000
    """In the queue. A request may ask for less, never for more."""
    fit_queue_size: int = 256
    fit_timeout_ms: int = 120_000
    tensorrt: bool = True
    """``onnxruntime``: TensorRT execution provider, else CUDA alone."""
    cache: str = "/var/cache/triton"
    """Folder, where Triton runs, of ONNX Runtime's TensorRT engines and timings."""
    threads: int = 0
    """On CPU; 0 is one a core."""

    def resolved(self) -> "ServingOptions":
        """The same with nothing left open.

        Raises:
            ExportError: options that do not go together.
        """
        device: Device = self.device or ("cpu" if self.backend in ("openvino", "python") else "gpu")
        if self.backend == "openvino" and device != "cpu":
            raise ExportError("Triton's OpenVINO backend computes on the CPU alone")
        if self.backend in ("tensorrt", "onnxruntime") and device != "gpu":
            raise ExportError(f"the {self.backend} variant is made for a GPU: on a CPU take openvino or python")
        # OpenVINO's backend compiles for one batch size and fills smaller batches up with zeros; on a CPU a larger
        # batch is hardly quicker an image, and an inspection waits for the batch before it.
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
                raise ExportError(f"{name} {value}: must lie between {least} and {most}")
        return replace(self, device=device, max_batch_size=largest, opt_batch_size=best, queue_delay_us=delay)


def add_arguments(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """Add what `options_from` reads to a command line."""
    group = parser.add_argument_group("serving by Triton")
    group.add_argument(
        "--backend",
        choices=BACKENDS,
        required=required,
        help="write config.pbtxt and what else Triton needs, for this backend",
    )
    group.add_argument(
        "--device", choices=get_args(Device), help="python backend: OpenVINO on cpu (default) or CUDA on gpu"
    )
    group.add_argument(
        "--output",
        choices=get_args(OutputType),
        default=ServingOptions.output,
        help="type of the tokens on the wire (default: %(default)s)",
    )
    group.add_argument("--max-batch-size", type=int, metavar="N", help="images in a batch (default: by backend)")
    group.add_argument(
        "--opt-batch-size", type=int, metavar="N", help="that TensorRT is tuned for (default: half of it)"
    )
    group.add_argument(
        "--queue-delay-us", type=int, metavar="µs", help="wait for a fuller batch (default: 2000, on a CPU 5000)"
    )
    for name, text in (
        ("instances", "copies of the network"),
        ("inspect-queue-size", "inspections that may wait"),
        ("inspect-timeout-ms", "longest wait of an inspection"),
        ("fit-queue-size", "requests of fits that may wait"),
        ("fit-timeout-ms", "longest wait of a fit's request"),
        ("threads", "on a CPU; 0 is one a core"),
    ):
        default = getattr(ServingOptions, name.replace("-", "_"))
        group.add_argument(f"--{name}", type=int, default=default, metavar="N", help=f"{text} (default: %(default)s)")
    group.add_argument(
        "--no-tensorrt",
        dest="tensorrt",
        action="store_false",
        help="onnxruntime backend: CUDA without the TensorRT execution provider",
    )
    group.add_argument(
        "--cache",
        default=ServingOptions.cache,
        metavar="DIR",
        help="onnxruntime backend: TensorRT engines, where Triton runs (default: %(default)s)",
    )


def options_from(parsed: argparse.Namespace) -> ServingOptions | None:
    """What the arguments of `add_arguments` say; None where no backend was named."""
    if parsed.backend is None:
        return None
    return ServingOptions(**{name: getattr(parsed, name) for name in ServingOptions.__dataclass_fields__})
