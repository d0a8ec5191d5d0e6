import errno
import hashlib
import itertools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gateway.detectors.memory_bank.bank import MemoryBank, build_memory_bank
from gateway.detectors.memory_bank.detector import bank_files
from gateway.detectors.memory_bank.search.projection import Projection
from gateway.errors import ArtifactCorruptError, OverloadedError, StorageFullError, UnknownRoiError
from gateway.inspection.version_cache import load_version
from gateway.store.artifact_store import ArtifactStore
from gateway.store.manifest import SEARCH, Calibration, Manifest, OkImage, VersionRef
from gateway.store.roi_key import RoiKey

KEY = RoiKey("role", "roi")


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "models", keep_versions=3)


def bank_of(seed: int, n_images: int = 3) -> MemoryBank:
    tokens = np.random.default_rng(seed).normal(size=(n_images, 4, 8)).astype(np.float16)
    return build_memory_bank(tokens, 0.5, seed)


def manifest_of(version: int, bank: MemoryBank) -> Manifest:
    image = OkImage(sha256="0" * 64, file_name="ok.png", extension="png", width=8, height=8, added_in=version)
    return Manifest(
        role_id=KEY.role_id,
        roi_id=KEY.roi_id,
        version=version,
        created_at="2026-01-01T00:00:00+00:00",
        model_fingerprint="f",
        extractor="dinov2-vit-s/14",
        token_hw=(2, 2),
        dim=8,
        coreset_rate=0.5,
        coreset_rate_applied=0.5,
        seed=0,
        k=1,
        p_score=99,
        mm_per_px=0.2,
        n_embeddings=len(bank),
        n_tokens_total=12,
        covering_radius=bank.covering_radius,
        images=(image,),
        ok_scores=(0.5,),
        heatmap_max=1.0,
    )


def publish(store: ArtifactStore, seed: int) -> VersionRef:
    with store.lock(KEY, 5):
        bank = bank_of(seed)
        manifest = manifest_of(store.next_version(KEY), bank)
        ref, _ = store.publish(KEY, manifest, bank_files(bank, manifest))
    return ref


def calibration(threshold: float) -> Calibration:
    return Calibration(
        threshold=threshold,
        p99_ok=0.5,
        p5_ng=None,
        mm_per_px=0.2,
        area_mm2_thr=1,
        score_percentile=99,
        method="p99_ok+margin",
        n_ok=1,
        n_ng=0,
        ok_above=0,
        ng_below=0,
        separable=None,
        ok_source="given",
        margin=0,
        version=1,
        bank_checksum="c",
        created_at="2026-01-01T00:00:00+00:00",
    )


def test_what_is_published_is_what_is_loaded(store: ArtifactStore) -> None:
    ref = publish(store, 1)
    assert store.current(KEY) == ref
    loaded = load_version(store, KEY, ref)
    expected = bank_of(1)
    assert loaded.detector.bank.tokens.tobytes() == expected.tokens.tobytes()
    assert loaded.detector.bank.image_index.tolist() == expected.image_index.tolist()
    assert loaded.damaged == ()
    query = expected.tokens.astype(np.float32)
    assert loaded.detector.search.search(query, 1)[:, 0] == pytest.approx(0, abs=1e-3)


def publish_near_a_plane(store: ArtifactStore, *, with_search: bool) -> MemoryBank:
    """Publish a bank whose principal directions are few, as gateways do now, or as they did before."""
    rng = np.random.default_rng(1)
    tokens = (rng.normal(size=(3, 150, 8)) @ rng.normal(size=(8, 96))).astype(np.float16)
    bank = build_memory_bank(tokens / 100, 1.0, 0)
    with store.lock(KEY, 5):
        manifest = manifest_of(store.next_version(KEY), bank).model_copy(update={"dim": 96})
        files = bank_files(bank, manifest)
        search = files.pop(SEARCH)
        store.publish(KEY, manifest, {**files, SEARCH: search} if with_search else files)
    return bank


def test_the_projection_of_a_bank_is_stored_so_that_no_load_computes_it(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank = publish_near_a_plane(store, with_search=False)
    publish_near_a_plane(store, with_search=True)
    versions = store.root / "role/roi/versions"
    assert (versions / "2" / SEARCH).stat().st_size < (versions / "2/memory.npz").stat().st_size
    query = bank.tokens.astype(np.float32) + np.float32(0.01)
    before = load_version(store, KEY, store.whole_version(KEY, 1)).detector.search.search(query, 2)
    with monkeypatch.context() as patch:
        patch.setattr(Projection, "of", lambda _: pytest.fail("computed"))
        loaded = load_version(store, KEY, store.current(KEY))
    assert loaded.manifest.version == 2
    np.testing.assert_array_equal(loaded.detector.search.search(query, 2), before)


def test_a_projection_that_is_larger_than_its_bank_is_not_stored(store: ArtifactStore) -> None:
    ref = publish(store, 1)
    assert store.manifest(KEY, ref).checksums.keys() == store.manifest(KEY, ref).files.keys()
    assert not (store.root / "role/roi/versions/1" / SEARCH).exists()


def test_a_gateway_that_knows_no_projection_reads_the_manifest(store: ArtifactStore) -> None:
    publish_near_a_plane(store, with_search=True)
    manifest = json.loads((store.root / "role/roi/versions/1/manifest.json").read_bytes())
    assert SEARCH not in manifest["files"]
    assert manifest["format"] == 2


def test_a_version_with_a_damaged_projection_is_not_served(store: ArtifactStore) -> None:
    publish_near_a_plane(store, with_search=False)
    publish_near_a_plane(store, with_search=True)
    path = store.root / "role/roi/versions/2" / SEARCH
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    loaded = load_version(store, KEY, store.current(KEY))
    assert loaded.manifest.version == 1
    assert loaded.damaged == (f"version 2: {SEARCH} fails its checksum",)
    assert not store.is_whole(KEY, store.manifest(KEY, store.current(KEY)))


def test_an_roi_that_was_never_fitted_is_unknown(store: ArtifactStore) -> None:
    with pytest.raises(UnknownRoiError, match="role/roi"):
        store.current(KEY)
    assert store.rois() == []
    assert store.latest_manifest(KEY) is None


def test_versions_count_up_and_only_the_last_are_kept(store: ArtifactStore) -> None:
    refs = [publish(store, seed) for seed in range(5)]
    assert [ref.number for ref in refs] == [1, 2, 3, 4, 5]
    assert sorted(p.name for p in (store.root / "role/roi/versions").iterdir()) == ["3", "4", "5"]


def test_a_number_that_comes_again_after_a_delete_is_another_version(store: ArtifactStore) -> None:
    before = publish(store, 1)
    store.delete(KEY)
    after = publish(store, 2)
    assert before.number == after.number
    assert before != after


@pytest.mark.parametrize("name", ["memory.npz", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "empty"])
def test_a_damaged_version_is_never_served_and_the_last_whole_one_answers(
    store: ArtifactStore, name: str, damage: str
) -> None:
    publish(store, 1)
    ref = publish(store, 2)
    path = store.root / "role/roi/versions/2" / name
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif damage == "truncate":
        path.write_bytes(data[:-1])
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()
    loaded = load_version(store, KEY, ref)
    assert loaded.manifest.version == 1
    assert loaded.detector.bank.tokens.tobytes() == bank_of(1).tokens.tobytes()
    assert len(loaded.damaged) == 1
    assert name in loaded.damaged[0]


def test_nothing_is_served_where_no_version_is_whole(store: ArtifactStore) -> None:
    ref = publish(store, 1)
    (store.root / "role/roi/versions/1/memory.npz").write_bytes(b"x")
    with pytest.raises(ArtifactCorruptError, match=r"memory\.npz"):
        load_version(store, KEY, ref)


@pytest.mark.parametrize("text", ["", "x", "1", "1 abc", "../../etc 0", "-1 " + "0" * 64])
def test_a_damaged_pointer_is_noticed_and_the_newest_whole_version_answers(store: ArtifactStore, text: str) -> None:
    whole = publish(store, 1)
    (store.root / "role/roi/current").write_text(text)
    found = store.current(KEY)
    assert (found.number, found.manifest_sha256) == (whole.number, whole.manifest_sha256)
    assert "current" in load_version(store, KEY, found).damaged[0]
    latest = store.latest_manifest(KEY)
    assert latest is not None
    assert "current" in latest[1][0]
    publish(store, 2)
    assert load_version(store, KEY, store.current(KEY)).damaged == ()
    (store.root / "role/roi/current").write_text(text)
    for manifest in store.root.glob("role/roi/versions/*/manifest.json"):
        manifest.write_bytes(b"{}")
    with pytest.raises(ArtifactCorruptError, match="current"):
        store.current(KEY)
    store.delete(KEY)
    assert not store.is_fitted(KEY)


def test_a_version_with_any_damaged_file_is_not_whole(store: ArtifactStore) -> None:
    ref = publish(store, 1)
    manifest = store.manifest(KEY, ref)
    assert store.is_whole(KEY, manifest)
    (store.root / "role/roi/versions/1/memory.npz").write_bytes(b"x")
    assert not store.is_whole(KEY, manifest)


def test_a_fit_builds_on_the_newest_whole_manifest(store: ArtifactStore) -> None:
    publish(store, 1)
    publish(store, 2)
    (store.root / "role/roi/versions/2/manifest.json").write_bytes(b"{}")
    latest = store.latest_manifest(KEY)
    assert latest is not None
    assert latest[0].version == 1
    assert "manifest.json" in latest[1][0]


_HOLD_LOCK = """
import sys
from pathlib import Path
from gateway.store.roi_key import RoiKey
from gateway.store.artifact_store import ArtifactStore
with ArtifactStore(Path(sys.argv[1]), keep_versions=1).lock(RoiKey("role", "roi"), 5):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_lock_holds_across_processes(store: ArtifactStore) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", _HOLD_LOCK, store.root], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(OverloadedError) as caught, store.lock(KEY, 0.05):
            pass
        assert caught.value.retry_after_s is not None
        with store.lock(RoiKey("role", "other"), 0.05):
            pass  # another ROI is not held
        other.communicate("")
    with store.lock(KEY, 5):
        pass


def test_a_lock_dies_with_its_process(store: ArtifactStore) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", _HOLD_LOCK, store.root], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        other.kill()
    with store.lock(KEY, 5):
        pass


def test_the_lock_holds_across_threads(store: ArtifactStore) -> None:
    inside: list[int] = []
    overlaps: list[int] = []

    def work() -> None:
        for _ in range(20):
            with store.lock(KEY, 20):
                inside.append(1)
                overlaps.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert overlaps == [1] * 80


@pytest.mark.parametrize("name", ["current", "calib.json"])
def test_a_file_that_another_host_replaces_while_it_is_read_is_not_taken_for_damaged(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    refs = [publish(store, 1), publish(store, 2)]
    store.set_calibration(KEY, store.manifest(KEY, refs[0]), calibration(0.6))
    with store.lock(KEY, 5):
        store.roll_back(KEY, refs[0])
    read_bytes, stale = Path.read_bytes, [True, True]

    def over_nfs(path: Path) -> bytes:
        if path.name == name and stale:
            stale.pop()
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", over_nfs)
    ref = store.current(KEY)
    assert (ref.number, ref.damaged) == (1, None)
    stored = store.calibration(KEY, store.manifest(KEY, ref))
    assert stored.calibration is not None
    assert (stored.calibration.threshold, stored.damaged) == (0.6, None)
    assert not stale


def test_the_names_of_a_new_rois_folders_are_on_disk_before_its_first_version_is_in_use(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    in_use = store.folder(KEY) / "current"

    def fsync(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        if not in_use.exists():
            before_use[:] = synced

    before_use: list[Path] = []
    with monkeypatch.context() as patched:
        patched.setattr("gateway.store.atomic.os.fsync", fsync)
        publish(store, 1)
    assert {store.root, store.root / "role", store.folder(KEY) / "versions"} <= set(before_use)
    assert store.folder(KEY) in synced


@pytest.mark.parametrize("fsyncs_that_pass", range(8))
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_full_disk_leaves_what_was_stored(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch, fsyncs_that_pass: int, code: int
) -> None:
    ref = publish(store, 1)
    calls = itertools.count()

    def fsync(_: int) -> None:
        if next(calls) >= fsyncs_that_pass:
            raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched:
        patched.setattr("gateway.store.atomic.os.fsync", fsync)
        with pytest.raises(StorageFullError, match=os.strerror(code)):
            publish(store, 2)
    assert store.current(KEY) == ref
    assert load_version(store, KEY, ref).damaged == ()
    assert [p.name for p in store.root.rglob("*.tmp")] == []
    assert sorted(p.name for p in (store.root / "role/roi/versions").iterdir()) == ["1"]
    publish(store, 3)
    assert store.current(KEY).number == 2


def test_a_full_disk_leaves_the_calibration(store: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = store.manifest(KEY, publish(store, 1))
    store.set_calibration(KEY, manifest, calibration(0.6))

    def fsync(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr("gateway.store.atomic.os.fsync", fsync)
        with pytest.raises(StorageFullError):
            store.set_calibration(KEY, manifest, calibration(0.7))
    kept = store.calibration(KEY, manifest)
    assert kept.damaged is None
    assert kept.calibration is not None
    assert kept.calibration.threshold == 0.6


def test_stored_tokens_are_used_only_whole_and_for_their_own_model(store: ArtifactStore) -> None:
    tokens = np.arange(8, dtype=np.float16).reshape(4, 2)
    (store.root / "role/roi/ok").mkdir(parents=True)
    store.ok(KEY).add_tokens("a" * 64, "model", tokens)
    stored = store.ok(KEY).tokens("a" * 64, "model")
    assert stored is not None
    assert stored.tolist() == tokens.tolist()
    assert store.ok(KEY).tokens("a" * 64, "another model") is None
    assert store.ok(KEY).tokens("b" * 64, "model") is None
    path = store.root / "role/roi/ok" / f"{'a' * 64}.npz"
    whole = path.read_bytes()
    for cut in (0, 10, len(whole) - 1):
        path.write_bytes(whole[:cut])
        assert store.ok(KEY).tokens("a" * 64, "model") is None


def test_nothing_is_unpickled(store: ArtifactStore) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
            return (os.mkdir, (str(store.root / "exploded"),))

    folder = store.root / "role/roi/ok"
    folder.mkdir(parents=True)
    np.savez(folder / f"{'a' * 64}.npz", tokens=np.array([Bomb()], dtype=object), allow_pickle=True)
    assert store.ok(KEY).tokens("a" * 64, "model") is None
    assert not (store.root / "exploded").exists()


def test_an_ok_image_that_changed_on_disk_is_noticed(store: ArtifactStore) -> None:
    data = b"image"
    image = OkImage(
        sha256=hashlib.sha256(data).hexdigest(), file_name="x", extension="png", width=1, height=1, added_in=1
    )
    store.ok(KEY).add_image(image, data)
    assert store.ok(KEY).image(image) == data
    (store.root / "role/roi/ok" / f"{image.sha256}.png").write_bytes(b"imagf")
    with pytest.raises(ArtifactCorruptError, match="damaged"):
        store.ok(KEY).image(image)


def test_delete_takes_everything_and_a_second_one_finds_nothing(store: ArtifactStore) -> None:
    manifest = store.manifest(KEY, publish(store, 1))
    store.set_calibration(KEY, manifest, calibration(0.6))
    store.delete(KEY)
    assert store.rois() == []
    assert not (store.root / "role/roi").exists()
    assert list((store.root / ".trash").iterdir()) == []
    with pytest.raises(UnknownRoiError):
        store.delete(KEY)
