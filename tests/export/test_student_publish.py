"""Models of connectors from a CSV: their files, that KO images are unused, and which input is refused."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from export import __main__ as export_main
from export.comparison import camera_images
from export.errors import ExportError
from export.student_teacher.comparison import compare_maps, robust_scores
from export.student_teacher.publish import publish_student
from export.triton_config import parse_config, write_serving_files
from export.triton_options import ServingOptions
from gateway.networks.embedded.runtimes import supports_bf16
from gateway.networks.model_description import DescriptionError, read_description
from gateway.networks.student_description import StudentDescription, read_any_description, read_ok_maps, read_student
from tests.export.tiny_model import write_version
from tests.export.tiny_student import COMMAND, options, publish_folder, write_images

PROJECT = Path(__file__).resolve().parents[2]


def command(*arguments: object) -> int:
    """Run `python -m export student-teacher` in this process."""
    return export_main.main(["student-teacher", *map(str, arguments)])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV of two connectors. The files of rows with other labels than OK are not images."""
    folder = tmp_path_factory.mktemp("data")
    rows = []
    for seed, (connector, count) in enumerate({"conn1": 10, "conn2": 12}.items()):
        rows += [f"{connector}/{path.name},{connector},OK" for path in write_images(folder / connector, count, seed)]
        (folder / f"{connector}_ko.png").write_bytes(b"not an image")
        (folder / f"{connector}_occluded.png").mkdir()
        rows += [f"{connector}_ko.png,{connector},KO", f"absent.png,{connector},PARTIAL OCCLUSION"]
        rows += [f"{connector}_occluded.png,{connector},OCCLUSION"] * 2
    (folder / "dataset.csv").write_text("\n".join(["image path,connector,label", *rows]) + "\n")
    return folder


@pytest.fixture(scope="module")
def repository(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both connectors, trained by the command line, with files for Triton."""
    folder = tmp_path_factory.mktemp("repository")
    given = ("--csv", data / "dataset.csv", "--all", "--repository", folder, "--backend", "python")
    assert command(*given, *COMMAND) == 0
    return folder


def test_a_csv_of_two_connectors_gives_two_models_and_no_ko_or_occluded_image_is_used(repository, data):
    assert sorted(path.name for path in repository.iterdir()) == ["st_conn1", "st_conn2"]
    for connector, count in (("conn1", 10), ("conn2", 12)):
        model = read_student(repository / f"st_{connector}" / "1")
        files = {hashlib.sha256(path.read_bytes()).hexdigest(): path.name for path in (data / connector).iterdir()}
        assert {image.sha256: image.name for image in model.training.images} == files
        assert len(files) == count == model.training.n_train + model.training.n_validation
        assert model.training.unused == {"KO": 1, "OCCLUSION": 2, "PARTIAL OCCLUSION": 1}
        assert model.connector == connector
    assert len({read_student(repository / f"st_conn{i}" / "1").fingerprint for i in (1, 2)}) == 2


def test_the_graph_takes_uint8_images_and_gives_a_float32_map_for_any_batch(repository):
    path = repository / "st_conn1" / "1" / "model.onnx"
    onnx.checker.check_model(onnx.load(path), full_check=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (image,), (map_,) = session.get_inputs(), session.get_outputs()
    assert (image.name, image.type, image.shape) == ("image", "tensor(uint8)", ["batch", 32, 32, 3])
    assert (map_.name, map_.type, map_.shape) == ("map", "tensor(float)", ["batch", 32, 32])
    images = camera_images(3, 32, seed=9)
    together = session.run(None, {"image": images})[0]
    alone = np.concatenate([session.run(None, {"image": image[None]})[0] for image in images])
    assert together.min() >= 0
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)


def test_the_description_says_what_was_trained(repository):
    folder = repository / "st_conn1" / "1"
    model = read_student(folder)
    assert (model.name, model.extractor, model.kind) == ("st_conn1", "student-teacher-resnet18", "student-teacher")
    assert [(layer.name, layer.stride, layer.channels) for layer in model.layers] == [("layer1", 4, 64)]
    assert model.layers[0].q_high > model.layers[0].q_low > 0
    assert model.has_random_weights
    assert len(model.training.losses) == model.training.epochs == 2
    assert model.training.best_epoch in (1, 2)
    assert model.graph_sha256 == hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    assert isinstance(read_any_description(folder), StudentDescription)
    with pytest.raises(DescriptionError):
        read_description(folder)
    assert str(PROJECT) not in (folder / "model.json").read_text()


def test_the_description_tells_the_kind_of_model(tmp_path):
    token_model = write_version(tmp_path / "1")
    assert read_any_description(tmp_path / "1") == token_model
    with pytest.raises(DescriptionError, match="not a student-teacher description"):
        read_student(tmp_path / "1")


def test_the_ok_maps_are_those_of_the_graph_on_the_validation_images(repository, data):
    folder = repository / "st_conn2" / "1"
    model = read_student(folder)
    maps, checksums = read_ok_maps(folder, model)
    assert (maps.dtype, maps.shape) == (np.float32, (model.training.n_validation, 32, 32))
    assert checksums == [image.sha256 for image in model.training.images if image.part == "validation"]
    np.testing.assert_allclose(robust_scores(maps), model.ok_maps.scores)
    # The unit of a map is the difference of the two quantiles of these maps.
    low, high = np.quantile(maps.astype(np.float64), model.quantiles)
    assert high - low == pytest.approx(1, rel=1e-4)


def test_damaged_ok_maps_are_not_read(repository, tmp_path):
    folder = repository / "st_conn2" / "1"
    model = read_student(folder)
    (tmp_path / "ok_maps.npz").write_bytes((folder / "ok_maps.npz").read_bytes()[:-1])
    with pytest.raises(DescriptionError, match="damaged"):
        read_ok_maps(tmp_path, model)


def test_every_runtime_of_this_machine_is_recorded(repository):
    parity = read_student(repository / "st_conn1" / "1").parity
    assert set(parity) == {"onnxruntime-cpu-f32", "openvino-f32"} | ({"openvino-bf16"} if supports_bf16() else set())
    assert parity["onnxruntime-cpu-f32"].passed
    assert parity["openvino-f32"].passed
    assert all(found.passed is (found.max_error <= found.tolerance) for found in parity.values())


def test_errors_of_a_map_are_absolute_up_to_1_and_relative_above():
    expected = np.zeros((1, 10, 10), np.float32)
    expected[0, 0, 0] = 50
    off = expected.copy()
    off[0, 0, 0] = 51
    off[0, 5, 5] = 0.01
    found = compare_maps(off, expected, 0.02)
    assert (found.max_error, found.max_score_error, found.passed) == (pytest.approx(0.02), pytest.approx(0.02), True)
    off[0, 5, 5] = 0.03
    assert not compare_maps(off, expected, 0.02).passed
    off[0, 5, 5] = np.nan
    assert not compare_maps(off, expected, 0.02).passed


def test_a_version_is_complete_for_triton_and_its_map_goes_as_fp32(repository):
    config = parse_config((repository / "st_conn1" / "config.pbtxt").read_text())
    assert (config.name, config.backend) == ("st_conn1", "python")
    assert [(each.name, each.data_type, list(each.dims)) for each in config.output] == [("map", 11, [32, 32])]
    assert config.parameters["axes/map"].string_value == "batch row column"
    folder = repository / "st_conn1" / "1"
    assert config.parameters["fingerprint/1"].string_value == read_student(folder).fingerprint
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "model.onnx", "model.py", "ok_maps.npz"]
    assert (repository / "st_conn1" / "labels_map.txt").read_text().splitlines()[0] == "B: images"


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_the_other_backends_serve_the_exported_file_itself(repository, backend):
    before = (repository / "st_conn2" / "config.pbtxt").read_text()
    config = parse_config(write_serving_files(repository / "st_conn2", ServingOptions(backend)).read_text())
    (repository / "st_conn2" / "config.pbtxt").write_text(before)
    assert (config.default_model_filename, config.output[0].data_type) == ("model.onnx", 11)


def test_the_same_recipe_is_not_trained_again_and_another_seed_is_the_next_version(repository, data, tmp_path):
    shutil.copytree(repository / "st_conn1", tmp_path / "st_conn1")
    first = publish_folder(data / "conn1", options(tmp_path))
    second = publish_folder(data / "conn1", options(tmp_path, seed=1))
    assert (first, second) == (tmp_path / "st_conn1" / "1", tmp_path / "st_conn1" / "2")
    assert read_student(first) == read_student(repository / "st_conn1" / "1")
    assert read_student(first).fingerprint != read_student(second).fingerprint


def test_a_damaged_version_of_the_same_recipe_is_trained_again(repository, data, tmp_path, caplog, full):
    first = shutil.copytree(repository / "st_conn1", tmp_path / "st_conn1") / "1"
    for file in ("model.onnx", "ok_maps.npz") if full else ("ok_maps.npz",):
        version = max(first.parent.glob("[0-9]*"))
        (version / file).write_bytes((version / file).read_bytes()[:-1])
        again = publish_folder(data / "conn1", options(tmp_path))
        assert int(again.name) == int(version.name) + 1
        assert read_student(again).student_sha256 == read_student(first).student_sha256
        assert f"{version} has the same images and options, but it is damaged" in caplog.text
    assert publish_folder(data / "conn1", options(tmp_path)) == again


def test_a_connector_that_cannot_be_trained_does_not_stop_the_others(repository, data, tmp_path, capsys):
    shutil.copytree(repository / "st_conn1", tmp_path / "st_conn1")  # trained already
    rows = (data / "dataset.csv").read_text().splitlines()
    file = data / "more.csv"
    few = [line.replace(",conn1,", ",few,") for line in rows if line.startswith("conn1/")][:3]
    named = [line.replace(",conn2,", ",conn 2,") for line in rows if line.startswith("conn2/")]
    both = [line.replace(",conn2,", ",both,") for line in rows if line.startswith("conn2/")]
    both.append(both[0].replace(",OK", ",KO"))
    others = [*few, *named, *both, ",nameless,OK"]
    file.write_text("\n".join([line for line in rows if ",conn2," not in line] + others) + "\n")
    assert command("--csv", file, "--all", "--repository", tmp_path, *COMMAND) == 1
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [str(tmp_path / "st_conn1" / "1")]
    told = [line for line in captured.err.splitlines() if line.startswith("error: not trained: ")]
    assert len(told) == 4
    for line, said in zip(
        told,
        (
            "of connector both is both OK and KO",
            "connector 'conn 2': 'st_conn 2' is not a model name",
            "connector few: 3 different OK images",
            "an OK row without an image path",
        ),
        strict=True,
    ):
        assert said in line


def test_a_failed_training_does_not_stop_the_next_one(repository, data, tmp_path, monkeypatch, capsys):
    shutil.copytree(repository / "st_conn2", tmp_path / "st_conn2")  # trained already

    def fails(options, connector, *rest):
        if connector == "conn1":
            raise ExportError("no luck")
        return publish_student(options, connector, *rest)

    monkeypatch.setattr("export.student_teacher.command.publish_student", fails)
    assert command("--csv", data / "dataset.csv", "--all", "--repository", tmp_path, *COMMAND) == 1
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [str(tmp_path / "st_conn2" / "1")]
    assert captured.err.splitlines()[-1].endswith("connector conn1: no luck")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--csv", "dataset.csv"], "name a connector with --connector NAME, or use --all. dataset.csv has: conn1,"),
        (["--csv", "dataset.csv", "--connector", "conn9"], "dataset.csv has no connector 'conn9'. It has: conn1,"),
        (["--csv", "dataset.csv", "--all", "--label-column", "verdict"], "no column 'verdict'; its columns are image"),
        (["--csv", "dataset.csv", "--all", "--ok-label", "KO"], "conn1_ko.png"),
        (["--csv", "absent.csv", "--all"], "absent.csv: No such file"),
        (["--ok", "conn1_occluded.png", "--connector", "x"], "0 different OK images; at least 10"),
        (["--ok", "absent"], "absent is not a folder"),
        (["--ok", "conn1", "--all"], "--all trains every connector of a CSV"),
        (["--ok", "conn1", "--connector", "../up"], "not a model name"),
        (["--ok", "conn1", "--size", "100"], "size 100: give a multiple of 32"),
        (["--ok", "conn1", "--layers", "layer9"], "layers layer9: give some of layer1"),
        (["--ok", "conn1", "--epochs", "0"], "epochs 0: must be between"),
        (["--ok", "conn1", "--weights", "absent.safetensors"], "no weights file absent.safetensors"),
    ],
)  # fmt: skip
def test_input_that_cannot_be_trained_is_one_clear_error_and_writes_nothing(
    data, tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(data)
    assert command(*COMMAND, "--repository", tmp_path / "models", *arguments) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error
    assert not (tmp_path / "models").exists()


def test_f32_beyond_its_tolerance_is_not_published(data, tmp_path, monkeypatch):
    monkeypatch.setattr("export.student_teacher.parity.TOLERANCE", {"f32": -1.0, "bf16": -1.0})
    with pytest.raises(ExportError, match="onnxruntime-cpu-f32 and openvino-f32 disagree with torch"):
        publish_folder(data / "conn1", options(tmp_path))
    assert not list((tmp_path / "st_conn1").glob("[0-9]*"))


def test_the_token_model_keeps_its_command_line(capsys):
    with pytest.raises(SystemExit):
        export_main.main(["--help"])
    said = capsys.readouterr().out
    assert "DINOv2" in said
    assert "student-teacher" in said


def test_the_help_of_the_training_names_its_options(capsys):
    with pytest.raises(SystemExit):
        command("--help")
    said = capsys.readouterr().out
    for option in ("--csv", "--ok", "--connector", "--all", "--layers", "--seed", "--train-on", "--backend"):
        assert option in said
