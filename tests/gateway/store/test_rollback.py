"""Back to an earlier version, and on from there."""

from pathlib import Path

import pytest

from gateway.errors import ArtifactCorruptError, UnknownRoiError, UnknownVersionError
from gateway.store.rollback import RolledBack, forget, roll_back
from tests.gateway.brightness_engine import image, sha256
from tests.gateway.fit_bench import EVEN, KEY, STRAY, Bench

UNSEEN = image(65)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "models")


def back(bench: Bench, version: int) -> RolledBack:
    return roll_back(bench.store, bench.settings, KEY, version)


def numbers(bench: Bench) -> list[int]:
    return [manifest.version for manifest in bench.store.manifests(KEY)]


@pytest.mark.parametrize("scores", [{}, {"ok_scores": [0.3, 0.4]}])
def test_a_rollback_brings_back_all_that_a_version_answered_with(bench: Bench, scores: dict[str, list[float]]) -> None:
    bench.fit(EVEN)
    bench.calibrate(**scores)
    then = bench.infer(UNSEEN)
    bench.fit([STRAY])
    bench.calibrate(ok_scores=[1.5])
    now = bench.infer(UNSEEN)
    done = back(bench, 1)
    assert (done.before, done.manifest.version, done.warnings) == (2, 1, [])
    assert done.calibration is not None
    assert (done.calibration.threshold, done.calibration.is_stale(done.manifest)) == (then.threshold, False)
    assert _said(bench, UNSEEN) == _known(then)
    back(bench, 2)
    assert _said(bench, UNSEEN) == _known(now)


def _said(bench: Bench, data: bytes) -> tuple[object, ...]:
    return _known(bench.infer(data))


def _known(answer) -> tuple[object, ...]:
    return answer.version, answer.score, answer.threshold, answer.calibration_stale, answer.degraded, answer.warnings


def test_a_version_that_was_stale_or_not_calibrated_comes_back_as_such(bench: Bench) -> None:
    bench.fit(EVEN[:4])
    bench.fit(EVEN[4:6])
    bench.calibrate(ok_scores=[0.3])
    bench.fit(EVEN[6:8])
    bench.calibrate(ok_scores=[0.6])
    assert back(bench, 1).calibration is None
    assert bench.infer(UNSEEN).verdict == "uncalibrated"
    stale = bench.fit(EVEN[:4]).calibration
    assert stale == "none"
    back(bench, 2)
    bench.fit([STRAY])
    bench.calibrate(ok_scores=[0.9])
    back(bench, 3)
    assert bench.infer(UNSEEN).threshold == pytest.approx(0.6)


def test_a_fit_after_a_rollback_builds_on_it_under_a_number_that_none_had(bench: Bench) -> None:
    bench.fit(EVEN[:4])
    bench.fit(EVEN[4:6])
    bench.fit([STRAY])
    back(bench, 1)
    result = bench.fit(EVEN[6:7])
    assert result.manifest.version == 4
    assert [i.sha256 for i in result.manifest.images] == [sha256(data) for data in (*EVEN[:4], EVEN[6])]
    back(bench, 3)
    assert len(bench.manifest.images) == 7


def test_the_oldest_version_kept_stays_while_it_is_in_use_and_while_it_may_be_read(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "models")  # keeps 5
    for data in EVEN[:5]:
        bench.fit([data])
    back(bench, 1)
    assert numbers(bench) == [5, 4, 3, 2, 1]
    bench.fit([EVEN[5]])
    assert numbers(bench) == [6, 5, 4, 3, 2, 1]
    assert bench.infer(EVEN[7]).version == 6
    bench.fit([EVEN[6]])
    assert numbers(bench) == [7, 6, 5, 4, 3]


def test_images_that_no_kept_version_names_go_and_all_others_stay(bench: Bench) -> None:
    bench.fit([*EVEN[:2], STRAY])
    bench.remove(STRAY)
    stored = bench.store.storage.root / "part/face/ok"
    for data in EVEN[2:5]:
        assert {p.stem for p in stored.iterdir()} >= {sha256(STRAY)}
        bench.fit([data])
    bench.fit([EVEN[5]])
    assert {p.stem for p in stored.iterdir()} == {sha256(data) for data in EVEN[:6]}
    assert back(bench, 2).manifest.version == 2
    assert bench.fit([EVEN[7]]).manifest.version == 7


def test_only_a_whole_version_that_is_kept_can_be_gone_back_to(bench: Bench) -> None:
    with pytest.raises(UnknownRoiError):
        back(bench, 1)
    for data in EVEN[:3]:
        bench.fit([data])
    with pytest.raises(UnknownVersionError, match=r"version 9 .* is not kept; kept versions are 1, 2, 3") as caught:
        back(bench, 9)
    assert caught.value.status == 409
    (bench.store.storage.root / "part/face/versions/1/index.faiss").write_bytes(b"x")
    with pytest.raises(UnknownVersionError, match=r"index\.faiss fails its checksum"):
        back(bench, 1)
    assert bench.infer(UNSEEN).version == 3


def test_a_version_rolled_back_from_does_not_come_again_by_itself(bench: Bench) -> None:
    bench.fit(EVEN[:2])
    bench.fit([STRAY])
    back(bench, 1)
    (bench.store.storage.root / "part/face/versions/1/memory.npz").write_bytes(b"x")
    with pytest.raises(ArtifactCorruptError, match="version 1"):
        bench.infer(UNSEEN)
    back(bench, 2)
    assert bench.infer(UNSEEN).version == 2


def test_a_pointer_that_is_damaged_in_one_place_still_names_what_was_rolled_back_to(bench: Bench) -> None:
    bench.fit(EVEN[:2])
    bench.fit([STRAY])
    back(bench, 1)
    pointer = bench.store.storage.root / "part/face/current"
    data = bytearray(pointer.read_bytes())
    data[70] ^= 1
    pointer.write_bytes(data)
    answer = bench.infer(UNSEEN)
    assert (answer.version, answer.degraded) == (1, True)
    assert "'current' is damaged" in " ".join(answer.warnings)
    assert back(bench, 1).warnings == ["damaged: 'current' is damaged, its second copy answers; repaired"]
    assert not bench.infer(UNSEEN).degraded


def test_going_back_to_the_version_in_use_changes_nothing(bench: Bench) -> None:
    bench.fit(EVEN[:2])
    entries = bench.store.audit.read(KEY, 10)
    assert back(bench, 1).before == 1
    assert bench.store.audit.read(KEY, 10) == entries


def test_every_change_is_in_the_audit_trail_which_outlives_the_roi(bench: Bench) -> None:
    bench.fit(EVEN[:3])
    first = bench.calibrate().threshold
    bench.fit([STRAY])
    second = bench.calibration.threshold
    bench.remove(STRAY)
    back(bench, 2)
    with bench.store.lock(KEY, 5):
        forget(bench.store, KEY)
    entries = bench.store.audit.read(KEY, 100)[::-1]
    assert [(e["action"], e["version_before"], e["version_after"], e["outcome"]) for e in entries] == [
        ("fit", None, 1, "done"),
        ("calibrate", 1, 1, "done"),
        ("fit", 1, 2, "done"),
        ("delete_ok_image", 2, 3, "done"),
        ("rollback", 3, 2, "done"),
        ("delete", 2, None, "done"),
    ]
    assert [(e["threshold_before"], e["threshold_after"]) for e in entries] == [
        (None, None),
        (None, first),
        (first, second),
        (second, first),
        (first, second),
        (second, None),
    ]
    assert [(e["n_ok_before"], e["n_ok_after"]) for e in entries] == [(0, 3), (3, 3), (3, 4), (4, 3), (3, 4), (4, 0)]
    with pytest.raises(UnknownRoiError):
        bench.infer(UNSEEN)
