"""What the window says of a stream, on streams of which one knows what they are."""

import os
from collections.abc import Sequence

import numpy as np
import pytest

from gateway.images.appearance import Look, look
from gateway.monitoring.drift import MIN_SAMPLES, DriftLog, Recent, measure
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


def stream(scores, *, threshold=0.6, brightness=100.0, sharpness=0.1, ng=(), otherwise=False) -> Recent:
    n = len(scores)
    rng = np.random.default_rng(9)
    return Recent(
        time=np.arange(n, dtype=np.float64),
        score=np.asarray(scores, np.float32),
        threshold=np.full(n, threshold, np.float32),
        brightness=(brightness + rng.normal(0, 10, n)).astype(np.float32),
        sharpness=(sharpness * np.exp(rng.normal(0, 0.1, n))).astype(np.float32),
        verdict=np.array([2 if i in ng else 1 for i in range(n)], np.uint32),
        scored_otherwise=np.full(n, otherwise),
    )


def scores(mean: float, n: int, seed: int) -> list[float]:
    return np.random.default_rng(seed).normal(mean, 0.03, n).tolist()


def test_an_unchanged_stream_raises_no_alarm_in_200_windows() -> None:
    learned = manifest(scores(0.45, 60, 0))
    for seed in range(1, 201):
        drift = measure(stream(scores(0.45, 100, seed)), learned, None)
        assert drift.alarms == (), seed


def test_scores_that_lie_below_those_of_the_fit_as_unseen_ones_do_are_no_drift() -> None:
    drift = measure(stream(scores(0.43, 100, 1)), manifest(scores(0.45, 60, 0)), None)
    assert drift.ks is not None
    assert drift.ks > 0.2
    assert drift.alarms == ()


def test_scores_that_rise_are_drift() -> None:
    drift = measure(stream(scores(0.48, 100, 1)), manifest(scores(0.45, 60, 0)), None)
    assert drift.alarms == ("score",)
    assert drift.ks_up == drift.ks


def test_an_image_judged_ng_is_none_of_the_scores_compared() -> None:
    with_ng = [*scores(0.45, 60, 1), *[0.9] * 40]
    drift = measure(stream(with_ng, ng=range(60, 100)), manifest(scores(0.45, 60, 0)), None)
    assert (drift.n, drift.n_ok) == (100, 60)
    assert "score" not in drift.alarms


def test_more_rejects_than_the_calibration_expects_are_told() -> None:
    mixed = [*scores(0.45, 80, 1), *[0.9] * 20]
    learned = manifest(scores(0.45, 60, 0))
    assert measure(stream(mixed, ng=range(80, 100)), learned, 0.05).alarms == ("rejects",)
    assert measure(stream(mixed, ng=range(80, 100)), learned, 0.25).alarms == ()
    assert measure(stream(mixed, ng=range(80, 100)), learned, None).above_threshold == 0.2


@pytest.mark.parametrize(
    ("change", "signal"), [({"brightness": 108.0}, "brightness"), ({"sharpness": 0.09}, "sharpness")]
)
def test_light_and_focus_are_told_apart(change, signal) -> None:
    drift = measure(stream(scores(0.45, 100, 1), **change), manifest(scores(0.45, 60, 0)), None)
    assert drift.alarms == (signal,)


def test_light_that_makes_every_image_ng_is_still_told_as_light() -> None:
    dark = stream(scores(0.9, 100, 1), brightness=60.0, ng=range(100))
    drift = measure(dark, manifest(scores(0.45, 60, 0)), None)
    assert drift.n_ok == 0
    assert drift.alarms == ("rejects", "brightness")


@pytest.mark.parametrize("n_ok", [2, 3, 5, 10, 40])
def test_the_chance_of_few_ok_images_is_no_drift_of_light(n_ok) -> None:
    """One fit in a thousand by either signal."""
    alarmed = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        learned = manifest([0.45] * n_ok)
        images = [image.model_copy(update={"brightness": float(rng.normal(100, 10))}) for image in learned.images]
        drift = measure(stream([0.45] * 100), learned.model_copy(update={"images": tuple(images)}), None)
        alarmed += "brightness" in drift.alarms
    assert alarmed <= 1


def test_a_change_too_small_to_matter_is_no_drift_where_ok_images_are_all_alike() -> None:
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


def test_scores_made_otherwise_than_those_of_the_ok_images_are_not_compared() -> None:
    learned = manifest(scores(0.45, 60, 0))
    drift = measure(stream(scores(0.2, 100, 1), otherwise=True), learned, None)
    assert (drift.ks, drift.alarms) == (None, ())
    assert drift.reason is not None
    assert "0 of the 100 inspections judged OK were scored as the OK images were" in drift.reason
    assert drift.above_threshold == 0.0


def test_the_kolmogorov_smirnov_statistic_is_that_of_the_definition() -> None:
    learned = manifest([0.1, 0.2, 0.3, 0.4])
    drift = measure(stream([0.25] * MIN_SAMPLES), learned, None)
    assert drift.ks == pytest.approx(0.5)  # two of four lie below, two above
    assert (drift.ks_up, drift.ks_down) == (pytest.approx(0.5), pytest.approx(0.5))


def test_too_few_samples_are_said_not_guessed() -> None:
    drift = measure(stream(scores(0.9, MIN_SAMPLES - 1, 1)), manifest(scores(0.45, 60, 0)), None)
    assert drift.ks is None
    assert drift.alarms == ()
    assert drift.reason == "49 inspections with this version; 50 are needed"


def test_a_fit_from_before_brightness_was_kept_says_so() -> None:
    drift = measure(stream(scores(0.45, 100, 1)), manifest(scores(0.45, 60, 0), brightness=None), None)
    assert drift.brightness is None
    assert drift.reason is not None


class TestLog:
    learned = manifest([0.1, 0.2])

    def add(self, log: DriftLog, score: float, learned: Manifest | None = None) -> None:
        log.add(KEY, learned or self.learned, score=score, threshold=None, verdict="uncalibrated", looks=Look(1.0, 2.0))

    def test_the_window_holds_the_latest_in_order(self, tmp_path) -> None:
        log = DriftLog(tmp_path, 5)
        for i in range(12):
            self.add(log, i)
        assert DriftLog(tmp_path, 5).recent(KEY, self.learned).score.tolist() == [7, 8, 9, 10, 11]

    def test_a_window_that_is_not_full_holds_what_there_is(self, tmp_path) -> None:
        log = DriftLog(tmp_path, 5)
        self.add(log, 1)
        recent = log.recent(KEY, self.learned)
        assert recent.score.tolist() == [1]
        assert np.isnan(recent.threshold).all()
        assert (recent.brightness[0], recent.sharpness[0]) == (1, 2)

    def test_another_bank_starts_a_window_of_its_own(self, tmp_path) -> None:
        log = DriftLog(tmp_path, 5)
        other = manifest([0.1, 0.2], bank="b" * 64)
        self.add(log, 1)
        self.add(log, 2, other)
        assert log.recent(KEY, other).score.tolist() == [2]
        assert log.recent(KEY, self.learned).score.tolist() == [1]

    def test_of_an_roi_that_is_gone_nothing_stays(self, tmp_path) -> None:
        log = DriftLog(tmp_path, 5)
        self.add(log, 1)
        log.forget(KEY)
        log.forget(KEY)
        assert list(tmp_path.glob("*/*.ring")) == []
        assert len(log.recent(KEY, self.learned)) == 0

    def test_a_torn_record_is_left_out(self, tmp_path) -> None:
        log = DriftLog(tmp_path, 5)
        for i in range(3):
            self.add(log, i)
        (ring,) = tmp_path.glob("*/*.ring")
        data = bytearray(ring.read_bytes())
        data[-1] ^= 1
        ring.write_bytes(data)
        assert log.recent(KEY, self.learned).score.tolist() == [0, 1]

    @pytest.mark.parametrize("junk", [b"", b"x", os.urandom(1000)])
    def test_a_file_that_is_not_ours_starts_anew(self, tmp_path, junk) -> None:
        log = DriftLog(tmp_path, 5)
        (tmp_path / "steel").mkdir()
        (tmp_path / "steel" / "drift.ring").write_bytes(junk)
        assert len(log.recent(KEY, self.learned)) == 0
        self.add(log, 3)
        assert log.recent(KEY, self.learned).score.tolist() == [3]

    @pytest.mark.parametrize(("at", "value"), [(8, 0), (16, 2**64 - 1), (16, 2**63)])
    def test_a_damaged_header_starts_anew(self, tmp_path, at, value) -> None:
        log = DriftLog(tmp_path, 5)
        for i in range(7):
            self.add(log, i)
        (ring,) = tmp_path.glob("*/*.ring")
        data = bytearray(ring.read_bytes())
        data[at : at + 8] = value.to_bytes(8, "little")
        ring.write_bytes(data)
        log.recent(KEY, self.learned)
        self.add(log, 9)
        assert log.recent(KEY, self.learned).score.tolist() == [9]

    def test_how_an_image_was_scored_is_kept_beside_its_verdict(self, tmp_path) -> None:
        log = DriftLog(tmp_path, 5)
        for otherwise in (False, True):
            log.add(
                KEY,
                self.learned,
                score=1,
                threshold=2,
                verdict="ok",
                looks=Look(1.0, 2.0),
                scored_otherwise=otherwise,
            )
        recent = log.recent(KEY, self.learned)
        assert recent.judged_ok.tolist() == [True, True]
        assert recent.comparable.tolist() == [True, False]

    def test_its_file_does_not_grow(self, tmp_path) -> None:
        log = DriftLog(tmp_path, 5)
        for i in range(5):
            self.add(log, i)
        (ring,) = tmp_path.glob("*/*.ring")
        size = ring.stat().st_size
        for i in range(20):
            self.add(log, i)
        assert ring.stat().st_size == size

    def test_a_folder_that_cannot_be_written_stops_nothing_and_is_told(self, tmp_path, caplog) -> None:
        (tmp_path / "file").write_text("")
        log = DriftLog(tmp_path / "file", 5)
        self.add(log, 1)
        assert len(log.recent(KEY, self.learned)) == 0
        assert "not kept for drift" in caplog.text


def test_light_changes_brightness_and_not_sharpness_blur_the_other() -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    image[:, ::2] = 100
    assert look(image) == Look(50.0, pytest.approx(np.sqrt(7 * 8 * 100**2 / 64) / 50))
    assert look(image * 2).sharpness == look(image).sharpness
    assert look(image * 2).brightness == 100.0
