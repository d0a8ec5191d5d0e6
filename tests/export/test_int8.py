"""The model in int8: written by NNCF, held to the decisions in f32, and served as another model."""

import asyncio
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from export import int8_gate
from export.errors import ExportError
from export.int8_gate import auroc, compare_decisions
from gateway.errors import ModelMismatchError
from gateway.networks.embedded.engine import EmbeddedEngine
from gateway.networks.model_description import INT8_FILES, newest_version, read_description
from gateway.settings import Settings
from tests.conftest import copied_version
from tests.export.tiny_student import write_images

pytest.importorskip("nncf", reason="NNCF is not installed: pip install -c constraints.txt -e '.[int8]'")

from export import int8
from export.int8 import provide_int8


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    write_images(folder, 12, size=112)
    return folder


@pytest.fixture(scope="module")
def exported(small_model_repository: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version in int8. With random weights and six images, the AUROC of either precision is near one half."""
    version = copied_version(
        newest_version(small_model_repository / "dinov2_vits14"), tmp_path_factory.mktemp("repository")
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(int8_gate, "LARGEST_AUROC_LOSS", 0.3)
        patch.setattr(int8_gate, "LEAST_SPEARMAN", 0.5)
        provide_int8(version, read_description(version), images)
    return version


def started(version: Path, tmp_path: Path, **settings: object) -> EmbeddedEngine:
    named = {"model_repository": version.parent.parent, "cache_dir": tmp_path, "device": "cpu", **settings}
    return EmbeddedEngine(Settings(**named))


def test_int8_is_another_model_whose_figures_are_in_the_description(exported):
    model = read_description(exported)
    assert model.int8 is not None
    assert model.int8.passed
    assert 0.5 <= model.int8.spearman <= 1
    assert model.int8.auroc_int8 >= model.int8.auroc_f32 - 0.3
    assert 0.5 < model.int8.mean_cosine < 1
    assert (model.int8.n_calibration, model.int8.n_inspected) == (6, 6)
    assert not model.as_int8().same_model_as(model)
    assert (exported / INT8_FILES[1]).stat().st_size < 0.4 * (exported / "model.onnx").stat().st_size


def test_the_same_images_are_not_calibrated_on_again_and_a_damaged_file_is_written_again(exported, images, caplog):
    before = read_description(exported)
    caplog.set_level("INFO", "export.int8")
    assert provide_int8(exported, before, images) == before
    assert "has it from the same images" in caplog.text


def test_the_engine_serves_int8_where_it_is_asked_for_and_says_why(exported, tmp_path):
    base = read_description(exported)
    size = base.input_size
    image = np.full((1, size, size, 3), 128, np.uint8)

    async def run() -> None:
        engine = started(exported, tmp_path, precision="int8")
        await engine.start()
        status = engine.status
        assert (status.ready, status.runtime) == (True, "openvino-int8"), status.reason
        assert status.runtime_reason == "GATEWAY_PRECISION=int8"
        assert engine.model == base.as_int8()
        tokens = await engine.tokens(image, model=engine.model)
        np.testing.assert_allclose(np.linalg.norm(tokens, axis=-1), 1, atol=1e-2)
        with pytest.raises(ModelMismatchError):
            await engine.tokens(image, model=base)
        await engine.close()

    asyncio.run(run())


@pytest.mark.parametrize("change", ["damaged", "not there"])
def test_int8_that_cannot_be_served_is_named_and_f32_still_is(exported, tmp_path, change):
    version = copied_version(exported, tmp_path)
    path = version / INT8_FILES[1]
    if change == "damaged":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        path.unlink()

    engine = started(version, tmp_path / "cache", precision="int8")
    asyncio.run(engine.start())
    assert engine.status.runtime == "none"
    assert INT8_FILES[1] in (engine.status.reason or "")
    other = started(version, tmp_path / "cache", precision="f32")
    asyncio.run(other.start())
    assert other.status.runtime == "openvino-f32"


def test_decisions_that_differ_too_much_are_recorded_and_nothing_is_served(exported, tmp_path, monkeypatch):
    version = copied_version(exported, tmp_path)  # with files of an int8 that passed
    write_images(images_now := tmp_path / "other", 12, seed=5, size=112)
    monkeypatch.setattr(int8_gate, "LEAST_SPEARMAN", 1.01)
    monkeypatch.setattr(
        int8, "_quantise", lambda *given: [shutil.copy(exported / name, given[-1]) for name in INT8_FILES]
    )
    with pytest.raises(ExportError, match=r"int8 decides too differently .* rank correlation of the peaks"):
        provide_int8(version, read_description(version), images_now)
    assert not any((version / name).exists() for name in INT8_FILES)
    found = json.loads((version / "model.json").read_text())["int8"]
    assert found["passed"] is False
    assert found["spearman"] > 0


def test_too_few_images_are_refused(small_model_repository, tmp_path):
    version = copied_version(newest_version(small_model_repository / "dinov2_vits14"), tmp_path)
    write_images(tmp_path / "few", 4, size=112)
    with pytest.raises(ExportError, match="4 different OK images; at least 10"):
        provide_int8(version, read_description(version), tmp_path / "few")


def by_brightness(weight: float):
    """A network whose tokens are a 2 x 2 grid of the direction (mean brightness, 255), and noise of this weight."""
    random = np.random.default_rng(0)

    def tokens(images):
        grid = images.astype(np.float32).mean(axis=3).reshape(len(images), 2, 20, 2, 20).mean(axis=(2, 4)).reshape(-1)
        rows = np.stack([grid, np.full_like(grid, 255)], axis=1) + weight * random.normal(size=(len(grid), 2))
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows.astype(np.float32).reshape(len(images), 4, 2)

    return tokens


def test_the_same_network_ranks_alike_and_noise_does_not():
    images = np.random.default_rng(1).integers(100, 140, (16, 40, 40, 3)).astype(np.uint8)
    same = compare_decisions(by_brightness(0), by_brightness(0), images[:8], images[8:], (2, 2))
    assert same.passed
    assert same.spearman == pytest.approx(1)
    assert same.auroc_f32 == same.auroc_int8 > 0.5
    noisy = compare_decisions(by_brightness(0), by_brightness(20), images[:8], images[8:], (2, 2))
    assert noisy.spearman < 0.5
    assert not noisy.passed


def test_auroc_counts_pairs():
    assert auroc(np.array([1.0, 3.0, 2.0, 4.0]), np.array([False, False, True, True])) == 0.75
    assert auroc(np.array([1.0, 1.0]), np.array([False, True])) == 0.5
