"""A small data set from images to report, in process and over HTTP."""

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import replace

import cv2
import httpx
import numpy as np
import pytest
from pydantic import SecretStr

from evaluation import __main__ as command
from evaluation.data import read_folder
from evaluation.evaluate import evaluate, worst_false_alarms, worst_misses
from evaluation.inspection import FitRecipe
from evaluation.local import LocalInspector
from evaluation.models import ExportFailedError, Variant, repository_of, weights_in_words
from evaluation.remote import RemoteError, RemoteInspector
from evaluation.tokens import RememberingEngine
from gateway.app import create_app
from gateway.inspection.pipeline import InspectionPipeline
from gateway.learning.service import FitService
from gateway.networks.model_description import newest_version, read_description
from gateway.networks.registry import EngineRegistry
from gateway.settings import Settings
from postprocess.anomaly_map import score
from tests.evaluation.tiny import N_GOOD, N_TRAIN, data_set, tile, write
from tests.export.tiny_student import write_images
from tests.gateway.brightness_engine import BrightnessEngine
from tests.promises.keys import make_key

MM_PER_PX = 1.0


@pytest.fixture
def tiny(tmp_path):
    return data_set(tmp_path / "tiny")


@pytest.fixture
def settings(tmp_path):
    folders = {name: tmp_path / name.removesuffix("_dir") for name in ("models_dir", "cache_dir", "state_dir")}
    return Settings(_env_file=None, coreset_rate=0.5, **folders)


def silent(label, total):
    return lambda n: None


async def run(inspector, data, **sweep):
    await inspector.start()
    try:
        return await evaluate(inspector, data, stage=silent, **sweep)
    finally:
        await inspector.close()


class CountingEngine(BrightnessEngine):
    n = 0

    async def tokens(self, images, **rest):
        self.n += len(images)
        return await super().tokens(images, **rest)


def test_spots_are_found_and_good_images_pass(tiny, settings, tmp_path):
    inspector = LocalInspector(settings, MM_PER_PX, tmp_path / "tokens", BrightnessEngine())
    (found,) = asyncio.run(run(inspector, read_folder(tiny)))
    assert found.image.auroc == found.image.ap == found.image.f1_max == 1.0
    assert found.false_alarms.by_verdict.n == N_GOOD
    assert found.misses.by_score.count == found.misses.by_verdict.count == 0
    assert list(found.misses_by_type) == ["pale", "spot"]
    assert found.pixel.auroc > 0.95
    assert found.pixel.n_regions == 3
    assert found.pixel.left_out == ["pale/0.png"]
    assert found.fit["n_ok"] == N_TRAIN
    assert found.calibration.method == "conformal, leave-one-out"
    assert worst_misses(found) == []
    assert len(worst_false_alarms(found)) == found.false_alarms.by_verdict.count


def test_worst_come_first(tiny, settings, tmp_path):
    inspector = LocalInspector(settings, MM_PER_PX, tmp_path / "tokens", BrightnessEngine())
    (found,) = asyncio.run(run(inspector, read_folder(tiny)))
    turned = [replace(j, verdict="ok" if j.sample.is_ng else "ng") for j in found.judged]
    found = replace(found, judged=turned)
    misses, alarms = worst_misses(found), worst_false_alarms(found)
    assert [len(misses), len(alarms)] == [4, N_GOOD]
    assert [j.score for j in misses] == sorted(j.score for j in misses)
    assert [j.score for j in alarms] == sorted((j.score for j in alarms), reverse=True)


def test_a_sweep_asks_the_network_once_for_each_image(tiny, settings, tmp_path):
    engine = CountingEngine()
    inspector = LocalInspector(settings, MM_PER_PX, tmp_path / "tokens", engine)
    data = read_folder(tiny)
    runs = asyncio.run(run(inspector, data, coreset_rates=[0.2, 0.5], seeds=[0, 1], p_scores=[95, 99]))
    assert len(runs) == 8
    assert {(r.fit["coreset_rate"], r.fit["seed"], r.calibration.score_percentile) for r in runs} == {
        (rate, seed, p) for rate in (0.2, 0.5) for seed in (0, 1) for p in (95, 99)
    }
    unique = {path.read_bytes() for path in (*data.train, *(sample.path for sample in data.test))}
    assert engine.n == len(unique)


def test_remembered_tokens_are_those_of_the_engine(tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (3, 16, 16, 3), np.uint8)
    plain, remembering = BrightnessEngine(), RememberingEngine(CountingEngine(), tmp_path)

    async def both():
        first = await remembering.tokens(images[:2], model=plain.model)
        again = await remembering.tokens(images[::-1], model=plain.model)
        return first, again, await plain.tokens(images, model=plain.model)

    first, again, expected = asyncio.run(both())
    np.testing.assert_array_equal(first, expected[:2])
    np.testing.assert_array_equal(again, expected[::-1])


def test_the_map_is_the_one_that_the_service_scores(tiny, settings, tmp_path):
    settings = settings.model_copy(update={"blur_sigma": 0.0})
    inspector = LocalInspector(settings, MM_PER_PX, tmp_path / "tokens", BrightnessEngine())
    data = read_folder(tiny)

    async def compare():
        await inspector.start()
        await inspector.fit(data.train, FitRecipe(), lambda n: None)
        await inspector.calibrate(None)
        judged = await inspector.inspect(data.test, lambda n: None)
        maps = [await inspector.map_of(sample) for sample in data.test]
        await inspector.close()
        return judged, maps

    judged, maps = asyncio.run(compare())
    assert [score(m, settings.p_score) for m in maps] == [j.score for j in judged]


@asynccontextmanager
async def serving(settings):
    """The application with the brightness engine; what a client sends goes through its routes."""
    app = create_app(settings)
    services, engine = app.state.services, BrightnessEngine()
    app.state.services = replace(
        services,
        engines=(engines := EngineRegistry(engine, settings)),
        pipeline=InspectionPipeline(engines, services.banks, services.store, services.weighting, settings),
        fitting=FitService(engine, services.store, services.weighting, settings),
    )
    yield app, httpx.ASGITransport(app)


def test_over_http_it_is_the_same_but_for_the_steps_of_the_heatmap(tiny, settings, tmp_path):
    data = read_folder(tiny)
    local = LocalInspector(settings, MM_PER_PX, tmp_path / "tokens", BrightnessEngine())
    (here,) = asyncio.run(run(local, data, coreset_rates=[0.3]))

    async def remotely():
        async with serving(settings) as (app, transport):
            found = await run(RemoteInspector("http://gateway", MM_PER_PX, transport), data, coreset_rates=[0.3])
            return found, app.state.services.store.rois()

    (there,), left = asyncio.run(remotely())
    assert left == []
    assert [j.score for j in there.judged] == pytest.approx([j.score for j in here.judged], rel=1e-6)
    assert [j.verdict for j in there.judged] == [j.verdict for j in here.judged]
    assert there.image == here.image
    assert there.calibration == here.calibration
    assert there.pixel.auroc == pytest.approx(here.pixel.auroc, abs=0.02)
    assert there.fit == here.fit


def test_a_gateway_with_keys_is_evaluated_with_one(tiny, settings):
    key, entry = make_key("evaluation", "teach")
    closed = settings.model_copy(update={"api_keys": SecretStr(json.dumps([entry]))})

    async def evaluated(key):
        async with serving(closed) as (_, transport):
            return await run(RemoteInspector("http://gateway", MM_PER_PX, transport, key=key), read_folder(tiny))

    (found,) = asyncio.run(evaluated(key))
    assert found.image.auroc == 1
    with pytest.raises(RemoteError, match=r"POST /fit_ok: 401 .*unauthorized"):
        asyncio.run(evaluated(None))


def test_a_gateway_that_refuses_is_quoted(settings):
    async def ask():
        transport = httpx.MockTransport(lambda request: httpx.Response(503, text="not ready: no model"))
        await RemoteInspector("http://gateway", MM_PER_PX, transport).start()

    with pytest.raises(RemoteError, match=r"GET /ready: 503 not ready: no model"):
        asyncio.run(ask())


@pytest.fixture
def seeded(small_model_repository, tmp_path, monkeypatch):
    """The command with the seeded model, and folders of its own."""
    monkeypatch.setenv("GATEWAY_MODEL_REPOSITORY", str(small_model_repository))
    monkeypatch.setenv("GATEWAY_MODELS_DIR", str(tmp_path / "models"))
    monkeypatch.delenv("DINOV2_WEIGHTS", raising=False)
    monkeypatch.setattr(command, "_CACHE", tmp_path / "cache")
    return tmp_path / "report"


def test_the_command_writes_report_and_plots(tiny, seeded, capsys):
    done = command.main([str(tiny), "--out", str(seeded), "--p-score", "99", "95", "--coreset-rate", "0.1"])
    assert done == 0
    assert capsys.readouterr().out.strip() == str(seeded / "report.md")
    report = json.loads((seeded / "report.json").read_text())
    assert [run["calibration"]["score_percentile"] for run in report["runs"]] == [99, 95]
    assert len(report["runs"][0]["images"]) == 8
    assert report["data"][0]["test"] == {"good": 4, "pale": 1, "spot": 3}
    assert {"tiny-histogram.png", "tiny-roc.png"} <= set(report["plots"]["tiny: memory-bank"])
    for plot in report["plots"]["tiny: memory-bank"]:
        assert cv2.imread(str(seeded / plot)).std() > 1
    text = (seeded / "report.md").read_text()
    for said in ("RANDOM", "## All runs", "AUPRO", "| misses, spot |", "tiny-histogram.png", "numpy", "seed"):
        assert said in text
    assert str(tiny) not in text + json.dumps(report)


def test_a_csv_is_a_row_and_pictures_for_each_connector(tmp_path, settings, monkeypatch):
    lines = ["image path,connector,label"]
    for connector in ("a", "a/b"):
        for i in range(8):
            write(tmp_path / connector / f"{i}.png", tile(100 + i))
            lines.append(f"{connector}/{i}.png,{connector},OK")
        write(tmp_path / connector / "bad.png", tile(101, (2, 2)))
        lines += [f"{connector}/bad.png,{connector},Scratch", f"{connector}/7.png,{connector},occlusion"]
    file = tmp_path / "dataset.csv"
    file.write_text("\n".join(lines) + "\n")

    async def inspector(args, detector, variant):
        local = LocalInspector(settings, MM_PER_PX, tmp_path / "tokens", BrightnessEngine())
        await local.start()
        return local

    monkeypatch.setattr(command, "_inspector", inspector)
    out = tmp_path / "report"
    assert command.main(["--csv", str(file), "--ko-labels", "scratch", "--out", str(out)]) == 0
    report = json.loads((out / "report.json").read_text())
    assert [run["data"] for run in report["runs"]] == ["a", "a/b"]
    assert report["data"][0]["ignored"] == {"occlusion": 1}
    assert report["runs"][0]["pixel"] is None
    assert report["plots"]["a: memory-bank"][0] == "1-a-histogram.png"
    assert report["plots"]["a/b: memory-bank"][0] == "2-a_b-histogram.png"
    assert all((out / plot).is_file() for plots in report["plots"].values() for plot in plots)
    text = (out / "report.md").read_text()
    assert "| a/b | memory-bank | 0 | " in text
    assert "left out: 1 occlusion" in text


@pytest.fixture
def marked(tmp_path):
    """Images of parts, some with a bright block, in MVTec layout."""
    folder = tmp_path / "marked"
    write_images(folder / "train" / "good", 12, seed=1, size=64)
    write_images(folder / "test" / "good", 4, seed=2, size=64)
    for path in write_images(folder / "test" / "block", 4, seed=3, size=64):
        pixels = cv2.imread(str(path))
        pixels[20:40, 20:40] = 255
        cv2.imwrite(str(path), pixels)
        mask = np.zeros(pixels.shape[:2], np.uint8)
        mask[20:40, 20:40] = 255
        write(folder / "ground_truth" / "block" / f"{path.stem}_mask.png", mask)
    return folder


_STUDENT = ("--teacher", "seed:0", "--teacher-layers", "layer1", "--student-size", "32", "--epochs", "1")


def test_both_detectors_are_one_report_side_by_side_with_what_each_costs(marked, seeded, capfd):
    asked = [str(marked), "--out", str(seeded), "--detector", "both", *_STUDENT]
    assert command.main(asked) == 0
    report = json.loads((seeded / "report.json").read_text())
    bank, student = report["runs"]
    assert [run["detector"] for run in report["runs"]] == ["memory-bank", "student-teacher"]
    assert student["model"]["extractor"] == "student-teacher-resnet18"
    assert student["score"] == "mean of the highest 1 %"
    assert (student["fit"]["n_ok"], student["fit"]["n_validation"], student["fit"]["trained"]) == (12, 2, "now")
    assert student["calibration"]["n_ok"] == 2
    for run in report["runs"]:
        assert run["image"]["auroc"] > 0.5
        assert run["pixel"]["n_regions"] == 4
        cost = run["cost"]
        assert 0 < cost["p50_ms"] <= cost["p95_ms"]
        assert cost["n_timed"] == len(run["images"]) == 8
        assert cost["learn_s"] > 0
        assert cost["version_bytes"] > 0
    assert bank["cost"]["shared_bytes"] > 1e6
    assert student["cost"]["shared_bytes"] is None
    text = (seeded / "report.md").read_text()
    assert "|  | memory-bank | student-teacher |" in text
    for plots in report["plots"].values():
        for plot in plots:
            assert cv2.imread(str(seeded / plot)).std() > 1
            assert plot in text
    assert report["plots"]["marked"] == ["marked-roc-by-detector.png"]
    assert str(marked) not in text + json.dumps(report)

    assert command.main([*asked[:3], "--detector", "student-teacher", *_STUDENT]) == 0
    (again,) = json.loads((seeded / "report.json").read_text())["runs"]
    assert again["fit"]["trained"] == "earlier"
    assert [image["score"] for image in again["images"]] == [image["score"] for image in student["images"]]
    assert again["calibration"] == student["calibration"]


def test_a_training_that_fails_ends_the_command_before_anything_else_is_done(marked, seeded, capfd):
    assert command.main([str(marked), "--out", str(seeded), "--detector", "both", "--teacher", "no.pth"]) == 1
    said = capfd.readouterr().err
    assert "no.pth" in said
    assert "error: the training failed" in said
    assert "--teacher" in said
    assert list(seeded.iterdir()) == []


def test_a_report_that_cannot_be_written_and_an_interruption_are_told_in_a_line(marked, seeded, capfd, monkeypatch):
    seeded.write_text("a file")
    assert command.main([str(marked), "--out", str(seeded)]) == 1
    assert capfd.readouterr().err.strip() == f"error: {seeded}: File exists"

    async def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "_inspector", interrupted)
    assert command.main([str(marked), "--out", str(seeded.parent / "out")]) == 130
    assert capfd.readouterr().err.strip().startswith("interrupted: no report")


@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_as_many_inspections_are_timed_as_were_asked_for(tiny, settings, tmp_path, n):
    inspector = LocalInspector(settings, MM_PER_PX, tmp_path / "tokens", BrightnessEngine(), timings=True)
    data = read_folder(tiny)

    async def cost():
        await inspector.start()
        await inspector.fit(data.train, FitRecipe(), lambda n: None)
        await inspector.calibrate(None)
        found = await inspector.cost(data.test[:n], done.append)
        await inspector.close()
        return found

    done = []
    found = asyncio.run(cost())
    assert found.n_timed == sum(done) == n
    assert (found.p50_ms is None) is (n == 0)


def test_timings_remember_nothing(tiny, settings, tmp_path):
    data = read_folder(tiny)
    for fitted in (0, 1):
        engine = CountingEngine()
        inspector = LocalInspector(settings, MM_PER_PX, tmp_path / "tokens", engine, timings=True)
        (found,) = asyncio.run(run(inspector, data, n_timed=3))
        assert found.cost.n_timed == 3
        assert found.cost.learn_s > 0
        warm_up = 3
        # The first time, those inspected for their verdicts are new as well.
        assert engine.n == N_TRAIN + warm_up + 3 + (len(data.test) if fitted == 0 else 0)


def test_the_command_says_what_is_wrong(tmp_path, seeded, capsys):
    assert command.main([str(tmp_path)]) == 1
    assert "no good image to learn from" in capsys.readouterr().err
    for wrong in (
        [],
        [str(tmp_path), "--csv", "x.csv"],
        [str(tmp_path), "--url", "http://x", "--layers", "6,8"],
        ["x", "--p-score", "90"],
        ["x", "--epochs", "3"],
        ["x", "--detector", "student-teacher", "--coreset-rate", "0.1"],
        ["x", "--detector", "student-teacher", "--weights", "w.pth"],
        ["x", "--detector", "student-teacher", "--tiles", "auto"],
        ["x", "--tiles", "2x2"],
        ["x", "--seed", "-1"],
        ["x", "--split-seed", "x"],
        ["x", "--connector", "conn1"],
        ["x", "--detector", "both", "--url", "http://x"],
    ):
        with pytest.raises(SystemExit, match="2"):
            command.main(wrong)
        assert "error:" in capsys.readouterr().err


def test_the_served_model_is_taken_where_the_sweep_names_it(model_repository, tmp_path):
    settings = Settings(_env_file=None, model_repository=model_repository, state_dir=tmp_path / "state")
    for variant in (Variant(), Variant((9, 11), 384)):
        assert repository_of(variant, settings, None, tmp_path) == model_repository


def test_another_export_of_a_file_needs_the_file(model_repository, tmp_path, monkeypatch):
    served = read_description(newest_version(model_repository / "dinov2_vits14"))
    of_a_file = served.model_copy(update={"weights": served.weights.model_copy(update={"kind": "file"})})
    monkeypatch.setattr("evaluation.models.read_description", lambda folder: of_a_file)
    settings = Settings(_env_file=None, model_repository=model_repository, state_dir=tmp_path / "state")
    with pytest.raises(ExportFailedError, match="--weights"):
        repository_of(Variant((6, 8)), settings, None, tmp_path)


def test_weights_of_a_file_are_never_called_the_stock_checkpoint():
    sha256 = "892c56ac04dd17fee7b313a73adbf72e9ab0ae7b67a5050aab5c50f5907ab76b"
    assert "FINE-TUNED" in weights_in_words({"kind": "file", "detail": "/somewhere/w.safetensors", "sha256": sha256})
    other = weights_in_words({"kind": "file", "detail": "/somewhere/w.safetensors", "sha256": "0"})
    assert "not the stock" in other
    assert "somewhere" not in other
    assert "RANDOM" in weights_in_words({"kind": "seed", "detail": "0", "sha256": "0"})
