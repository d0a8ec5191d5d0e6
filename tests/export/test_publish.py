"""A version appears complete or not at all, once per model, and only if the runtimes agree with torch."""

import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from export import publish as publishing
from export.__main__ import main
from export.errors import ExportError
from export.onnx_writer import onnx_bytes
from export.publish import ExportOptions, publish
from export.token_graph import TokenGraph
from gateway.networks.embedded.runtimes import supports_bf16
from gateway.networks.model_description import newest_version, read_description

PROJECT = Path(__file__).resolve().parents[2]
SMALL = ["--input-size", "112", "--layers", "0,1"]


@pytest.fixture(scope="module", autouse=True)
def _each_graph_is_traced_once() -> Iterator[None]:
    """The same weights give the same bytes, as a test below holds. To trace them takes seconds."""
    traced: dict[object, bytes] = {}

    def once(graph: TokenGraph, size: int) -> bytes:
        key = (graph.scales, graph.layers, sum(float(each.double().sum()) for each in graph.parameters()))
        return traced.get(key) or traced.setdefault(key, onnx_bytes(graph, size))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publishing, "onnx_bytes", once)
        yield


@pytest.fixture
def options(tmp_path: Path) -> ExportOptions:
    """Options of a small export: two blocks on a small image, which takes a few seconds."""
    return ExportOptions(weights="seed:0", repository=tmp_path, scales=(112,), layers=(0, 1))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    return publish(ExportOptions(weights="seed:0", repository=folder, scales=(112,), layers=(0, 1)))


def visible(folder: Path) -> list[str]:
    """Return the entries of a model folder without its lock."""
    return sorted(path.name for path in folder.iterdir() if path.name != ".tmp-lock")


def test_the_same_weights_give_the_same_bytes_and_fingerprint_in_another_process(small_model_repository, published):
    version = small_model_repository / "dinov2_vits14" / "1"
    assert (version / "model.onnx").read_bytes() == (published / "model.onnx").read_bytes()
    assert read_description(version).same_model_as(read_description(published))


def test_other_weights_give_another_fingerprint_and_never_a_number_that_triton_has_served(options, published):
    folder = options.repository / "dinov2_vits14"
    folder.mkdir()
    (folder / "config.pbtxt").write_text('parameters { key: "fingerprint/4" value { string_value: "ab" } }')
    other = publish(replace(options, weights="seed:1"))
    assert not read_description(other).same_model_as(read_description(published))
    assert other.name == "5"


def test_publishing_the_same_model_again_adds_no_version_and_removes_what_a_died_export_left(published, capsys):
    left = published.parent / ".tmp-0badc0de"
    left.mkdir()
    (left / "model.onnx").write_bytes(b"torn")
    assert main(["--weights", "seed:0", "--repository", str(published.parents[1]), *SMALL]) == 0
    assert Path(capsys.readouterr().out.strip()) == published
    assert visible(published.parent) == ["1"]


def test_force_publishes_the_same_model_as_the_next_version(options, published):
    first = options.repository / "dinov2_vits14" / "1"
    shutil.copytree(published, first)
    second = publish(replace(options, force=True))
    assert second == first.with_name("2")
    assert newest_version(first.parent) == second
    assert read_description(first).same_model_as(read_description(second))


def test_a_version_is_readable_by_the_server_that_runs_as_another_user(published):
    assert stat.S_IMODE(published.stat().st_mode) & 0o055 == 0o055
    assert all(stat.S_IMODE(path.stat().st_mode) & 0o044 == 0o044 for path in published.iterdir())


def test_f32_beyond_its_tolerance_is_not_published(options):
    with pytest.raises(ExportError, match=r"onnxruntime-cpu-f32 and openvino-f32 disagree with torch"):
        publish(replace(options, tolerance_f32=1.1))
    assert visible(options.repository / "dinov2_vits14") == []


@pytest.mark.skipif(not supports_bf16(), reason="this processor has no bf16")
def test_bf16_beyond_its_tolerance_is_recorded_and_logged(options, caplog):
    parity = read_description(publish(replace(options, tolerance_bf16=1.1))).parity
    assert not parity["openvino-bf16"].passed
    assert parity["openvino-bf16"].tolerance_cosine == 1.1
    assert parity["openvino-f32"].passed
    assert "the model is served in f32" in caplog.text


def test_scales_share_one_set_of_weights_and_agree_on_every_runtime(options, published):
    version = publish(replace(options, scales=(84, 112)))
    description = read_description(version)
    assert (description.scales, description.input_size, description.dim) == ((84, 112), 112, 1536)
    assert all(found.passed for found in description.parity.values())
    assert (version / "model.onnx").stat().st_size < 1.1 * (published / "model.onnx").stat().st_size


def test_a_second_export_into_the_same_folder_is_refused(options):
    folder = options.repository / "dinov2_vits14"
    folder.mkdir()
    with FileLock(folder / ".tmp-lock"), pytest.raises(ExportError, match="another export"):
        publish(options)


def test_an_interrupted_export_leaves_nothing(tmp_path):
    command = [sys.executable, "-m", "export", "--weights", "seed:0", "--repository", str(tmp_path), *SMALL]

    with subprocess.Popen(command, cwd=PROJECT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = ""
        for line in process.stderr:
            said += line
            if "parity: torch" in line:
                process.send_signal(signal.SIGINT)
    assert process.returncode == 130, said
    assert said.endswith("interrupted: nothing was published\n")
    assert visible(tmp_path / "dinov2_vits14") == []


def test_weights_are_named_by_the_environment_or_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DINOV2_WEIGHTS", "absent.safetensors")
    assert main(["--repository", str(tmp_path)]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: no weights file absent.safetensors")
    assert main(["--repository", str(tmp_path), "--weights", "seed:x"]) == 1
    assert "not a seed" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../up", ".hidden", "a/b", ""])
def test_a_name_that_is_not_a_folder_name_is_refused(options, name):
    with pytest.raises(ExportError, match="not a model name"):
        publish(replace(options, name=name))


def test_a_repository_that_cannot_be_written_is_a_clear_error(options, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ExportError, match="cannot write to"):
        publish(replace(options, repository=tmp_path / "file"))


def test_real_weights_agree_on_every_runtime(real_model_repository):
    description = read_description(newest_version(real_model_repository / "dinov2_vits14"))
    assert description.weights.kind == "file"
    assert description.parity["openvino-f32"].passed
    assert description.parity["onnxruntime-cpu-f32"].passed
