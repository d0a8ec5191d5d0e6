import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from gateway.store.cleanup import sweep
from gateway.store.rollback import roll_back
from tests.gateway.brightness_engine import image
from tests.gateway.fit_bench import EVEN, KEY, Bench

UNSEEN = image(65)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    bench = Bench(tmp_path / "models")
    bench.fit(EVEN[:3])
    bench.calibrate()
    bench.fit(EVEN[3:4])
    return bench


def tree(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if ".locks" not in path.parts}


def leave_behind(bench: Bench) -> None:
    """What writes that were cut off leave: files aside, a version aside, one that no pointer names, images of a fit."""
    folder, mark = bench.store.folder(KEY), uuid.uuid4().hex
    for path in (
        folder / f".current.{mark}.tmp",
        folder / f".calib.json.{mark}.tmp",
        folder / "ok" / f".{'a' * 64}.png.{mark}.tmp",
        folder / "ok" / f"{'a' * 64}.png",
        folder / "ok" / f"{'a' * 64}.npz",
        folder / "versions" / "2" / f".calib.json.{mark}.tmp",
        folder / "versions" / f".3.{mark}.tmp" / "memory.npz",
        folder / "versions" / "3" / "memory.npz",
        bench.store.storage.root / f".probe.{mark}",
        bench.store.storage.root / ".trash" / mark / "ok" / "x.png",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def test_what_interrupted_writes_left_goes_and_nothing_else(bench: Bench) -> None:
    (bench.store.storage.root / ".trash").mkdir()
    before, answer = tree(bench.store.storage.root), bench.infer(UNSEEN)
    leave_behind(bench)
    assert tree(bench.store.storage.root) > before
    assert sweep(bench.store) == 10
    assert tree(bench.store.storage.root) == before
    again = bench.infer(UNSEEN)
    assert (again.version, again.score, again.threshold) == (answer.version, answer.score, answer.threshold)
    assert sweep(bench.store) == 0


def test_after_a_rollback_the_later_versions_are_no_orphans(bench: Bench) -> None:
    roll_back(bench.store, bench.settings, KEY, 1)
    assert sweep(bench.store) == 0
    assert roll_back(bench.store, bench.settings, KEY, 2).manifest.version == 2


def test_files_that_no_gateway_names_so_stay(bench: Bench) -> None:
    folder = bench.store.folder(KEY)
    for path in (
        folder / "notes.tmp",
        folder / "ok" / "readme.txt",
        bench.store.storage.root / "docs" / "plan" / "a.tmp",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    before = tree(bench.store.storage.root)
    assert sweep(bench.store) == 0
    assert tree(bench.store.storage.root) == before


def test_images_stay_where_a_manifest_that_may_name_them_cannot_be_read(bench: Bench) -> None:
    leave_behind(bench)
    (bench.store.folder(KEY) / "versions" / "1" / "manifest.json").write_bytes(b"x")
    sweep(bench.store)
    assert (bench.store.folder(KEY) / "ok" / f"{'a' * 64}.png").exists()


def test_a_first_fit_that_was_cut_off_leaves_no_folder(bench: Bench) -> None:
    folder = bench.store.storage.root / "part" / "cut off"
    (folder / "ok").mkdir(parents=True)
    (folder / "ok" / f"{'b' * 64}.png").write_bytes(b"x")
    assert sweep(bench.store) == 1
    assert not folder.exists()


def test_an_roi_that_lost_its_pointer_keeps_all_it_has(bench: Bench) -> None:
    (bench.store.folder(KEY) / "current").unlink()
    before = tree(bench.store.storage.root)
    assert sweep(bench.store) == 0
    assert tree(bench.store.storage.root) == before


_WRITE = """
import sys
from pathlib import Path
from gateway.store.artifact_store import ArtifactStore
from gateway.store.roi_key import RoiKey
with ArtifactStore(Path(sys.argv[1]), keep_versions=5).lock(RoiKey("part", "face"), 5):
    print("writing", flush=True)
    sys.stdin.read()
"""


def test_an_roi_that_another_process_is_writing_is_left_alone(bench: Bench) -> None:
    leave_behind(bench)
    before = tree(bench.store.folder(KEY))
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITE, bench.store.storage.root],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "writing\n"
        sweep(bench.store)
        assert tree(bench.store.folder(KEY)) == before
        writer.communicate("")
    sweep(bench.store)
    assert tree(bench.store.folder(KEY)) < before
