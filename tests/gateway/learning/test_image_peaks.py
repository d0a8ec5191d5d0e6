"""Peaks of all images of an ROI: what each threshold means, and two versions on the same images."""

import asyncio
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from gateway.calibration.false_alarms import by_rejected, misses
from gateway.calibration.request import Parameters
from gateway.errors import InvalidRequestError, UnknownVersionError
from gateway.learning.image_peaks import Comparison, ImagePeaks, VersionPeaks
from gateway.learning.stored_scores import StoredScorer
from gateway.worker_threads import in_thread
from tests.gateway.brightness_engine import distance, image
from tests.gateway.fit_bench import EVEN, KEY, Bench
from tests.gateway.learning.test_stored_images import id_of

NG = [image(140), image(230)]
UNSEEN = image(116)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "models")


def in_worker(function: Any, *arguments: Any) -> Any:
    async def run() -> Any:
        return await in_thread(function, *arguments, limiter=nullcontext())

    return asyncio.run(run())


def peaks_of(bench: Bench) -> ImagePeaks:
    scorer = StoredScorer(bench.engines, bench.store, bench.settings)
    return ImagePeaks(bench.store, bench.images, scorer, bench.settings)


def measured(bench: Bench) -> VersionPeaks:
    parameters = Parameters(99, 1.0, 0.0, 0.0)
    found: VersionPeaks = in_worker(peaks_of(bench).of, KEY, bench.manifest, parameters, 1.0, None)
    return found


def compared(bench: Bench, before: int, after: int) -> Comparison:
    found: Comparison = in_worker(peaks_of(bench).compared, KEY, before, after)
    return found


def test_learned_images_are_measured_without_themselves_and_stored_ones_as_they_are(bench: Bench) -> None:
    bench.keep("ok", [UNSEEN])
    bench.keep("ng", NG)
    bench.fit(EVEN)
    found = {each.id: each for each in measured(bench).images}
    assert len(found) == len(EVEN) + 3
    assert found[id_of(EVEN[3])].learned
    assert found[id_of(EVEN[3])].score == pytest.approx(distance(0, 10), abs=2e-3)
    assert (found[id_of(UNSEEN)].label, found[id_of(UNSEEN)].learned) == ("ok", False)
    assert found[id_of(NG[1])].peak == pytest.approx(distance(110, 230), abs=2e-3)


def test_a_given_threshold_rejects_just_the_images_whose_level_reaches_it(bench: Bench) -> None:
    bench.keep("ok", [UNSEEN])
    bench.keep("ng", NG)
    bench.fit(EVEN)
    found = measured(bench)
    floor = found.score_floor(0.0)
    levels = {each.id: each.level(floor) for each in found.images}
    for threshold in (0.05, 0.09, distance(110, 140) + 0.01, 1.0):
        calibration, _ = bench.calibrate_stored(peak_threshold=threshold)
        rejected = sum(level >= threshold for id_, level in levels.items() if id_ not in map(id_of, NG))
        assert calibration.verdict_false_alarm_rate == pytest.approx(by_rejected(len(EVEN) + 1)[rejected].rate)
        for data in (UNSEEN, *NG):
            assert (bench.infer(data).verdict == "ng") == (levels[id_of(data)] >= threshold)


def test_an_image_in_the_review_band_goes_to_review(bench: Bench) -> None:
    bench.fit(EVEN)
    bench.calibrate(peak_threshold=0.5, review_threshold=0.2)
    assert [bench.infer(image(grey)).verdict for grey in (112, 140, 200)] == ["ok", "review", "ng"]
    assert bench.infer(image(140)).review_threshold == 0.2


def test_two_versions_are_compared_on_the_images_that_are_there_now(bench: Bench) -> None:
    bench.keep("ng", NG)
    bench.fit(EVEN)
    bench.calibrate_stored(peak_threshold=0.2)
    bench.fit([image(150), image(160)])  # like the first NG image, which passes from then on
    bench.images.delete(KEY, id_of(EVEN[0]))
    found = compared(bench, 1, 2)
    changed = [(each.record.id, each.before.verdict, each.after.verdict) for each in found.changed]
    assert changed == [(id_of(NG[0]), "ng", "ok")]
    assert len(found.records) == len(EVEN) - 1 + len(NG)  # the new ones are unknown to version 1
    assert compared(bench, 2, 2).changed == []


def test_a_version_that_is_not_kept_is_named_with_those_that_are(bench: Bench) -> None:
    bench.fit(EVEN)
    with pytest.raises(UnknownVersionError, match="version 7 of part/face is not kept; kept versions are 1"):
        compared(bench, 1, 7)


def test_a_version_of_one_image_has_no_peaks(bench: Bench) -> None:
    bench.fit(EVEN[:1])
    with pytest.raises(InvalidRequestError, match="no leave-one-out maps"):
        measured(bench)


def test_rates_are_stated_for_every_count() -> None:
    assert [round(each.rate, 3) for each in by_rejected(3)] == [0.25, 0.5, 0.75, 1.0]
    assert [each.rate for each in misses(2)] == [0.0, 0.5, 1.0]
    assert misses(2)[0].high == pytest.approx(0.8419, abs=1e-4)
