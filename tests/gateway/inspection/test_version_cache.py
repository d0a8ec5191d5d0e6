import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.detectors.memory_bank.detector import bank_files
from gateway.errors import UnknownRoiError
from gateway.inspection.version_cache import LoadedVersion, VersionCache, load_version
from gateway.store.artifact_store import ArtifactStore
from gateway.store.manifest import VersionRef
from gateway.store.reader import VerifiedVersion
from gateway.store.roi_key import RoiKey
from tests.gateway.store.test_artifact_store import KEY, bank_of, calibration, manifest_of, publish


class CountingStore(ArtifactStore):
    """The real store; counts how often a bank is read."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, keep_versions=3)
        self.loads: list[RoiKey] = []

    def load(self, key: RoiKey, ref: VersionRef, build: Callable[[VerifiedVersion], LoadedVersion]) -> LoadedVersion:
        self.loads.append(key)
        return super().load(key, ref, build)


def publish_to(store: ArtifactStore, key: RoiKey, seed: int = 1) -> None:
    with store.lock(key, 5):
        manifest = manifest_of(store.next_version(key), bank_of(seed))
        store.publish(key, manifest, bank_files(bank_of(seed), manifest))


@pytest.fixture
def store(tmp_path: Path) -> CountingStore:
    return CountingStore(tmp_path)


def test_a_bank_is_read_once_however_many_ask_at_once(store: CountingStore) -> None:
    publish(store, 1)
    banks = VersionCache(store, max_bytes=1 << 30)

    async def run() -> None:
        rois = await asyncio.gather(*(banks.get(KEY) for _ in range(16)))
        assert len({id(roi.loaded) for roi in rois}) == 1

    asyncio.run(run())
    assert store.loads == [KEY]


def test_a_fit_elsewhere_is_seen_at_the_next_request(store: CountingStore) -> None:
    publish(store, 1)
    banks = VersionCache(store, max_bytes=1 << 30)
    another_gateway = ArtifactStore(store.storage.root, keep_versions=3)

    async def run() -> None:
        assert (await banks.get(KEY)).loaded.manifest.version == 1
        second = publish(another_gateway, 2)
        another_gateway.set_calibration(KEY, another_gateway.manifest(KEY, second), calibration(0.7))
        roi = await banks.get(KEY)
        assert roi.loaded.manifest.version == 2
        assert roi.calibration is not None
        assert roi.calibration.threshold == 0.7
        another_gateway.delete(KEY)
        with pytest.raises(UnknownRoiError):
            await banks.get(KEY)
        publish(another_gateway, 3)
        roi = await banks.get(KEY)
        assert roi.loaded.detector.bank.tokens.tobytes() == bank_of(3).tokens.tobytes()
        assert roi.calibration is None

    asyncio.run(run())


def test_the_least_recently_used_version_goes_first(store: CountingStore) -> None:
    keys = [RoiKey("role", f"roi {i}") for i in range(3)]
    for key in keys:
        publish_to(store, key)
    one = load_version(store, keys[0], store.current(keys[0])).n_bytes
    store.loads.clear()
    banks = VersionCache(store, max_bytes=2 * one)

    async def run() -> None:
        for key in (keys[0], keys[1], keys[0], keys[2], keys[0], keys[1]):
            await banks.get(key)

    asyncio.run(run())
    # The third took the place of the second, which had not been used since; the first stayed.
    assert store.loads == [keys[0], keys[1], keys[2], keys[1]]


def test_a_rotation_of_any_number_of_rois_reads_each_once_where_the_bytes_suffice(store: CountingStore) -> None:
    keys = [RoiKey("role", f"roi {i}") for i in range(200)]
    for key in keys:
        publish_to(store, key)
    one = load_version(store, keys[0], store.current(keys[0])).n_bytes
    store.loads.clear()
    banks = VersionCache(store, max_bytes=200 * one)

    async def run() -> None:
        for key in (*keys, *keys, *keys):
            await banks.get(key)

    asyncio.run(run())
    assert store.loads == keys


def test_a_version_in_the_place_of_another_counts_once(store: CountingStore) -> None:
    keys = [RoiKey("role", f"roi {i}") for i in range(2)]
    for key in keys:
        publish_to(store, key)
    one = load_version(store, keys[0], store.current(keys[0])).n_bytes
    banks = VersionCache(store, max_bytes=2 * one)

    async def run() -> None:
        await banks.get(keys[1])
        for seed in range(2, 8):
            publish_to(store, keys[0], seed)
            await banks.get(keys[0])
        store.loads.clear()
        await banks.get(keys[1])

    asyncio.run(run())
    assert store.loads == []


def test_a_restart_loads_the_versions_used_last_before_requests_come(store: CountingStore, tmp_path: Path) -> None:
    keys = [RoiKey("role", f"roi {i}") for i in range(3)]
    for key in keys:
        publish_to(store, key)
    one = load_version(store, keys[0], store.current(keys[0])).n_bytes
    notes = tmp_path / "cache" / "recent.json"

    async def use() -> None:
        banks = VersionCache(store, max_bytes=2 * one, notes=notes)
        for key in (keys[0], keys[1], keys[2], keys[1]):
            await banks.get(key)
        await banks.close()

    async def start_again() -> None:
        banks = VersionCache(store, max_bytes=1 << 30, notes=notes)
        await banks.warm()
        assert store.loads == [keys[2], keys[1]]
        await banks.get(keys[1])
        assert len(store.loads) == 2

    asyncio.run(use())
    store.loads.clear()
    asyncio.run(start_again())


@pytest.mark.parametrize("text", ["", "{", '{"a": 1}', "[1]", '[["../x", "y"]]', '[["role", "gone"]]'])
def test_the_gateway_starts_with_missing_or_damaged_notes(store: CountingStore, tmp_path: Path, text: str) -> None:
    notes = tmp_path / "recent.json"
    notes.write_text(text)
    asyncio.run(VersionCache(store, max_bytes=1 << 30, notes=notes).warm())
    assert store.loads == []


@pytest.mark.parametrize("change", ["fit", "delete"])
def test_a_change_between_two_reads_does_not_count_as_damage(
    store: CountingStore, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    publish(store, 1)
    banks = VersionCache(store, max_bytes=1 << 30)
    load = store.load

    def load_too_late(key: RoiKey, ref: VersionRef, build: Callable[[VerifiedVersion], LoadedVersion]):
        monkeypatch.setattr(store, "load", load)
        store.delete(KEY)
        if change == "fit":
            publish(store, 2)
        return load(key, ref, build)

    monkeypatch.setattr(store, "load", load_too_late)
    if change == "delete":
        with pytest.raises(UnknownRoiError):
            asyncio.run(banks.get(KEY))
    else:
        bank = asyncio.run(banks.get(KEY)).loaded
        assert bank.detector.bank.tokens.tobytes() == bank_of(2).tokens.tobytes()


def test_a_reader_retries_while_versions_are_replaced_faster_than_it_reads(
    store: CountingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(store, 1)
    banks = VersionCache(store, max_bytes=1 << 30)
    load, numbers = store.load, itertools.count(2)

    def load_too_late(key: RoiKey, ref: VersionRef, build: Callable[[VerifiedVersion], LoadedVersion]):
        if len(outrun) < 20:
            outrun.append(ref.number)
            for _ in range(5):  # more than are kept: the version asked for is gone
                publish(store, next(numbers))
        return load(key, ref, build)

    outrun: list[int] = []
    monkeypatch.setattr(store, "load", load_too_late)
    roi = asyncio.run(banks.get(KEY))
    assert outrun == list(range(1, 101, 5))
    assert roi.loaded.manifest.version == 101
    assert not roi.loaded.damaged
