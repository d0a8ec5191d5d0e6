"""Write the files that Triton needs beside an exported version: ``config.pbtxt``, axis labels, and the model file.

``python -m export.triton_config`` writes them for an existing version and needs no torch. ``python -m export --backend
…`` writes them right after an export.

A client learns in two steps which model has answered. Every response of Triton contains the number of the version, with
every backend. The parameters of the configuration contain, by number, the fingerprint and the whole ``model.json`` of
each version in the folder. The two agree because ``config.pbtxt`` names the one version to serve: a new folder alone
changes nothing, and a reload with a new file is the switch. A number of one model is never accepted for another model.
"""

import argparse
import hashlib
import logging
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
    description_text,
    newest_version,
    version_folders,
)
from gateway.networks.student_description import StudentDescription, read_any_description

CONFIG_FILE = "config.pbtxt"
FP16_GRAPH_FILE = "model.fp16.onnx"
"""`GRAPH_FILE` with a cast of its tokens to fp16, since ONNX Runtime's backend cannot change the type of the output."""

_MODEL_FILE = {"tensorrt": "model.plan", "openvino": GRAPH_FILE, "python": "model.py"}
_PYTHON_MODEL = Path(__file__).with_name("triton_model.py")

_logger = logging.getLogger(__name__)


def write_serving_files(model_folder: Path, options: ServingOptions, *, version: int | None = None) -> Path:
    """Write the files with which Triton serves one version of `model_folder` after its next load.

    Args:
        model_folder: contains the numbered versions of ``export``.
        options: how to serve it.
        version: its number; None means the newest.

    Returns:
        The path of the configuration. It is replaced last and atomically, so that an error changes nothing.

    Raises:
        ExportError: the version does not exist, the options do not fit it, or its number belonged to another model.
    """
    try:
        folder = newest_version(model_folder) if version is None else model_folder / str(version)
        model = read_any_description(folder)
    except DescriptionError as error:
        raise ExportError(f"{error}: run `python -m export` first") from error
    options = for_model(model, options.resolved())
    _check_graph(folder / GRAPH_FILE, model)
    _provide_model_file(folder, model, options)
    texts: dict[int, str] = {}
    fingerprints: dict[int, str] = {}
    for each in version_folders(model_folder):
        try:
            fingerprints[int(each.name)] = read_any_description(each).fingerprint
            texts[int(each.name)] = description_text(each)
        except DescriptionError as error:
            _logger.warning("%s: this version cannot be served", error)
    fingerprints = _remembered(model_folder / CONFIG_FILE, fingerprints)
    config = serving_config(model, options, int(folder.name), texts, fingerprints)
    config.name = model_folder.name
    for name, text in axis_labels(model).items():
        replace_file(model_folder / name, text.encode())
    path = model_folder / CONFIG_FILE
    replace_file(path, config_text(config, options).encode())
    return path


def for_model(model: Description, options: ServingOptions) -> ServingOptions:
    """Return `options` for `model`. A map is always fp32, since it is small and scores are computed from it."""
    return replace(options, output="fp32") if isinstance(model, StudentDescription) else options


def serving_config(
    model: Description,
    options: ServingOptions,
    version: int,
    descriptions: Mapping[int, str] = MappingProxyType({}),
    fingerprints: Mapping[int, str] = MappingProxyType({}),
) -> Any:
    """Return the ``ModelConfig`` (Triton's protobuf) that serves `version`.

    Args:
        model: description of that version.
        options: how to serve it.
        version: its number.
        descriptions: the text of ``model.json`` of each version, by number.
        fingerprints: by number, including those of deleted versions.
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
    # A request without a priority waits behind the inspections.
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
    """Return `config` in protobuf's text format, with comments at the top."""
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
        ExportError: the text is not a model configuration.
    """
    from google.protobuf import text_format

    try:
        return text_format.Parse(text, _protobuf().ModelConfig())
    except text_format.ParseError as error:
        raise ExportError(f"not a configuration of Triton: {error}") from error


def model_file(options: ServingOptions) -> str:
    """Return the name of the file in the folder of a version that the backend loads."""
    if options.backend == "onnxruntime":
        return FP16_GRAPH_FILE if options.output == "fp16" else GRAPH_FILE
    return _MODEL_FILE[options.backend]


def _protobuf() -> Any:
    try:
        from tritonclient.grpc import model_config_pb2
    except ImportError as error:
        raise ExportError(f"Triton's protobuf is missing ({error}): install the triton extra") from error
    return model_config_pb2


def _queue_policy(pb: Any, timeout_ms: int, size: int) -> Any:
    return pb.ModelQueuePolicy(
        timeout_action=pb.ModelQueuePolicy.REJECT,
        default_timeout_microseconds=timeout_ms * 1000,
        allow_timeout_override=True,
        max_queue_size=size,
    )


def _tensorrt_provider(model: Description, options: ServingOptions) -> dict[str, str]:
    """Return options of ONNX Runtime's TensorRT execution provider, under the names in Triton's backend."""

    def shape(batch: int | None) -> str:
        return f"{model.input_name}:{batch}x{model.input_size}x{model.input_size}x3"

    return {
        "precision_mode": "FP16",
        "max_workspace_size_bytes": str(2 * 2**30),
        "trt_engine_cache_enable": "1",
        # By fingerprint: ONNX Runtime names an engine after the structure of the graph, and would load the engine of
        # other weights with the same structure.
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
    elif options.backend == "tensorrt":
        parameters = {"dtype": options.tensorrt_dtype}
    elif options.backend == "python" and options.threads:
        parameters = {"threads": str(options.threads)}
    return parameters


def _check_graph(path: Path, model: Description) -> None:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ExportError(f"{path}: {error.strerror}: run `python -m export` again") from error
    if hashlib.sha256(data).hexdigest() != model.graph_sha256:
        raise ExportError(
            f"{path} is damaged or belongs to another model: its checksum differs from that in {DESCRIPTION_FILE}."
            " Copy the version folder again, or run `python -m export` again"
        )


def _remembered(path: Path, fingerprints: Mapping[int, str]) -> dict[int, str]:
    """Return `fingerprints` with those of deleted versions, which the configuration in `path` still contains."""
    if not path.is_file():
        return dict(fingerprints)
    before = {
        int(match[1]): value.string_value
        for key, value in parse_config(_text(path)).parameters.items()
        if (match := re.fullmatch(r"fingerprint/(\d+)", key))
    }
    for number, fingerprint in fingerprints.items():
        if before.get(number, fingerprint) != fingerprint:
            raise ExportError(
                f"version {number} was another model ({before[number][:16]}…, now {fingerprint[:16]}…) when {path.name}"
                " was written, and clients may rely on that number: rename the folder to an unused number"
            )
    return before | dict(fingerprints)


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ExportError(
            f"{path} cannot be read as UTF-8: restore it from a backup. Without one, delete it, and number new versions"
            " higher than all that were served"
        ) from error


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
    """Return the ONNX graph in `data` with a cast of its float32 `output` to fp16 at the end."""
    try:
        import onnx
    except ImportError as error:
        raise ExportError(
            "an fp16 output for ONNX Runtime needs onnx: install the export extra, or use --output fp32"
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
    """Write the serving files of an existing version. Print the path of the configuration to stdout.

    Returns:
        The exit status: 0 written, 1 failed, 2 wrong usage.
    """
    parser = argparse.ArgumentParser(
        prog="python -m export.triton_config",
        description="Write the files with which Triton serves an exported model after its next load.",
    )
    repository = Path(__file__).resolve().parent.parent / "model_repository"
    parser.add_argument("--repository", type=Path, default=repository, metavar="DIR", help="model repository")
    parser.add_argument("--name", default="dinov2_vits14", help="model folder in the repository (default: %(default)s)")
    parser.add_argument("--version", type=int, metavar="N", help="version to serve (default: the newest)")
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
