"""The configuration of Triton: every option is compared with a golden file, and Triton's own protobuf reads them."""

import codecs
import difflib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from export.comparison import camera_images
from export.errors import ExportError
from export.served import axis_labels
from export.token_command import _parser
from export.triton_config import (
    FP16_GRAPH_FILE,
    config_text,
    main,
    parse_config,
    serving_config,
    write_serving_files,
)
from export.triton_options import BACKENDS, ServingOptions, options_from
from tests.export.tiny_model import description, write_version

PROJECT = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).with_name("golden")
COMMITTED = PROJECT / "model_repository" / "dinov2_vits14" / "configs"
VARIANTS = {
    "tensorrt": ServingOptions("tensorrt"),
    "onnxruntime": ServingOptions("onnxruntime"),
    "onnxruntime-cuda": ServingOptions("onnxruntime", tensorrt=False),
    "openvino": ServingOptions("openvino"),
    "python": ServingOptions("python"),
    "python-cuda": ServingOptions("python", device="gpu"),
}
# Each option once, with a backend on which it changes something.
OPTIONS = {
    "device": ServingOptions("python", device="gpu"),
    "output": ServingOptions("onnxruntime", output="fp32"),
    "max_batch_size": ServingOptions("openvino", max_batch_size=4),
    "opt_batch_size": ServingOptions("onnxruntime", opt_batch_size=4),
    "queue_delay_us": ServingOptions("tensorrt", queue_delay_us=500),
    "instances": ServingOptions("tensorrt", instances=2),
    "inspect_queue_size": ServingOptions("python", inspect_queue_size=5),
    "inspect_timeout_ms": ServingOptions("python", inspect_timeout_ms=1500),
    "fit_queue_size": ServingOptions("python", fit_queue_size=7),
    "fit_timeout_ms": ServingOptions("python", fit_timeout_ms=2500),
    "tensorrt": ServingOptions("onnxruntime", tensorrt=False),
    "tensorrt_dtype": ServingOptions("tensorrt", tensorrt_dtype="bf16"),
    "cache": ServingOptions("onnxruntime", cache="/srv/engines"),
    "threads": ServingOptions("openvino", threads=4),
}


def text(options: ServingOptions) -> str:
    return config_text(serving_config(description(), options, 1), options)


def hold_to(path: Path, found: str) -> None:
    """Compare with a golden file. UPDATE_GOLDEN=1 writes it instead, so that git shows the difference."""
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(found)
    assert found == path.read_text(), f"{path.name} is out of date: run this test with UPDATE_GOLDEN=1, read the diff"


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "repository" / "dinov2_vits14"
    write_version(folder / "1")
    return folder


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_committed_configuration_is_what_the_generator_writes(variant):
    hold_to(COMMITTED / f"{variant}.pbtxt", text(VARIANTS[variant]))


def test_every_committed_configuration_is_read_by_tritons_protobuf():
    committed = sorted(COMMITTED.glob("*.pbtxt"))
    assert {path.stem for path in committed} == set(VARIANTS)
    for path in committed:
        config = text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
        assert config.name == COMMITTED.parent.name


@pytest.mark.parametrize("option", OPTIONS)
def test_each_option_makes_the_difference_in_its_golden_file(option):
    options = OPTIONS[option]
    changed = difflib.unified_diff(
        text(ServingOptions(options.backend)).splitlines(),
        text(options).splitlines(),
        f"{options.backend}, defaults",
        f"{options.backend}, {option} = {getattr(options, option)}",
        n=2,
        lineterm="",
    )
    hold_to(GOLDEN / f"{option}.diff", "".join(f"{line}\n" for line in changed))


def test_no_option_is_without_a_golden_file():
    assert {field.name for field in fields(ServingOptions)} == {"backend", *OPTIONS}
    assert {path.stem for path in GOLDEN.iterdir()} == set(OPTIONS)


@pytest.mark.parametrize("variant", VARIANTS)
def test_all_variants_take_and_give_the_same_tensors_and_queue_alike(variant):
    config = parse_config(text(VARIANTS[variant]))
    pb = model_config_pb2
    (image,), (tokens,) = config.input, config.output
    assert (image.name, image.data_type, list(image.dims)) == ("image", pb.TYPE_UINT8, [378, 378, 3])
    assert (tokens.name, tokens.data_type, list(tokens.dims)) == ("tokens", pb.TYPE_FP16, [729, 768])
    batching = config.dynamic_batching
    assert (batching.priority_levels, batching.default_priority_level) == (2, 2)
    assert sorted(batching.priority_queue_policy) == [1, 2]
    for policy in (batching.default_queue_policy, *batching.priority_queue_policy.values()):
        assert policy.timeout_action == pb.ModelQueuePolicy.REJECT
        assert policy.allow_timeout_override
        assert policy.default_timeout_microseconds > 0
        assert policy.max_queue_size > 0
    assert batching.max_queue_delay_microseconds > 0
    assert config.max_batch_size > 0
    assert {warmup.batch_size for warmup in config.model_warmup} == {1, config.max_batch_size}
    assert list(config.version_policy.specific.versions) == [1]
    assert len(config.instance_group) == 1


def test_the_profile_of_the_tensorrt_provider_covers_every_batch():
    config = parse_config(text(VARIANTS["onnxruntime"]))
    (accelerator,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    shapes = {name: accelerator.parameters[f"trt_profile_{name}_shapes"] for name in ("min", "opt", "max")}
    assert shapes == {"min": "image:1x378x378x3", "opt": "image:8x378x378x3", "max": "image:16x378x378x3"}
    assert config.max_batch_size == 16


def test_engines_of_other_weights_are_never_loaded():
    def cache(fingerprint):
        config = serving_config(description(fingerprint), ServingOptions("onnxruntime"), 1)
        return config.optimization.execution_accelerators.gpu_execution_accelerator[0].parameters

    one, other = cache("1" * 64), cache("2" * 64)
    for key in ("trt_engine_cache_path", "trt_engine_cache_prefix"):
        assert one[key] != other[key]


def test_bf16_is_requested_only_if_the_export_passed_in_it():
    config = serving_config(description(parity={}), ServingOptions("openvino"), 1)
    assert "HINT_BF16" not in config.parameters


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (ServingOptions("openvino", device="gpu"), "only on a CPU"),
        (ServingOptions("tensorrt", device="cpu"), "needs a GPU"),
        (ServingOptions("python", max_batch_size=0), "max batch size 0"),
        (ServingOptions("tensorrt", max_batch_size=4, opt_batch_size=8), "opt batch size 8: must be between 1 and 4"),
        (ServingOptions("python", inspect_timeout_ms=0), "timeout of inspections 0"),
    ],
)
def test_contradicting_options_are_refused(options, message):
    with pytest.raises(ExportError, match=message):
        options.resolved()


def test_a_served_folder_is_complete_and_describes_its_versions(model_folder):
    other = write_version(model_folder / "2", factor=2)
    path = write_serving_files(model_folder, ServingOptions("python"))
    config = parse_config(path.read_text())
    assert path == model_folder / "config.pbtxt"
    assert (model_folder / "2" / "model.py").read_text() == (PROJECT / "export" / "triton_model.py").read_text()
    assert list(config.version_policy.specific.versions) == [2]
    for number in ("1", "2"):
        stated = config.parameters[f"model.json/{number}"].string_value
        assert stated == (model_folder / number / "model.json").read_text()
        assert config.parameters[f"fingerprint/{number}"].string_value == json.loads(stated)["fingerprint"]
    assert config.parameters["fingerprint/2"].string_value == other.fingerprint
    assert (model_folder / "labels_tokens.txt").read_text().splitlines()[1].startswith("4: patches")


def test_a_new_version_is_not_served_before_the_configuration_names_it(model_folder):
    write_serving_files(model_folder, ServingOptions("python"))
    before = (model_folder / "config.pbtxt").read_text()
    write_version(model_folder / "2", factor=2)
    assert (model_folder / "config.pbtxt").read_text() == before
    assert "versions: 1" in before


def test_an_older_version_can_be_served_again(model_folder):
    write_version(model_folder / "2", factor=2)
    config = parse_config(write_serving_files(model_folder, ServingOptions("python"), version=1).read_text())
    assert list(config.version_policy.specific.versions) == [1]
    assert "model.json/2" in config.parameters


def test_a_number_that_was_one_model_is_never_accepted_for_another(model_folder):
    before = write_serving_files(model_folder, ServingOptions("python")).read_text()
    shutil.rmtree(model_folder / "1")
    write_version(model_folder / "1", factor=2)
    with pytest.raises(ExportError, match="version 1 was another model"):
        write_serving_files(model_folder, ServingOptions("python"))
    assert (model_folder / "config.pbtxt").read_text() == before


def test_a_number_is_remembered_after_its_folder_is_gone(model_folder):
    write_serving_files(model_folder, ServingOptions("python"))
    shutil.rmtree(model_folder / "1")
    write_version(model_folder / "2", factor=2)
    write_serving_files(model_folder, ServingOptions("python"))
    config = parse_config((model_folder / "config.pbtxt").read_text())
    assert "fingerprint/1" in config.parameters
    assert "model.json/1" not in config.parameters


def test_the_folder_names_the_model(model_folder):
    renamed = model_folder.rename(model_folder.with_name("line_3"))
    assert parse_config(write_serving_files(renamed, ServingOptions("openvino")).read_text()).name == "line_3"


def test_the_fp16_graph_for_onnx_runtime_gives_the_same_tokens(model_folder):
    write_serving_files(model_folder, ServingOptions("onnxruntime"))
    images = camera_images(3, 28)
    exact, served = (
        onnxruntime.InferenceSession(model_folder / "1" / name, providers=["CPUExecutionProvider"]).run(
            ["tokens"], {"image": images}
        )[0]
        for name in ("model.onnx", FP16_GRAPH_FILE)
    )
    assert served.dtype == np.float16
    np.testing.assert_array_equal(served, exact.astype(np.float16))


def test_fp32_for_onnx_runtime_serves_the_exported_file_itself(model_folder):
    path = write_serving_files(model_folder, ServingOptions("onnxruntime", output="fp32"))
    assert parse_config(path.read_text()).default_model_filename == "model.onnx"
    assert not (model_folder / "1" / FP16_GRAPH_FILE).exists()


def test_without_a_version_the_error_says_what_to_run(tmp_path):
    with pytest.raises(ExportError, match="python -m export"):
        write_serving_files(tmp_path, ServingOptions("python"))


def test_a_missing_version_is_refused(model_folder):
    with pytest.raises(ExportError, match=r"model\.json"):
        write_serving_files(model_folder, ServingOptions("python"), version=9)


@pytest.mark.parametrize("content", [b"{", "{}".encode("utf-16"), b""], ids=["cut", "UTF-16", "empty"])
def test_an_unreadable_older_version_is_logged_and_the_newest_is_served(model_folder, caplog, content):
    write_version(model_folder / "2", factor=2)
    (model_folder / "1" / "model.json").write_bytes(content)
    config = parse_config(write_serving_files(model_folder, ServingOptions("python")).read_text())
    assert list(config.version_policy.specific.versions) == [2]
    assert "fingerprint/1" not in config.parameters
    assert f"{model_folder / '1' / 'model.json'}" in caplog.text


@pytest.mark.parametrize("odd", ["0001", "0002", "9" * 30])
def test_a_folder_that_triton_ignores_is_not_served(model_folder, odd):
    write_version(model_folder / odd, factor=2)
    config = parse_config(write_serving_files(model_folder, ServingOptions("python")).read_text())
    assert list(config.version_policy.specific.versions) == [1]


def test_a_graph_that_is_not_the_described_one_is_not_served(model_folder, tmp_path):
    write_version(tmp_path / "other", factor=2)
    shutil.copy(tmp_path / "other" / "model.onnx", model_folder / "1" / "model.onnx")
    with pytest.raises(ExportError, match=r"model\.onnx is damaged or belongs to another model"):
        write_serving_files(model_folder, ServingOptions("onnxruntime"))
    (model_folder / "1" / "model.onnx").unlink()
    with pytest.raises(ExportError, match=r"model\.onnx: No such file"):
        write_serving_files(model_folder, ServingOptions("onnxruntime"))
    assert not (model_folder / "config.pbtxt").exists()


def test_a_configuration_with_a_byte_order_mark_is_read_and_one_in_another_encoding_is_named(model_folder):
    path = write_serving_files(model_folder, ServingOptions("python"))
    text = path.read_text()
    path.write_bytes(codecs.BOM_UTF8 + text.encode())
    write_serving_files(model_folder, ServingOptions("python"))
    assert path.read_text() == text
    path.write_bytes(text.encode("utf-16"))
    with pytest.raises(ExportError, match=r"config\.pbtxt cannot be read as UTF-8"):
        write_serving_files(model_folder, ServingOptions("python"))


def test_a_torn_configuration_is_a_clear_error(model_folder):
    (model_folder / "config.pbtxt").write_text('name: "dinov2')
    with pytest.raises(ExportError, match="not a configuration of Triton"):
        write_serving_files(model_folder, ServingOptions("python"))


def test_the_command_line_reaches_every_option():
    given = replace(
        ServingOptions("onnxruntime"),
        device="gpu",
        output="fp32",
        max_batch_size=12,
        opt_batch_size=6,
        queue_delay_us=100,
        instances=2,
        inspect_queue_size=3,
        inspect_timeout_ms=4,
        fit_queue_size=5,
        fit_timeout_ms=6,
        tensorrt=False,
        tensorrt_dtype="bf16",
        cache="/c",
        threads=7,
    )
    line = (
        "--backend onnxruntime --device gpu --output fp32 --max-batch-size 12 --opt-batch-size 6 --queue-delay-us 100"
    )
    line += " --instances 2 --inspect-queue-size 3 --inspect-timeout-ms 4 --fit-queue-size 5 --fit-timeout-ms 6"
    line += " --no-tensorrt --tensorrt-dtype bf16 --cache /c --threads 7"
    assert options_from(_parser().parse_args(line.split())) == given
    assert options_from(_parser().parse_args([])) is None
    for backend in BACKENDS:
        assert options_from(_parser().parse_args(["--backend", backend])) == ServingOptions(backend)


def test_the_command_writes_the_configuration_and_prints_its_path(model_folder, capsys):
    assert main(["--repository", str(model_folder.parent), "--backend", "openvino", "--version", "1"]) == 0
    assert Path(capsys.readouterr().out.strip()) == model_folder / "config.pbtxt"
    assert main(["--repository", str(model_folder.parent / "none"), "--backend", "openvino"]) == 1
    assert capsys.readouterr().err.startswith("error: no exported model")


def test_configurations_are_written_without_torch():
    check = "import sys, export.triton_config, export.triton_tensorrt; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], cwd=PROJECT).returncode == 0


def test_labels_name_every_axis():
    labels = axis_labels(description())
    assert sorted(labels) == ["labels_image.txt", "labels_tokens.txt"]
    assert [len(text.splitlines()) for text in labels.values()] == [4, 3]
    assert "27 rows and 27 columns" in labels["labels_tokens.txt"]
