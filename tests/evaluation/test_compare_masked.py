"""Raw against masked, on an ROI fitted with a manual box."""

import asyncio
import json
from functools import partial

import cv2
import numpy as np
import pytest

from evaluation import compare_masked
from evaluation.compare_masked import compare, first_of, in_words, normalised, show
from evaluation.data import DataError
from gateway.errors import UnknownRoiError
from gateway.learning.request import FitRequest, ImageFile
from gateway.learning.service import FitService
from gateway.networks.registry import EngineRegistry
from gateway.process.services import create_services
from gateway.settings import Settings
from gateway.store.roi_key import RoiKey
from tests.evaluation.tiny import tile, write
from tests.export.tiny_model import write_version
from tests.gateway.brightness_engine import BrightnessEngine, image

BOXED, PLAIN = RoiKey("part", "boxed"), RoiKey("part", "plain")


@pytest.fixture
def settings(tmp_path):
    """Two ROIs fitted with three grey images, one with a box around the upper half, of weights 0.1 and 2."""
    config = tmp_path / "rois.json"
    config.write_text(json.dumps({"boxed": [0, 64, 0, 128]}))
    settings = Settings(
        _env_file=None,
        models_dir=tmp_path / "models",
        cache_dir=tmp_path / "cache",
        roi_config=config,
        coreset_rate=1.0,
        p_score=100.0,
    )
    services = create_services(settings)
    fitting = FitService(EngineRegistry(BrightnessEngine(), settings), services.store, services.weighting, settings)

    async def fit():
        for key in (BOXED, PLAIN):
            await fitting.fit(FitRequest(key, [ImageFile(f"{g}.png", partial(image, g)) for g in (100, 101, 102)], 1.0))

    asyncio.run(fit())
    return settings


@pytest.fixture
def pictures(tmp_path):
    """Good, and one with a bright patch in the lower half, outside the box."""
    return write(tmp_path / "ok.png", tile(103)), write(tmp_path / "ko.png", tile(101, (3, 1)))


def compared(settings, key, pictures):
    return asyncio.run(compare(settings, key, *pictures, engine=BrightnessEngine()))


def test_a_defect_outside_the_box_weighs_a_tenth(settings, pictures):
    found = compared(settings, BOXED, pictures)
    assert found.weights == pytest.approx((0.1, 2.0))
    assert found.kind == "manual"
    assert found.ko.raw.shape == found.ko.masked.shape == (16, 16)
    assert found.ko.raw_score > 10 * found.ok.raw_score
    assert found.ko.masked_score < 0.25 * found.ko.raw_score
    assert found.ok.masked_score == pytest.approx(2 * found.ok.raw_score, rel=1e-4)
    said = in_words(found)
    assert "min 0.1, max 2 (manual)" in said
    assert f"{found.ko.masked_score:.4f}" in said


def test_a_version_of_another_input_size_is_compared_by_its_own_model(settings, pictures, tmp_path):
    for name, grid in (("dinov2_vits14", 2), ("dinov2_vits14_56", 4)):
        write_version(tmp_path / "repository" / name / "1", factor=1 / 256, grid=grid)
    sized = settings.model_copy(update={"model_repository": tmp_path / "repository", "precision": "f32"})
    key = RoiKey("part", "sized")

    async def fit():
        services = create_services(sized)
        await services.engine.start()
        files = [ImageFile(f"{g}.png", partial(image, g)) for g in (100, 101, 102)]
        await services.fitting.fit(FitRequest(key, files, 1.0, input_size=56))
        await services.engines.close()

    asyncio.run(fit())
    found = asyncio.run(compare(sized, key, *pictures))
    assert found.ko.raw_score > 10 * found.ok.raw_score


def test_without_weights_both_are_the_same(settings, pictures):
    found = compared(settings, PLAIN, pictures)
    assert found.weights is None
    assert found.ko.raw_score == found.ko.masked_score
    assert "none" in in_words(found)


def test_the_neighbours_are_those_of_the_version_not_of_the_settings(settings, pictures):
    later = settings.model_copy(update={"k": 3})
    found, expected = compared(later, PLAIN, pictures), compared(settings, PLAIN, pictures)
    assert found.ko.raw_score == expected.ko.raw_score


def test_the_figure_is_written(settings, pictures, tmp_path, monkeypatch):
    for variable in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(variable, raising=False)
    out = tmp_path / "figures" / "compared.png"
    show(compared(settings, BOXED, pictures), out, on_screen=True)
    assert cv2.imread(str(out)).shape[1] == 1300


def test_an_roi_never_fitted_is_refused(settings, pictures):
    with pytest.raises(UnknownRoiError):
        compared(settings, RoiKey("part", "none"), pictures)


def test_normalised_is_from_0_to_1():
    np.testing.assert_allclose(normalised(np.array([[2, 4], [3, 2]], np.float32)), [[0, 1], [0.5, 0]])
    assert not normalised(np.full((2, 2), 7, np.float32)).any()


def test_the_first_ok_and_ko_of_the_connector(tmp_path):
    for name in "abcd":
        write(tmp_path / f"{name}.png", tile(100))
    file = tmp_path / "d.csv"
    lines = ["x.png,other,OK", "hand.png,c,OCCLUSION", "a.png,c,KO", "b.png,c,OK", "c.png,c,OK", "d.png,c,KO"]
    file.write_text("image path,connector,label\n" + "\n".join(lines) + "\n")
    assert first_of(file, "c", ["KO"]) == (tmp_path / "b.png", tmp_path / "a.png")
    with pytest.raises(DataError, match="no KO image of connector 'c'"):
        first_of(file, "c", ["NG"])
    with pytest.raises(DataError, match=r"x\.png does not exist"):
        first_of(file, "other", ["KO"])


def test_the_command_says_what_is_wrong(settings, pictures, monkeypatch, capsys):
    ok, ko = map(str, pictures)
    monkeypatch.setattr(compare_masked, "Settings", lambda: settings.model_copy(update={"model_name": "none"}))
    assert compare_masked.main(["--role", "part", "--roi", "boxed", "--ok", ok, "--ko", ko, "--no-show"]) == 1
    assert "no tokens" in capsys.readouterr().err
    for wrong in (["--ok", ok], ["--ok", ok, "--ko", ko, "--csv", "d.csv"], []):
        with pytest.raises(SystemExit, match="2"):
            compare_masked.main(["--role", "part", "--roi", "boxed", *wrong])
        capsys.readouterr()
