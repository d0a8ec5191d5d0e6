"""Drift of streams with a known change, or without any."""

from collections.abc import Sequence

import numpy as np
import pytest

from gateway.monitoring.drift.histogram import histogram
from gateway.monitoring.drift.measure import MIN_SAMPLES, measure
from gateway.monitoring.drift.recent import Recent
from gateway.store.manifest import MEMORY, Manifest, OkImage
from gateway.store.roi_key import RoiKey

KEY = RoiKey("steel", "drift")


def manifest(scores: Sequence[float], brightness: float | None = 100.0, bank: str = "a" * 64) -> Manifest:
    rng = np.random.default_rng(5)
    images = [
        OkImage(
            sha256=f"{i:064x}",
            file_name="",
            extension="png",
            width=8,
            height=8,
            added_in=1,
            brightness=None if brightness is None else brightness + float(rng.normal(0, 10)),
            sharpness=None if brightness is None else 0.1 * float(np.exp(rng.normal(0, 0.1))),
        )
        for i in range(len(scores))
    ]
    return Manifest(
        role_id=KEY.role_id,
        roi_id=KEY.roi_id,
        version=1,
        created_at="2026-01-01T00:00:00.000+00:00",
        model_fingerprint="f",
        extractor="e",
        token_hw=(1, 1),
        dim=1,
        coreset_rate=1,
        coreset_rate_applied=1,
        seed=0,
        k=1,
        p_score=99,
        mm_per_px=1,
        n_embeddings=1,
        n_tokens_total=1,
        covering_radius=0,
        images=tuple(images),
        ok_scores=tuple(scores),
        heatmap_max=1,
        files={MEMORY: bank},
    )


def stream(scores, *, threshold=0.6, brightness=100.0, sharpness=0.1, ng=(), alike=True) -> Recent:
    n = len(scores)
    rng = np.random.default_rng(9)
    return Recent(
        time=np.arange(n, dtype=np.float64),
        score=np.asarray(scores, np.float64),
        threshold=np.full(n, threshold, np.float64),
        brightness=(brightness + rng.normal(0, 10, n)).astype(np.float64),
        sharpness=(sharpness * np.exp(rng.normal(0, 0.1, n))).astype(np.float64),
        verdict=np.array(["ng" if i in ng else "ok" for i in range(n)]),
        scored_alike=np.full(n, alike),
    )


def scores(mean: float, n: int, seed: int) -> list[float]:
    return np.random.default_rng(seed).normal(mean, 0.03, n).tolist()


def test_an_unchanged_stream_raises_no_alarm_in_200_windows() -> None:
    learned = manifest(scores(0.45, 60, 0))
    for seed in range(1, 201):
        drift = measure(stream(scores(0.45, 100, seed)), learned, None)
        assert drift.alarms == (), seed


def test_scores_of_unseen_images_a_little_below_those_of_the_fit_are_no_drift() -> None:
    drift = measure(stream(scores(0.43, 100, 1)), manifest(scores(0.45, 60, 0)), None)
    assert drift.ks is not None
    assert drift.ks > 0.2
    assert drift.alarms == ()


def test_higher_scores_are_drift() -> None:
    drift = measure(stream(scores(0.48, 100, 1)), manifest(scores(0.45, 60, 0)), None)
    assert drift.alarms == ("score",)
    assert drift.ks_up == drift.ks


def test_scores_of_images_judged_ng_are_not_compared() -> None:
    with_ng = [*scores(0.45, 60, 1), *[0.9] * 40]
    drift = measure(stream(with_ng, ng=range(60, 100)), manifest(scores(0.45, 60, 0)), None)
    assert (drift.n, drift.n_ok) == (100, 60)
    assert "score" not in drift.alarms


def test_more_rejects_than_the_calibration_expects_are_an_alarm() -> None:
    mixed = [*scores(0.45, 80, 1), *[0.9] * 20]
    learned = manifest(scores(0.45, 60, 0))
    assert measure(stream(mixed, ng=range(80, 100)), learned, 0.05).alarms == ("rejects",)
    assert measure(stream(mixed, ng=range(80, 100)), learned, 0.25).alarms == ()
    assert measure(stream(mixed, ng=range(80, 100)), learned, None).above_threshold == 0.2


def test_parts_rejected_by_a_region_alone_count_as_rejects() -> None:
    ng_by_region = stream(scores(0.45, 100, 1), threshold=0.6, ng=range(80, 100))
    drift = measure(ng_by_region, manifest(scores(0.45, 60, 0)), 0.05)
    assert (drift.above_threshold, drift.rejected) == (0.0, 0.2)
    assert drift.alarms == ("rejects",)


@pytest.mark.parametrize(
    ("change", "signal"), [({"brightness": 108.0}, "brightness"), ({"sharpness": 0.09}, "sharpness")]
)
def test_a_change_of_light_and_a_change_of_focus_raise_different_alarms(change, signal) -> None:
    drift = measure(stream(scores(0.45, 100, 1), **change), manifest(scores(0.45, 60, 0)), None)
    assert drift.alarms == (signal,)


def test_light_that_makes_every_image_ng_raises_the_brightness_alarm() -> None:
    dark = stream(scores(0.9, 100, 1), brightness=60.0, ng=range(100))
    drift = measure(dark, manifest(scores(0.45, 60, 0)), None)
    assert drift.n_ok == 0
    assert drift.alarms == ("rejects", "brightness")


@pytest.mark.parametrize("n_ok", [2, 3, 5, 10, 40])
def test_random_variation_of_few_ok_images_is_no_drift_of_brightness(n_ok) -> None:
    """At most one false alarm in 150 fits, with a p-value of 0.001."""
    alarmed = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        learned = manifest([0.45] * n_ok)
        images = [image.model_copy(update={"brightness": float(rng.normal(100, 10))}) for image in learned.images]
        drift = measure(stream([0.45] * 100), learned.model_copy(update={"images": tuple(images)}), None)
        alarmed += "brightness" in drift.alarms
    assert alarmed <= 1


def test_a_tiny_change_is_no_drift_if_all_ok_images_are_equal() -> None:
    learned = manifest(scores(0.45, 20, 0))
    same = [image.model_copy(update={"brightness": 100.0, "sharpness": 1.0}) for image in learned.images]
    learned = learned.model_copy(update={"images": tuple(same)})
    recent = stream(scores(0.45, 100, 1))

    def shifts(factor):
        recent.brightness[:] = 100 * factor
        recent.sharpness[:] = factor
        return set(measure(recent, learned, None).alarms)

    assert shifts(1.003) == set()
    assert shifts(1.01) == {"brightness", "sharpness"}


def test_scores_with_other_parameters_than_those_of_the_ok_images_are_not_compared() -> None:
    learned = manifest(scores(0.45, 60, 0))
    drift = measure(stream(scores(0.2, 100, 1), alike=False), learned, None)
    assert (drift.ks, drift.alarms) == (None, ())
    assert drift.reason is not None
    assert "0 of the 100 inspections judged OK were scored like the OK images" in drift.reason
    assert drift.above_threshold == 0.0


def test_the_kolmogorov_smirnov_statistics_are_those_of_the_definition() -> None:
    learned = manifest([0.1, 0.2, 0.3, 0.4])
    drift = measure(stream([0.25] * MIN_SAMPLES), learned, None)
    assert drift.ks == pytest.approx(0.5)  # two of four lie below, two above
    assert (drift.ks_up, drift.ks_down) == (pytest.approx(0.5), pytest.approx(0.5))


def test_too_few_inspections_give_a_reason_and_no_statistic() -> None:
    drift = measure(stream(scores(0.9, MIN_SAMPLES - 1, 1)), manifest(scores(0.45, 60, 0)), None)
    assert drift.ks is None
    assert drift.alarms == ()
    assert drift.reason == "49 inspections with this version; drift needs 50"


def test_a_fit_without_stored_brightness_gives_a_reason() -> None:
    drift = measure(stream(scores(0.45, 100, 1)), manifest(scores(0.45, 60, 0), brightness=None), None)
    assert drift.brightness is None
    assert drift.reason is not None


def test_one_sided_statistics_say_in_which_direction_the_scores_moved() -> None:
    drift = measure(stream([0.35] * MIN_SAMPLES), manifest([0.1, 0.2, 0.3, 0.4]), None)
    # 0.35 lies above three of the four scores and below one.
    assert (drift.ks_up, drift.ks_down) == (pytest.approx(0.75), pytest.approx(0.25))


def test_the_histogram_counts_both_samples_in_the_same_bins() -> None:
    counted = histogram(stream([0.1, 0.1, 0.9], ng=[2]), manifest([0.1, 0.3]))
    assert (counted.edges[0], counted.edges[-1]) == (pytest.approx(0.1), pytest.approx(0.3))
    assert (counted.ok_images[0], counted.ok_images[-1], counted.ok_images.sum()) == (1, 1, 2)
    assert (counted.recent[0], counted.recent.sum()) == (2, 2)
