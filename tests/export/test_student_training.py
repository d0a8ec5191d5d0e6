"""The loss, the map and the training, compared with a computation by hand. The same seed gives the same weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import interpolate

from export.comparison import camera_images
from export.errors import ExportError
from export.student_teacher.checkpoint import FILE, Progress, read_checkpoint, write_checkpoint
from export.student_teacher.dataset import TrainingImages
from export.student_teacher.graph import StudentTeacherGraph
from export.student_teacher.resnet import TIMM_ID, load_teacher, new_student
from export.student_teacher.training import TrainingOptions, channel_statistics, hard_feature_loss, train
from export.weights import StateDict

LAYERS = ("layer1", "layer2")


def new_graph(layers=LAYERS, seed: int = 0, size: int = 32) -> StudentTeacherGraph:
    return StudentTeacherGraph(load_teacher("seed:0", layers)[0], new_student(layers, seed), size)


@pytest.fixture(scope="module")
def images() -> TrainingImages:
    pixels = camera_images(14, 32, seed=4)
    names = [f"{i:064x}" for i in range(14)]
    return TrainingImages(pixels[:11], pixels[11:], dict(zip(names, names, strict=True)), names[:11], names[11:], 0)


def trained(graph: StudentTeacherGraph, images: TrainingImages, folder: Path, **options) -> StateDict:
    given = TrainingOptions(**{"epochs": 3, "batch_size": 4, "device": "cpu", **options})
    train(graph, images, given, recipe="recipe", folder=folder, name="test")
    return graph.student.state_dict()


def same(a: StateDict, b: StateDict) -> bool:
    return all(torch.equal(a[key], b[key]) for key in a)


def test_the_map_is_the_mean_of_the_layers_in_their_units(images):
    graph = new_graph().eval()
    graph.set_channels(*channel_statistics(graph, images.train))
    graph.set_units([0.5, 4.0])
    batch = torch.from_numpy(images.validation)
    with torch.inference_mode():
        pixels = graph.pixels(batch)
        expected = torch.zeros(len(batch), 32, 32)
        for layer, unit, teacher, student in zip(
            LAYERS, (0.5, 4.0), graph.teacher(pixels), graph.student(pixels), strict=True
        ):
            seen = torch.cat([graph.teacher(graph.pixels(torch.from_numpy(images.train)))[LAYERS.index(layer)]])
            deviation, mean = torch.std_mean(seen, dim=(0, 2, 3), correction=0, keepdim=True)
            squared = (((teacher - mean) / deviation - student) ** 2).mean(dim=1, keepdim=True)
            expected += interpolate(squared, size=32, mode="bilinear", align_corners=False)[:, 0] / unit / 2
        found = graph(batch)
    assert found.dtype == torch.float32
    assert found.min() >= 0
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_the_loss_is_the_mean_of_the_squared_differences_above_the_quantile(images):
    graph = new_graph().eval()
    batch = torch.from_numpy(images.train[:3]).float()
    with torch.inference_mode():
        found = float(hard_feature_loss(graph, batch, 0.99))
        layers = [each.numpy() for each in graph.squared_differences(graph.pixels(batch))]
    by_hand = []
    for layer in layers:
        for image in layer:
            values = np.sort(image.ravel())[::-1]
            by_hand.append(values[: round(0.01 * values.size)].mean())
    assert found == pytest.approx(np.mean(by_hand), rel=1e-5)


def test_training_lowers_the_loss_and_leaves_the_teacher_alone(images, tmp_path):
    graph = new_graph()
    teacher = {key: value.clone() for key, value in graph.teacher.state_dict().items()}
    options = TrainingOptions(epochs=8, batch_size=4, hard_quantile=0, device="cpu")
    result = train(graph, images, options, recipe="r", folder=tmp_path, name="test")
    assert len(result.history) == 8
    assert result.history[-1][0] < 0.9 * result.history[0][0]
    assert same(teacher, graph.teacher.state_dict())


def test_a_checkpoint_of_other_options_is_not_continued_and_that_is_logged(images, tmp_path, caplog):
    write_checkpoint(tmp_path, "other", Progress({}, {}, {}, [(1.0, 2.0)] * 7, 0.0))
    assert read_checkpoint(tmp_path, "this") is None
    assert "is of other images or options, after epoch 7: starting over" in caplog.text


def test_other_random_numbers_do_not_change_a_student():
    torch.manual_seed(1)
    one = new_student(LAYERS, 3).state_dict()
    torch.rand(7)
    assert same(one, new_student(LAYERS, 3).state_dict())


def test_the_learned_share_of_differences_falls_from_all_to_the_hardest():
    options = TrainingOptions(epochs=12, hard_quantile=0.999, hardening=0.5)
    shares = [1 - options.quantile_at(epoch) for epoch in range(12)]
    np.testing.assert_allclose(shares, [10 ** (-min(epoch, 6) / 2) for epoch in range(12)])
    assert TrainingOptions(hardening=0).quantile_at(0) == pytest.approx(0.999)


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_training_continues_from_its_checkpoint_to_the_same_weights(images, tmp_path, epochs, monkeypatch):
    whole = trained(new_graph(), images, tmp_path / "whole")

    class CutOffError(Exception):
        pass

    def cut_off(folder, recipe, progress):
        write(folder, recipe, progress)
        if len(progress.history) == epochs:
            raise CutOffError

    write = train.__globals__["write_checkpoint"]
    monkeypatch.setitem(train.__globals__, "write_checkpoint", cut_off)
    with pytest.raises(CutOffError):
        trained(new_graph(), images, tmp_path / "cut")
    monkeypatch.setitem(train.__globals__, "write_checkpoint", write)
    progress = read_checkpoint(tmp_path / "cut", "recipe")
    assert progress is not None
    assert len(progress.history) == epochs
    assert same(whole, trained(new_graph(), images, tmp_path / "cut"))


def test_a_checkpoint_of_another_recipe_or_a_damaged_one_is_not_continued(images, tmp_path):
    trained(new_graph(), images, tmp_path, epochs=1)
    assert read_checkpoint(tmp_path, "recipe") is not None
    assert read_checkpoint(tmp_path, "another recipe") is None
    data = (tmp_path / FILE).read_bytes()
    for damaged in (data[: len(data) // 2], b"", b"\x80\x04K\x01.", data[:8] + b"{" * 50 + data[58:]):
        (tmp_path / FILE).write_bytes(damaged)
        assert read_checkpoint(tmp_path, "recipe") is None


def test_the_training_ends_when_the_validation_loss_stops_falling(images, tmp_path):
    graph = new_graph()
    # With this learning rate only noise is learned, so the best epoch is an early one.
    options = TrainingOptions(epochs=40, patience=2, batch_size=4, learning_rate=1e-8, device="cpu")
    result = train(graph, images, options, recipe="r", folder=tmp_path, name="test")
    validation = [loss for _, loss in result.history]
    assert len(validation) < 40
    assert len(validation) == result.best_epoch + 2
    assert validation[result.best_epoch - 1] == min(validation)


@pytest.mark.parametrize("layers", [("layer1",), ("layer2",), ("layer1", "layer3"), ("layer2", "layer3", "layer4")])
def test_any_layers_make_a_map(layers):
    graph = new_graph(layers).eval()
    with torch.inference_mode():
        assert graph(torch.from_numpy(camera_images(2, 32))).shape == (2, 32, 32)
    assert not any(f"layer{n}." in key for key in graph.state_dict() for n in range(int(layers[-1][-1]) + 1, 5))


@pytest.mark.parametrize("layers", [(), ("layer5",), ("layer2", "layer1"), ("layer1", "layer1")])
def test_other_layers_are_refused(layers):
    with pytest.raises(ExportError, match="give some of layer1, layer2, layer3, layer4"):
        load_teacher("seed:0", layers)


def test_weights_that_end_before_a_layer_are_refused_with_the_layers_they_have(tmp_path):
    whole = load_teacher("seed:0", ("layer4",))[1].state
    cut = {key: value for key, value in whole.items() if not key.startswith("layer4.")}
    save_file(cut, tmp_path / "cut.safetensors")
    teacher, weights = load_teacher(str(tmp_path / "cut.safetensors"), ("layer1", "layer3"))
    assert weights.source.kind == "file"
    assert same(teacher.state_dict(), load_teacher("seed:0", ("layer1", "layer3"))[0].state_dict())
    with pytest.raises(ExportError, match=r"cut\.safetensors has no layer4: .*--layers layer1,layer2,layer3"):
        load_teacher(str(tmp_path / "cut.safetensors"), ("layer2", "layer4"))


def test_weights_of_another_network_are_refused(tmp_path):
    save_file({"patch_embed.proj.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ExportError, match="not of a ResNet18"):
        load_teacher(str(tmp_path / "other.safetensors"), ("layer1",))


def test_the_teacher_is_timms_resnet18_up_to_the_last_relu_of_a_stage():
    import timm

    teacher, weights = load_teacher("seed:2", LAYERS)
    whole = timm.create_model(TIMM_ID, features_only=True, out_indices=(1, 2)).eval()
    whole.load_state_dict(weights.state, strict=False)
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        for found, expected in zip(teacher(pixels), whole(pixels), strict=True):
            torch.testing.assert_close(found.relu(), expected)
            assert found.min() < 0
