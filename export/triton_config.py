"""What Triton needs beside an exported version: ``config.pbtxt``, axis labels, and the backend's own model file.

``python -m export.triton_config`` writes it for versions that are there already (it needs no torch), ``python -m export
--backend …`` right after an export.

How a client knows which model answered: every response of Triton, whatever its backend, carries the number of the
version that made it, and the parameters of the configuration hold, under that number, the fingerprint and the whole
``model.json`` of each version in the folder. So that the two cannot disagree, ``config.pbtxt`` names the one version to
serve (a new folder alone changes nothing; replacing the file and asking for a load is the switch), and a number that
once stood for one model is never accepted for another.
"""

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from export.errors import ExportError
from export.files import replace_file
from export.served import Description, axes, axis_labels, output_shape
from export.triton_options import FIT_PRIORITY, INSPECT_PRIORITY, ServingOptions, add_arguments, options_from
from gateway.networks.model_description import (
    DESCRIPTION_FILE,
    GRAPH_FILE,
    DescriptionError,
    newest_version,
)
from gateway.networks.student_description import StudentDescription, read_any_description

CONFIG_FILE = "config.pbtxt"
FP16_GRAPH_FILE = "model.fp16.onnx"
"""`GRAPH_FILE` with its tokens cast to fp16 at the end: ONNX Runtime's backend gives what the graph gives."""

_MODEL_FILE = {"tensorrt": "model.plan", "openvino": GRAPH_FILE, "python": "model.py"}
_PYTHON_MODEL = Path(__file__).with_name("triton_model.py")


def write_serving_files(model_folder: Path, options: ServingOptions, *, version: int | None = None) -> Path:
    """Make Triton serve one version of `model_folder` at its next load, with `options`.

    Args:
        model_folder: holds the numbered versions, as ``export`` writes them.
        options: how to serve it.
        version: which; the newest where None.

    Returns:
        The configuration's path. It is replaced last and at once: before that, nothing has changed.

    Raises:
        ExportError: there is no such version, it cannot be served so, or its number was another model's.
    """
    try:
        folder = newest_version(model_folder) if version is None else model_folder / str(version)
        model = read_any_description(folder)
    except DescriptionError as error:
        raise ExportError(f"{error}: run `python -m export` first") from error
    options = for_model(model, options.resolved())
    _provide_model_file(folder, model, options)
    texts = {
        int(path.parent.name): path.read_text()
        for path in model_folder.glob(f"[0-9]*/{DESCRIPTION_FILE}")
        if path.parent.name.isdecimal()
    }
    fingerprints = {number: read_any_description(model_folder / str(number)).fingerprint for number in texts}
    fingerprints = _remembered(model_folder / CONFIG_FILE, fingerprints)
    config = serving_config(model, options, int(folder.name), texts, fingerprints)
    config.name = model_folder.name
    for name, text in axis_labels(model).items():
        replace_file(model_folder / name, text.encode())
    path = model_folder / CONFIG_FILE
    replace_file(path, config_text(config, options).encode())
    return path


def for_model(model: Description, options: ServingOptions) -> ServingOptions:
    """`options` as they hold for `model`: a map is small, and scores are compared by it, so it goes as fp32."""
    return replace(options, output="fp32") if isinstance(model, StudentDescription) else options


def serving_config(
    model: Description,
    options: ServingOptions,
    version: int,
    descriptions: Mapping[int, str] = MappingProxyType({}),
    fingerprints: Mapping[int, str] = MappingProxyType({}),
) -> Any:
    """The ``ModelConfig`` (Triton's protobuf) that serves `version`.

    Args:
        model: description of that version.
        options: how to serve it.
        version: its number.
        descriptions: the text of ``model.json`` of each version, by number.
        fingerprints: by number; of versions that are gone too.
    """
    pb = _protobuf()
    options = for_model(model, options.resolved())
    assert options.max_batch_size is not None
    assert options.opt_batch_size is not None
    assert options.queue_delay_us is not None
    gpu = options.device == "gpu"
    plans = options.backend == "tensorrt" or (options.backend == "onnxruntime" and options.tensorrt)
    image = [model.input_size, model.input_size, 3]
    config = pb.ModelConfig(
        name=model.name,
        backend=options.backend,
        default_model_filename=model_file(options),
        max_batch_size=options.max_batch_size,
        input=[pb.ModelInput(name=model.input_name, data_type=pb.TYPE_UINT8, dims=image)],
        output=[
            pb.ModelOutput(
                name=model.output_name,
                data_type=pb.TYPE_FP16 if options.output == "fp16" else pb.TYPE_FP32,
                dims=output_shape(model),
            )
        ],
        version_policy=pb.ModelVersionPolicy(specific=pb.ModelVersionPolicy.Specific(versions=[version])),
        instance_group=[
            pb.ModelInstanceGroup(
                kind=pb.ModelInstanceGroup.KIND_GPU if gpu else pb.ModelInstanceGroup.KIND_CPU, count=options.instances
            )
        ],
    )
    batching = config.dynamic_batching
    batching.max_queue_delay_microseconds = options.queue_delay_us
    if plans:
        batching.preferred_batch_size.append(options.opt_batch_size)
    batching.priority_levels = FIT_PRIORITY
    # Whoever does not say what he wants tokens for waits behind the inspections.
    batching.default_priority_level = FIT_PRIORITY
    inspect = _queue_policy(pb, options.inspect_timeout_ms, options.inspect_queue_size)
    fit = _queue_policy(pb, options.fit_timeout_ms, options.fit_queue_size)
    batching.default_queue_policy.CopyFrom(fit)
    batching.priority_queue_policy[INSPECT_PRIORITY].CopyFrom(inspect)
    batching.priority_queue_policy[FIT_PRIORITY].CopyFrom(fit)
    for size in sorted({1, options.max_batch_size}):
        warmup = config.model_warmup.add(name=f"batch {size}", batch_size=size)
        warmup.inputs[model.input_name].CopyFrom(
            pb.ModelWarmup.Input(data_type=pb.TYPE_UINT8, dims=image, random_data=True)
        )
    if options.backend == "onnxruntime" and options.tensorrt:
        accelerator = config.optimization.execution_accelerators.gpu_execution_accelerator.add(name="tensorrt")
        accelerator.parameters.update(_tensorrt_provider(model, options))
    parameters = _backend_parameters(model, options)
    parameters |= {f"axes/{name}": " ".join(axes) for name, axes in axes(model).items()}
    parameters |= {f"fingerprint/{number}": fingerprint for number, fingerprint in fingerprints.items()}
    parameters |= {f"{DESCRIPTION_FILE}/{number}": text for number, text in descriptions.items()}
    for key, value in parameters.items():
        config.parameters[key].string_value = value
    return config


def config_text(config: Any, options: ServingOptions) -> str:
    """`config` in protobuf's text format, with a line that says what it is."""
    from google.protobuf import text_format

    text = text_format.MessageToString(config, as_utf8=True)
    return (
        f"# Written by export.triton_config for the {options.backend} backend: write it again, do not edit it.\n"
        "# Not printed, since they are the defaults: timeout_action REJECT of each queue policy.\n"
        f"{text}"
    )


def parse_config(text: str) -> Any:
    """Read ``config.pbtxt`` with Triton's own protobuf.

    Raises:
        ExportError: it is not a model configuration.
    """
    from google.protobuf import text_format

    try:
        return text_format.Parse(text, _protobuf().ModelConfig())
    except text_format.ParseError as error:
        raise ExportError(f"not a configuration of Triton: {error}") from error


def model_file(options: ServingOptions) -> str:
    """Name of the file, in a version's folder, that the backend loads."""
    if options.backend == "onnxruntime":
        return FP16_GRAPH_FILE if options.output == "fp16" else GRAPH_FILE
    return _MODEL_FILE[options.backend]


def _protobuf() -> Any:
    try:
        from tritonclient.grpc import model_config_pb2
    except ImportError as error:
        raise ExportError(f"Triton's protobuf is not there ({error}): install the triton extra") from error
    return model_config_pb2


def _queue_policy(pb: Any, timeout_ms: int, size: int) -> Any:
    return pb.ModelQueuePolicy(
        timeout_action=pb.ModelQueuePolicy.REJECT,
        default_timeout_microseconds=timeout_ms * 1000,
        allow_timeout_override=True,
        max_queue_size=size,
    )


def _tensorrt_provider(model: Description, options: ServingOptions) -> dict[str, str]:
    """Options of ONNX Runtime's TensorRT execution provider, under the names that Triton's backend gives them."""

    def shape(batch: int | None) -> str:
        return f"{model.input_name}:{batch}x{model.input_size}x{model.input_size}x3"

    return {
        "precision_mode": "FP16",
        "max_workspace_size_bytes": str(2 * 2**30),
        "trt_engine_cache_enable": "1",
        # By fingerprint: ONNX Runtime names an engine after the graph's structure, and would take the engine of other
        # weights in the same structure for its own.
        "trt_engine_cache_path": f"{options.cache}/{model.fingerprint[:16]}",
        "trt_engine_cache_prefix": model.fingerprint[:16],
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": f"{options.cache}/timing",
        "trt_layer_norm_fp32_fallback": "1",
        "trt_profile_min_shapes": shape(1),
        "trt_profile_opt_shapes": shape(options.opt_batch_size),
        "trt_profile_max_shapes": shape(options.max_batch_size),
    }


def _backend_parameters(model: Description, options: ServingOptions) -> dict[str, str]:
    parameters: dict[str, str] = {}
    if options.backend == "openvino":
        checked = model.parity.get("openvino-bf16")
        parameters = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1"}
        if checked is not None and checked.passed:
            parameters["HINT_BF16"] = "YES"
        if options.threads:
            parameters["INFERENCE_NUM_THREADS"] = str(options.threads)
        if options.max_batch_size != 1:
            parameters["ENABLE_BATCH_PADDING"] = "YES"
    elif options.backend == "python" and options.threads:
        parameters = {"threads": str(options.threads)}
    return parameters


def _remembered(path: Path, fingerprints: Mapping[int, str]) -> dict[int, str]:
    """`fingerprints` with those of versions that are gone, which the configuration in `path` still knows."""
    if not path.is_file():
        return dict(fingerprints)
    before = {
        int(match[1]): value.string_value
        for key, value in parse_config(path.read_text()).parameters.items()
        if (match := re.fullmatch(r"fingerprint/(\d+)", key))
    }
    for number, fingerprint in fingerprints.items():
        if before.get(number, fingerprint) != fingerprint:
            raise ExportError(
                f"version {number} was another model ({before[number][:16]}…, now {fingerprint[:16]}…) when {path.name}"
                " was written, and clients may know it by that number: rename the folder to a number that was not used"
            )
    return before | dict(fingerprints)


def _provide_model_file(folder: Path, model: Description, options: ServingOptions) -> None:
    path = folder / model_file(options)
    if options.backend == "python":
        replace_file(path, _PYTHON_MODEL.read_bytes())
    elif options.backend == "tensorrt":
        from export.triton_tensorrt import provide_plan

        provide_plan(folder, model, options)
    elif path.name == FP16_GRAPH_FILE and not path.is_file():
        replace_file(path, _with_fp16_output((folder / GRAPH_FILE).read_bytes(), model.output_name))


def _with_fp16_output(data: bytes, output: str) -> bytes:
    """The ONNX graph in `data` with its float32 `output` cast to fp16 at the end."""
    try:
        import onnx
    except ImportError as error:
        raise ExportError(
            "an fp16 output for ONNX Runtime needs onnx (the export extra); without it: --output fp32"
        ) from error

    graph_model = onnx.load_model_from_string(data)
    graph = graph_model.graph
    inner = f"{output}_fp32"
    for node in graph.node:
        node.output[:] = [inner if name == output else name for name in node.output]
        node.input[:] = [inner if name == output else name for name in node.input]
    graph.node.append(onnx.helper.make_node("Cast", [inner], [output], "to_fp16", to=onnx.TensorProto.FLOAT16))
    (declared,) = graph.output
    declared.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    onnx.checker.check_model(graph_model)
    changed: bytes = graph_model.SerializeToString(deterministic=True)
    return changed


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the serving files of versions that are there; the configuration's path goes to stdout.

    Returns:
        The exit status: 0 written, 1 failed, 2 wrong usage.
    """
    parser = argparse.ArgumentParser(
        prog="python -m export.triton_config", description="Make Triton serve an exported model at its next load."
    )
    repository = Path(__file__).resolve().parent.parent / "model_repository"
    parser.add_argument("--repository", type=Path, default=repository, metavar="DIR", help="model repository")
    parser.add_argument("--name", default="dinov2_vits14", help="model folder in it (default: %(default)s)")
    parser.add_argument("--version", type=int, metavar="N", help="which to serve (default: the newest)")
    add_arguments(parser, required=True)
    parsed = parser.parse_args(arguments)
    options = options_from(parsed)
    assert options is not None
    try:
        print(write_serving_files(parsed.repository / parsed.name, options, version=parsed.version))
    except ExportError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
