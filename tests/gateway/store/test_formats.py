"""Folders of other formats: those that gateways wrote before, and those of gateways to come.

`formats/format_1.tar.gz` is what the last gateway of format 1 (commit eec2f8c) wrote over the engine of these tests:
`fit(EVEN[:4])`, `calibrate(false_alarm_rate=0.2)`, `fit(EVEN[4:6])`, `remove(EVEN[5])`. Its images are those of the
tests of that time: of the same grey as EVEN, but constant, which no gateway learns any more.
"""

import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.errors import NewerFormatError
from gateway.store.checksummed import sealed
from gateway.store.cleanup import sweep
from gateway.store.rollback import forget, roll_back
from tests.gateway.brightness_engine import image, sha256
from tests.gateway.fit_bench import EVEN, KEY, Bench

FORMAT_1 = Path(__file__).parent / "formats" / "format_1.tar.gz"
THRESHOLD_THEN = 0.10018366575241089
UNSEEN = image(65)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Over the folder of format 1."""
    with tarfile.open(FORMAT_1) as archive:
        archive.extractall(tmp_path, filter="data")
    return Bench(tmp_path)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def formats(bench: Bench) -> dict[str, int]:
    return {
        name: json.loads(data).get("format", 1)
        for name, data in tree(bench.store.folder(KEY)).items()
        if name.endswith(".json")
    }


def test_a_folder_of_format_1_answers_as_it_did_and_reading_changes_nothing_in_it(bench: Bench) -> None:
    before = tree(bench.store.storage.root)
    answer = bench.infer(UNSEEN)
    assert (answer.version, answer.threshold) == (3, THRESHOLD_THEN)
    assert (answer.calibration_stale, answer.degraded, answer.warnings) == (False, False, [])
    assert len(bench.manifest.images) == 5
    assert [manifest.version for manifest in bench.store.manifests(KEY)] == [3, 2, 1]
    assert tree(bench.store.storage.root) == before


def test_an_answer_from_a_folder_of_format_1_is_explained_without_a_new_fit(bench: Bench) -> None:
    found = bench.infer(UNSEEN, explain=True).explanation
    assert found is not None
    assert found.ok_image in bench.manifest.images
    assert found.ok_crop is not None


def test_a_start_leaves_a_folder_of_format_1_as_it_is(bench: Bench) -> None:
    before = tree(bench.store.folder(KEY))
    assert sweep(bench.store) == 0
    assert tree(bench.store.folder(KEY)) == before


def test_the_first_fit_brings_it_to_format_2_with_all_that_it_had(bench: Bench) -> None:
    learned = [image.sha256 for image in bench.manifest.images]
    result = bench.fit([EVEN[5]])
    assert (result.manifest.version, result.calibration) == (4, "redone")
    assert [image.sha256 for image in result.manifest.images] == [*learned, sha256(EVEN[5])]
    assert bench.store.current(KEY).manifests.keys() == {1, 2, 3, 4}
    written = formats(bench)
    assert {name for name, number in written.items() if number == 2} == {
        "calib.json",
        "versions/3/calib.json",
        "versions/4/calib.json",
        "versions/4/manifest.json",
    }
    # The threshold that was in use with version 3 comes back with it, and its manifest is held to a checksum.
    done = roll_back(bench.store, bench.settings, KEY, 3)
    assert done.calibration is not None
    assert done.calibration.threshold == THRESHOLD_THEN
    assert bench.infer(UNSEEN).threshold == THRESHOLD_THEN
    assert not bench.infer(UNSEEN).calibration_stale


def test_a_rollback_within_a_folder_of_format_1_says_that_no_threshold_was_kept(bench: Bench) -> None:
    done = roll_back(bench.store, bench.settings, KEY, 1)
    assert "calibrated for version 3: calibrate again" in " ".join(done.warnings)
    answer = bench.infer(UNSEEN)
    assert (answer.version, answer.threshold, answer.calibration_stale) == (1, THRESHOLD_THEN, True)
    bench.calibrate()
    assert not bench.infer(UNSEEN).calibration_stale
    assert bench.fit([EVEN[6]]).manifest.version == 4
    assert roll_back(bench.store, bench.settings, KEY, 3).calibration is not None
    assert (bench.infer(UNSEEN).threshold, bench.infer(UNSEEN).calibration_stale) == (THRESHOLD_THEN, False)


def test_a_calibration_by_the_peak_brings_the_threshold_to_format_4(bench: Bench) -> None:
    bench.calibrate(ok_scores=[0.4])
    assert formats(bench)["calib.json"] == formats(bench)["versions/3/calib.json"] == 4
    assert bench.infer(UNSEEN).threshold == pytest.approx(0.4)
    assert bench.manifest.format == 1


def test_after_ten_fits_nothing_of_format_1_is_left(bench: Bench) -> None:
    for data in EVEN[5:11]:
        bench.fit([data])
    assert set(formats(bench).values()) == {2}
    assert bench.fit([EVEN[5]]).duplicates == 1


@pytest.mark.parametrize("name", ["current", "calib.json", "versions/4/manifest.json", "versions/4/calib.json"])
def test_what_a_newer_gateway_wrote_is_neither_served_nor_changed(bench: Bench, name: str) -> None:
    bench.fit([EVEN[5]])
    path = bench.store.folder(KEY) / name
    newest = {"current": 2, "versions/4/manifest.json": 4}.get(name, 5)
    newer = sealed(json.dumps({"format": newest + 1, "unheard_of": True}))
    path.write_bytes(newer if name != "current" else 2 * (newer + b"\n"))
    if name == "versions/4/manifest.json":
        _point_to(bench, newer)
    before = tree(bench.store.folder(KEY))

    def deleted() -> None:
        with bench.store.lock(KEY, 5):
            forget(bench.store, KEY)

    attempts: list[Callable[[], object]] = [
        lambda: bench.infer(UNSEEN),
        lambda: bench.fit([EVEN[7]]),
        lambda: bench.remove(EVEN[0]),
        lambda: bench.calibrate(ok_scores=[0.4]),
        lambda: roll_back(bench.store, bench.settings, KEY, 3),
        deleted,
    ]
    for attempt in attempts:
        with pytest.raises(
            NewerFormatError, match=f"format {newest + 1}; this gateway knows formats up to {newest}"
        ) as caught:
            attempt()
        assert "Upgrade" in caught.value.hint
        assert "damaged" not in caught.value.message
    sweep(bench.store)
    assert tree(bench.store.folder(KEY)) == before


def _point_to(bench: Bench, manifest: bytes) -> None:
    """As the newer gateway would have."""
    from gateway.store.checksummed import sha256_of
    from gateway.store.manifest import Pointer

    manifests = {**bench.store.current(KEY).manifests, 4: sha256_of(manifest)}
    pointer = Pointer(version=4, last=4, manifests=manifests)
    (bench.store.folder(KEY) / "current").write_bytes(pointer.to_bytes())
