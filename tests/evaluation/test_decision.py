"""Repeated splits, statistics and pasted defects, on images whose distances can be worked out by hand."""

import argparse
import asyncio
import json

import cv2
import numpy as np
import pytest

from evaluation import __main__ as command
from evaluation import decision_command
from evaluation.data import read_folder
from evaluation.decision import Plan, measure
from evaluation.fitted import Fitted
from evaluation.inspection import FitRecipe
from evaluation.local import LocalInspector
from evaluation.pasted import Defect, defects, pasted
from evaluation.pool import Pool
from evaluation.splits import of_types, random_splits
from evaluation.statistic import rejects, statistic_from
from gateway.images.decoding import Limits
from gateway.settings import Settings
from gateway.store.ok_maps import Frame, OkMaps
from tests.evaluation.tiny import N_GOOD, N_TRAIN, data_set
from tests.gateway.brightness_engine import BrightnessEngine

MM_PER_PX = 1.0
LIMITS = Limits(10**7, 10**7)


def silent(label, total):
    return lambda n: None


@pytest.fixture
def data(tmp_path):
    return read_folder(data_set(tmp_path / "tiny"))


@pytest.fixture
def settings(tmp_path):
    folders = {name: tmp_path / name.removesuffix("_dir") for name in ("models_dir", "cache_dir", "state_dir")}
    return Settings(_env_file=None, coreset_rate=0.5, **folders)


def plan(**changes):
    asked = {"n_splits": 3, "learn": [4, 7], "rates": [0.2, 0.05], "statistics": [], "defects": [], "n_pasted": 0}
    return Plan(**{**asked, "mm_per_px": MM_PER_PX, **changes})


def measured(data, plan, settings):
    async def run():
        with Pool(data, BrightnessEngine(), LIMITS) as pool:
            await pool.load(lambda n: None)
            return await measure(pool, plan, settings, silent)

    return asyncio.run(run())


def test_a_split_inspects_the_same_unseen_images_however_many_are_learned():
    for split in random_splits(10, 6, 5, seed=3):
        assert len(split.unseen) == 4
        assert set(split.learned(3)) < set(split.learned(6))
        assert sorted([*split.learned(6), *split.unseen]) == list(range(10))
    assert random_splits(10, 6, 5, seed=3) == random_splits(10, 6, 5, seed=3) != random_splits(10, 6, 5, seed=4)


@pytest.mark.parametrize("n_learn", [1, 10, 11])
def test_a_split_without_images_to_learn_or_to_inspect_is_refused(n_learn):
    with pytest.raises(ValueError, match=f"{n_learn} of 10"):
        random_splits(10, n_learn, 1, seed=0)


def test_images_of_a_type_are_ordered_from_the_faintest():
    assert of_types(["a", "b", "a", "b"], [3.0, 1.0, 2.0, 4.0]) == {"a": [2, 0], "b": [1, 3]}


@pytest.mark.parametrize(
    ("name", "value"), [("p50", 2.5), ("top:25", 9.0), ("max", 9.0), ("opening:2px", 3.0), ("opening:8mm2", 3.0)]
)
def test_a_statistic_is_the_number_that_its_name_says(name, value):
    maps = OkMaps(np.array([[1, 9, 2, 3]], np.float32), (2, 2), (Frame((2, 2)),))
    assert statistic_from(name).of(maps, 0, mm_per_px=2.0).tolist() == [value]


@pytest.mark.parametrize("name", ["", "p101", "top:0", "opening:25", "mean", "max9"])
def test_an_unknown_statistic_is_refused(name):
    with pytest.raises(ValueError, match="not a statistic"):
        statistic_from(name)


def test_a_rule_rejects_what_lies_above_its_threshold():
    ok, values = np.linspace(0, 1, 19), np.array([0.5, 1.0, 1.01, 2.0])
    assert rejects(ok, values, "conformal", 0.05, margin=0.5).tolist() == [False, False, True, True]
    assert rejects(ok, values, "spec", 0.05, margin=0.5).tolist() == [False, False, False, True]


def test_a_defect_has_its_size_and_place_whatever_its_contrast():
    image = np.full((60, 80), 200, np.uint8)
    dark, bright = (pasted(image, Defect("disc", 4.0, contrast), 0.2, (0, 1)) for contrast in (-0.5, 0.2))
    assert np.array_equal(dark != 200, bright != 200)
    assert int((dark != 200).sum()) == pytest.approx(np.pi * 10**2, rel=0.15)
    assert dark.min() == 100
    assert bright.max() == 240
    colour = pasted(np.full((60, 80, 3), 200, np.uint8), Defect("disc", 4.0, -0.5), 0.2, (0, 1))
    assert np.array_equal(colour, np.repeat(dark[..., None], 3, axis=2))


@pytest.mark.parametrize("form", ["disc", "line", "blob"])
def test_a_larger_defect_covers_more_and_lies_inside_the_image(form):
    image = np.full((100, 120), 200, np.uint8)
    areas = [int((pasted(image, Defect(form, size, -0.5), 0.2, (5, 0)) != 200).sum()) for size in (0.5, 1.6, 5.0)]
    assert 0 < areas[0] < areas[1] < areas[2]


def enlarge(folder):
    """Make the pixels of all images two pixels wide and high."""
    for path in folder.rglob("*.png"):
        pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), np.repeat(np.repeat(pixels, 2, axis=0), 2, axis=1))


@pytest.mark.parametrize("tiles", [(1, 1), (2, 2)])
def test_the_verdicts_of_a_split_are_those_of_the_service(data, settings, tmp_path, tiles):
    """The same images learned and calibrated by the services, and inspected by the pipeline."""
    if tiles != (1, 1):
        enlarge(tmp_path / "tiny")
        data = read_folder(tmp_path / "tiny")

    async def both():
        inspector = LocalInspector(settings, MM_PER_PX, settings.cache_dir / "tokens", BrightnessEngine())
        await inspector.start()
        fit = await inspector.fit(data.train, FitRecipe(), lambda n: None)
        assert fit["tiles"] == list(tiles)
        calibration = await inspector.calibrate(None)
        judged = await inspector.inspect(data.test, lambda n: None)
        for sample in data.test:
            assert (await inspector.map_of(sample)).shape == (16 * tiles[0], 16 * tiles[1])
        await inspector.close()
        with Pool(data, BrightnessEngine(), LIMITS, max_tiles=4) as pool:
            await pool.load(lambda n: None)
            assert pool.tiling.tiles == tiles
            fitted = Fitted(pool, range(N_TRAIN), settings, MM_PER_PX)
            own = fitted.calibrated(settings.false_alarm_rate)
            indices = range(N_TRAIN, pool.n_images)
            measured = fitted.measured(fitted.maps(map(pool.tokens, indices), pool.frames(indices)))
            return calibration, judged, own, measured, fitted.rejected([own], measured)[0]

    calibration, judged, own, measured, rejected = asyncio.run(both())
    assert (calibration.threshold, calibration.pixel_threshold) == (own.threshold, own.pixel_threshold)
    by_name = {each.sample.path: each for each in judged}
    in_order = [by_name[path] for path in sorted(by_name, key=lambda path: (path.parent.name != "good", path))]
    assert [each.score for each in in_order] == pytest.approx(measured.scores, abs=1e-6)
    assert [each.is_rejected for each in in_order] == rejected.tolist()
    assert rejected.any()
    assert not rejected.all()


def test_every_number_of_images_rate_and_statistic_is_measured_in_every_split(data, settings):
    findings = measured(data, plan(statistics=[statistic_from("max")]), settings)
    assert list(findings.service) == [(4, 0.2), (4, 0.05), (7, 0.2), (7, 0.05)]
    for outcomes in (*findings.service.values(), findings.before, *findings.statistics.values()):
        assert [(each.n_ok, each.n_ng) for each in outcomes] == [(N_TRAIN + N_GOOD - 7, 4)] * 3
    assert {key[1:] for key in findings.statistics} == {("conformal", 0.2), ("conformal", 0.05), ("spec", 0.2)}
    assert all(each.found == 4 for outcomes in findings.service.values() for each in outcomes)


def test_ng_images_that_are_shown_never_let_a_found_one_pass(data, settings):
    shown = measured(data, plan(), settings).shown
    assert {(each.kind, each.which, each.n) for each in shown} == {
        *(("spot", which, n) for which in ("grossest", "faintest") for n in (1, 2, 3)),
        *(("pale", which, 1) for which in ("grossest", "faintest")),
    }
    assert all(each.shown.found >= each.without.found for each in shown)


def test_pasted_defects_are_judged_in_the_splits_that_have_not_learned_their_image(data, settings):
    asked = defects([2, 8], [-0.9], ["disc"])
    findings = measured(data, plan(defects=asked, n_pasted=10), settings)
    n_unseen = 3 * (N_TRAIN + N_GOOD - 7)
    assert set(findings.pasted) == {(defect, rate) for defect in (None, *asked) for rate in (0.2, 0.05)}
    assert all(n == n_unseen for _, n in findings.pasted.values())
    small, large = (findings.pasted[defect, 0.05][0] for defect in asked)
    assert small <= large == n_unseen


@pytest.mark.parametrize("seed", range(4))
def test_defects_are_pasted_on_images_that_a_split_has_not_learned(data, settings, seed):
    findings = measured(data, plan(n_splits=1, defects=defects([4], [-0.9]), n_pasted=2, seed=seed), settings)
    assert findings.n_pasted_images == 2
    assert {n for _, n in findings.pasted.values()} == {2}


def options(folder, out, *more):
    return command._parser().parse_args([str(folder), "--out", str(out), "--mm-per-px", "1", *more])


def test_the_report_has_the_figures_and_the_curve(data, settings, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    more = ["--splits", "2", "--learn", "4", "6", "--rate", "0.1", "--sizes", "2", "8", "--paste-on", "9"]
    args = options(tmp_path / "tiny", out, *more)
    engine = BrightnessEngine()
    report = asyncio.run(decision_command.run(args, settings, [data], tmp_path / "tokens", silent, engine)).read_text()
    assert "| 4 | 10.0% |" in report
    assert "| opening:25px |" in report
    assert "the 3 faintest of a type" in report
    assert "![Share of pasted defects that is rejected, by size](size-curve.png)" in report
    assert str(tmp_path) not in report
    assert (out / "size-curve.png").read_bytes().startswith(b"\x89PNG")
    (found,) = json.loads((out / "report.json").read_text())
    assert found["plan"]["learn"] == [4, 6]
    assert len(found["pasted"]) == 1 + 2 * 3 * 3
    kept = list((tmp_path / "tokens").rglob("*.npy"))
    assert len(kept) == N_TRAIN + N_GOOD + 4, "tokens of pasted images are not kept"


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--learn", "4"], "add --splits"),
        (["--splits", "2", "--url", "http://127.0.0.1:1"], "--url"),
        (["--splits", "2", "--p-score", "97"], "single split"),
        (["--splits", "0"], "at least 1"),
        (["--splits", "2", "--statistic", "mean"], "not a statistic"),
        (["--splits", "2", "--contrasts", "0"], "relative change"),
    ],
)
def test_options_that_do_not_go_together_are_refused(data, tmp_path, capsys, more, says):
    with pytest.raises(SystemExit):
        command.main([str(tmp_path / "tiny"), *more])
    assert says in capsys.readouterr().err


def test_too_few_images_for_the_splits_are_named(data, settings, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(decision_command, "create_services", lambda _: argparse.Namespace(engine=BrightnessEngine()))
    monkeypatch.setattr(command, "_CACHE", tmp_path / "cache")
    out = str(tmp_path / "out")
    assert command.main([str(tmp_path / "tiny"), "--splits", "1", "--learn", "50", "--out", out]) == 1
    assert "50 of 10 OK images to learn" in capsys.readouterr().err
