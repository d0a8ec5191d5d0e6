"""Which version and which calibration answer in place of damaged ones, and where the damage is reported."""

import logging
from pathlib import Path

import pytest

from artifacts.checking import damages
from gateway.errors import ArtifactCorruptError
from gateway.monitoring.metrics import METRICS
from gateway.store.roi_key import RoiKey
from tests.gateway.brightness_engine import image, sha256
from tests.gateway.fit_bench import EVEN, KEY, Bench

UNSEEN = image(65)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Two versions, each with a threshold of its own; the second is in use."""
    bench = Bench(tmp_path / "models")
    bench.fit(EVEN[:4])
    bench.calibrate(ok_scores=[0.25])
    bench.fit(EVEN[4:6])
    bench.calibrate(ok_scores=[0.5])
    return bench


def damage(bench: Bench, name: str) -> None:
    path = bench.store.folder(KEY) / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def faults(kind: str) -> float:
    return METRICS.get_sample_value("gateway_artifact_faults_total", {"kind": kind}) or 0.0


@pytest.mark.parametrize("name", ["memory.npz", "leave_one_out.npz", "manifest.json"])
def test_the_version_before_a_damaged_one_answers_with_its_own_threshold(
    bench: Bench, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    damage(bench, f"versions/2/{name}")
    before = faults("version")
    answers = [bench.infer(UNSEEN) for _ in range(3)]
    for answer in answers:
        assert (answer.version, answer.threshold, answer.degraded) == (1, 0.25, True)
        assert not answer.calibration_stale
        assert f"{name} fails its checksum" in " ".join(answer.warnings)
    assert list(bench.store.faults.degraded()[KEY]) == ["version"]
    told = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(told) == 1
    assert "part/face" in told[0].getMessage()
    assert faults("version") == before + 1
    bench.fit([EVEN[6]])
    assert not bench.infer(UNSEEN).degraded
    assert bench.store.faults.degraded() == {}


def test_damage_of_the_faiss_index_changes_no_answer_and_is_found_by_verify_and_repaired_by_the_next_fit(
    bench: Bench,
) -> None:
    """No inspection reads the index: the search is built from the bank."""
    whole = bench.infer(UNSEEN)
    damage(bench, "versions/2/index.faiss")
    anew = Bench(bench.store.storage.root)
    answer = anew.infer(UNSEEN)
    assert (answer.score, answer.version, answer.threshold, answer.degraded, answer.warnings) == (
        whole.score,
        2,
        0.5,
        False,
        whole.warnings,
    )
    assert list(damages(anew.store, KEY)) == ["version 2: index.faiss fails its checksum"]
    assert anew.fit(EVEN[:6]).manifest.version == 3  # the same images, but the version is not whole
    assert anew.store.is_whole(KEY, anew.manifest)


@pytest.mark.parametrize("name", ["calib.json", "versions/2/calib.json"])
def test_the_whole_copy_of_a_damaged_calibration_answers_with_a_warning(bench: Bench, name: str) -> None:
    damage(bench, name)
    answer = bench.infer(UNSEEN)
    assert (answer.version, answer.threshold, answer.degraded) == (2, 0.5, True)
    assert "calib.json fails its checksum" in " ".join(answer.warnings)
    assert list(bench.store.faults.degraded()[KEY]) == ["calibration"]
    bench.calibrate(ok_scores=[0.75])
    answer = bench.infer(UNSEEN)
    assert (answer.threshold, answer.degraded) == (0.75, False)


def test_a_missing_calibration_of_a_version_is_replaced_by_its_copy_and_reported(bench: Bench) -> None:
    (bench.store.folder(KEY) / "versions/2/calib.json").unlink()
    answer = bench.infer(UNSEEN)
    assert (answer.threshold, answer.degraded) == (0.5, True)


def test_an_older_threshold_never_replaces_a_damaged_one(bench: Bench) -> None:
    for name in ("calib.json", "versions/2/calib.json"):
        damage(bench, name)
    for attempt in (lambda: bench.infer(UNSEEN), lambda: bench.fit([EVEN[6]])):
        with pytest.raises(ArtifactCorruptError, match="the calibration of version 2 is damaged") as caught:
            attempt()
        assert "Calibrate this ROI again" in caught.value.hint
    bench.calibrate(ok_scores=[0.5])
    assert bench.infer(UNSEEN).threshold == 0.5


def test_a_copy_that_was_kept_with_another_version_does_not_answer(bench: Bench) -> None:
    stale = (bench.store.folder(KEY) / "versions/1/calib.json").read_bytes()
    (bench.store.folder(KEY) / "calib.json").write_bytes(stale)
    assert bench.infer(UNSEEN).threshold == 0.5
    damage(bench, "versions/2/calib.json")
    with pytest.raises(ArtifactCorruptError):
        bench.infer(UNSEEN)


def test_damaged_tokens_are_computed_again_from_the_image_and_reported(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    damage(bench, f"ok/{sha256(EVEN[0])}.npz")
    before = faults("ok_tokens")
    result = bench.fit([EVEN[6]])
    assert faults("ok_tokens") == before + 1
    assert "computed again" in caplog.text
    other = Bench(bench.store.storage.root.parent / "other")
    other.fit([*EVEN[:6], EVEN[6]])
    assert result.manifest.checksum == other.manifest.checksum
    bench.fit([EVEN[7]])
    assert faults("ok_tokens") == before + 1  # mended


def test_a_damaged_image_is_put_back_when_it_is_sent_again(bench: Bench) -> None:
    for name in (f"ok/{sha256(EVEN[0])}.npz", f"ok/{sha256(EVEN[0])}.png"):
        damage(bench, name)
    with pytest.raises(ArtifactCorruptError, match=sha256(EVEN[0])) as caught:
        bench.fit([EVEN[6]])
    assert "Send it to /fit_ok again" in caught.value.hint
    result = bench.fit([EVEN[0], EVEN[6]])
    assert (result.n_added, result.duplicates) == (1, 1)
    assert (bench.store.folder(KEY) / f"ok/{sha256(EVEN[0])}.png").read_bytes() == EVEN[0]
    assert bench.fit([EVEN[7]]).n_added == 1


def test_inspections_are_refused_and_reported_where_every_version_is_damaged(bench: Bench) -> None:
    for number in (1, 2):
        damage(bench, f"versions/{number}/memory.npz")
    with pytest.raises(ArtifactCorruptError, match="no version is whole"):
        bench.infer(UNSEEN)
    assert KEY in bench.store.faults.degraded()
    bench.store.faults.forget(KEY)
    assert RoiKey("part", "face") not in bench.store.faults.degraded()
