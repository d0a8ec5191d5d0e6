"""Gateways over one bucket of a real server: what one changes, the others have, and nobody overwrites anybody."""

import json
import random
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import obstore
import pytest

from artifacts.checking import damages
from gateway.errors import ArtifactCorruptError, InvalidRequestError, OverloadedError, UnknownRoiError
from gateway.store.artifact_store import ArtifactStore
from gateway.store.audit import Change
from gateway.store.bucket import pointers as bucket_pointers
from gateway.store.bucket import storage as bucket_storage
from gateway.store.bucket.local_cache import LocalCache
from gateway.store.bucket.objects import LostRaceError
from gateway.store.bucket.roi_state import RoiPointer
from gateway.store.cleanup import sweep
from gateway.store.roi_key import RoiKey
from gateway.store.rollback import forget, roll_back
from tests.bucket.server import BUCKET
from tests.gateway.brightness_engine import image, sha256
from tests.gateway.fit_bench import EVEN, KEY, STRAY, Bench

POLL_S = 0.05


@pytest.fixture(autouse=True)
def _server(server) -> None:
    """Every test has the server."""


def polled() -> None:
    """Wait until every gateway asks again."""
    time.sleep(2 * POLL_S)


def objects_of(weed, url: str, kind: str) -> dict[str, int]:
    """The objects of a kind, by path, with their sizes."""
    prefix = url.removeprefix(f"s3://{BUCKET}/")
    client = weed.client(BUCKET)
    return {each["path"]: each["size"] for chunk in obstore.list(client, f"{prefix}/{kind}/") for each in chunk}


def overwrite(weed, path: str, data: bytes) -> None:
    obstore.put(weed.client(BUCKET), path, data)


def object_path(bench: Bench, url: str, name: str, key: RoiKey = KEY) -> str:
    stored = bench.store.storage.files(key)[name].object
    return f"{url.removeprefix(f's3://{BUCKET}/')}/objects/{key.path.as_posix()}/{stored}"


def test_what_one_gateway_learns_the_other_answers_with(bench):
    left, right = bench("left"), bench("right")
    left.fit(EVEN)
    assert right.infer(STRAY).version == 1
    left.calibrate()
    polled()
    expected, seen = left.infer(STRAY), right.infer(STRAY)
    assert (seen.score, seen.threshold, seen.verdict) == (expected.score, expected.threshold, "ng")
    assert right.fit([STRAY]).manifest.version == 2  # built on what the left one learned
    polled()
    assert left.infer(STRAY).version == 2
    assert len(left.manifest.images) == 13
    assert [entry["action"] for entry in right.store.audit.read(KEY, 10)] == ["fit", "calibrate", "fit"]


def test_a_gateway_sees_its_own_change_at_once_and_asks_seldom(bench):
    left, right = bench("left", poll_s=60), bench("right", poll_s=60)
    left.fit(EVEN)
    assert right.infer(STRAY).version == left.infer(STRAY).version == 1
    left.fit([STRAY])
    assert left.infer(STRAY).version == 2
    assert right.infer(STRAY).version == 1  # within GATEWAY_STORE_POLL_S


def test_ids_of_any_script_and_recipes_come_back_as_they_are(bench):
    left, right = bench("left"), bench("right")
    keys = {RoiKey("Línea 1", "Scheibe vörn"), RoiKey("a", "b", "recipe 2"), RoiKey("角", "面.x")}
    for key in keys:
        with left.store.lock(key, 5, creates=True):
            left.store.storage.replace(key, left.store.folder(key) / "current", b"x")
    assert set(right.store.folders()) == keys


def test_fits_of_two_gateways_at_once_lose_no_image_and_count_none_twice(bench):
    """A writer that loses the race is refused with 429, and sends again."""
    benches = [bench("left"), bench("right")]
    n_each, refused = 6, []

    def fit(n: int) -> int:
        n_added = 0
        for i in range(n_each):
            while True:
                try:
                    n_added += benches[n].fit([image(10 * i + n), image(200 + i)]).n_added
                    break
                except OverloadedError as error:
                    refused.append(error)
                    time.sleep(random.uniform(0, 0.1))
        return n_added

    with ThreadPoolExecutor(2) as pool:
        n_added = sum(pool.map(fit, range(2)))
    polled()
    learned = [{each.sha256 for each in each_bench.manifest.images} for each_bench in benches]
    expected = {sha256(image(10 * i + n)) for i in range(n_each) for n in range(2)}
    expected |= {sha256(image(200 + i)) for i in range(n_each)}
    assert learned == [expected, expected]
    assert n_added == len(expected) == 3 * n_each
    assert all("nothing was changed" in error.message for error in refused)


def test_a_writer_that_lost_the_race_changes_nothing(bench):
    left, right = bench("left"), bench("right")
    left.fit(EVEN)
    calibration = left.calibrate()
    manifest = left.manifest
    with left.store.lock(KEY, 5):
        right.fit([STRAY])  # meanwhile, on another host
        right_files = dict(right.store.storage.files(KEY))
        with pytest.raises(OverloadedError, match="another gateway changed this ROI meanwhile; nothing was changed"):
            left.store.set_calibration(KEY, manifest, calibration)
    polled()
    assert left.store.storage.files(KEY) == right.store.storage.files(KEY) == right_files


def test_a_late_answer_changes_nothing_of_what_a_writer_reads(bench):
    """Otherwise a fit would build on what was, and its move would go through: images of another fit would be lost."""
    left, right = bench("left"), bench("right")
    left.fit(EVEN)
    pointers = left.store.storage._pointers
    before = pointers.known(KEY)
    right.fit([STRAY])
    with left.store.lock(KEY, 5):
        pointers._learned(KEY, before, time.monotonic())  # of a question that was asked before the other's fit
        assert left.manifest.version == 2
        assert len(left.manifest.images) == 13


def test_a_writer_whose_answer_was_lost_has_not_seen_what_another_did_meanwhile(bench, monkeypatch):
    """Its own move stands in the history. To take what came after for its own lost the images of the other fit."""
    left, right = bench("left"), bench("right")
    left.fit(EVEN[:-1])
    pointers = left.store.storage._pointers
    put = pointers._put

    def lose_the_answer(*move) -> None:
        monkeypatch.setattr(pointers, "_put", put)
        put(*move)
        right.fit([STRAY])
        raise LostRaceError

    monkeypatch.setattr(pointers, "_put", lose_the_answer)
    with pytest.raises(OverloadedError, match="another gateway changed this ROI"):
        left.fit(EVEN[-1:])
    assert len(bench("new").manifest.images) == len(EVEN)
    left.fit(EVEN[-1:])
    assert len(bench("newer").manifest.images) == len(EVEN) + 1


def test_images_can_be_stored_while_a_fit_is_at_work(bench):
    """They are another part of the ROI: the fit puts its version on top of them."""
    left, right = bench("left"), bench("right")
    left.fit(EVEN)
    with left.store.lock(KEY, 5):
        right.keep("ng", [STRAY])
        left.store.storage.replace(KEY, left.store.folder(KEY) / "calib.json", b"changed")
    polled()
    for each in (left, right):
        assert [record.label for record in each.store.images(KEY).records().stored] == ["ng"]
        assert (each.store.folder(KEY) / "calib.json").read_bytes() == b"changed"


def test_images_that_several_gateways_store_at_once_are_all_there(bench):
    gateways = [bench(f"gateway {n}") for n in range(3)]

    def store(n: int) -> None:
        for i in range(3):
            while True:
                try:
                    gateways[n].keep("ok", [image(10 * n + i), image(100 + i)])
                    break
                except OverloadedError:
                    time.sleep(random.uniform(0, 0.1))

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(store, range(3)))
    polled()
    for each in gateways:
        records = each.store.images(KEY).records().stored
        assert {record.file_sha256 for record in records} == {
            sha256(image(grey)) for grey in (0, 1, 2, 10, 11, 12, 20, 21, 22, 100, 101, 102)
        }
        assert all(each.store.images(KEY).is_whole(record) for record in records)


def test_a_version_and_its_calibration_appear_together(bench):
    """Read by other gateways as often as they can, while versions come and go."""
    left, right = bench("left"), bench("right", poll_s=0.0001)
    left.fit(EVEN)
    left.calibrate()
    over = threading.Event()

    def look() -> int:
        n = 0
        while not over.is_set():
            answer = right.infer(STRAY)
            assert (answer.degraded, answer.threshold is None) == (False, False)
            n += 1
        return n

    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(look)
        try:
            for grey in (121, 122, 123):
                left.fit([image(grey)])
            roll_back(left.store, left.settings, KEY, 2)
        finally:
            over.set()
        assert looking.result() > 0
    polled()
    assert right.infer(STRAY).version == 2


def test_a_deleted_roi_is_gone_for_all_and_its_trail_stays(bench):
    left, right = bench("left"), bench("right")
    left.fit(EVEN)
    assert right.infer(STRAY).version == 1
    with left.store.lock(KEY, 5), left.store.image_lock(KEY, 5):
        forget(left.store, KEY)
    polled()
    with pytest.raises(UnknownRoiError):
        right.infer(STRAY)
    assert right.store.rois() == []
    assert right.fit(EVEN[:2]).manifest.version == 1  # another ROI of the same name
    assert [entry["action"] for entry in right.store.audit.read(KEY, 10)] == ["fit", "delete", "fit"]
    assert len(right.store.audit.read(KEY, 1)) == 1


def test_a_change_that_failed_is_in_the_trail_as_failed(bench):
    left = bench("left")
    change = Change("fit", None, 1)
    with pytest.raises(ZeroDivisionError), left.store.audit.change(KEY, change):
        raise ZeroDivisionError
    assert left.store.audit.read(KEY, 1)[0]["outcome"] == "failed"


@pytest.mark.parametrize("how", ["damaged", "missing"])
def test_damage_in_the_bucket_is_answered_by_the_version_before(bench, weed, url, how):
    left = bench("left")
    left.fit(EVEN)
    left.calibrate()
    left.fit([STRAY])
    path = object_path(left, url, "versions/2/memory.npz")
    if how == "damaged":
        overwrite(weed, path, b"something else")
    else:
        obstore.delete(weed.client(BUCKET), path)
    answer = bench("new").infer(STRAY)
    assert (answer.version, answer.degraded) == (1, True)
    assert left.infer(STRAY).version == 2  # from its own cache
    # The next fit builds on what is whole, and repairs it.
    new = bench("another")
    new.fit([image(130)])
    polled()
    assert (left.infer(STRAY).version, left.infer(STRAY).degraded) == (3, False)


def test_nothing_is_served_from_a_flipped_byte_in_any_object(bench, weed, url):
    """The version before answers and says so, or there is an error, or no inspection reads the object."""
    left = bench("left")
    left.fit(EVEN[:3])
    left.calibrate()
    before = left.infer(STRAY)
    left.fit([STRAY])
    left.calibrate()
    expected = {answer.version: (answer.score, answer.threshold) for answer in (before, left.infer(STRAY))}
    paths = [*objects_of(weed, url, "objects"), *objects_of(weed, url, "pointers")]
    named = {object_path(left, url, name) for name in left.store.storage.files(KEY)}
    stored = weed.client(BUCKET)
    for n, path in enumerate(paths):
        whole = bytes(obstore.get(stored, path).bytes())
        torn = bytearray(whole)
        torn[(n * 7919) % len(torn)] ^= 1
        overwrite(weed, path, bytes(torn))
        new = bench(f"new {n}")
        try:
            answer = new.infer(STRAY)
        except ArtifactCorruptError:
            pass
        else:
            assert (answer.score, answer.threshold) == expected[answer.version]
            assert answer.version == 2 or answer.degraded
        if path in named or "/pointers/" in path:
            assert list(damages(bench("verifying", cache_bytes=0).store, KEY)), path
        overwrite(weed, path, whole)
    assert list(damages(bench("whole", cache_bytes=0).store, KEY)) == []


def test_a_damaged_ok_image_is_restored_when_it_is_sent_again(bench, weed, url):
    left = bench("left")
    left.fit(EVEN)
    overwrite(weed, object_path(left, url, f"ok/{sha256(EVEN[0])}.png"), b"x")
    other = bench("right")
    with pytest.raises(ArtifactCorruptError, match="damaged"):
        other.store.ok(KEY).image(other.manifest.images[0])
    other.fit([EVEN[0]])
    last = bench("last")
    assert last.store.ok(KEY).image(last.manifest.images[0]) == EVEN[0]


def test_a_damaged_pointer_leaves_gateways_that_know_the_roi_at_work(bench, weed, url):
    left = bench("left")
    left.fit(EVEN)
    (path,) = objects_of(weed, url, "pointers")
    overwrite(weed, path, b"x")
    polled()
    answer = left.infer(STRAY)
    assert (answer.version, answer.degraded) == (1, True)
    assert any("its pointer in s3://" in warning for warning in answer.warnings)
    with pytest.raises(ArtifactCorruptError, match="its pointer in s3://plant/"):
        bench("new").infer(STRAY)
    with pytest.raises(ArtifactCorruptError):
        left.fit([STRAY])


def test_a_damaged_file_of_the_cache_is_read_again(bench, tmp_path):
    left = bench("left")
    left.fit(EVEN)
    right = bench("right")
    right.infer(STRAY)
    for path in (tmp_path / "right" / "store").iterdir():
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    again = bench("right")
    assert (again.infer(STRAY).version, again.infer(STRAY).degraded) == (1, False)


def test_the_cache_is_bounded_by_bytes_and_drops_what_was_used_least_recently(tmp_path):
    cache = LocalCache(tmp_path, 3000)
    for name in "abc":
        cache.put(name, name.encode() * 1000)
    assert cache.get("a") is not None
    cache.put("d", b"d" * 1000)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "c", "d"]
    assert LocalCache(tmp_path, 3000).get("c") == b"c" * 1000
    anew = LocalCache(tmp_path, 3000)  # after a restart it still knows what it has
    anew.put("e", b"e" * 1000)
    assert len(list(tmp_path.iterdir())) == 3


def test_a_gateway_with_a_small_cache_answers_the_same(bench):
    left = bench("left", cache_bytes=1)
    left.fit(EVEN)
    assert left.infer(STRAY).version == bench("right", cache_bytes=1).infer(STRAY).version == 1
    assert left.fit([STRAY]).manifest.version == 2


def test_a_late_list_does_not_hide_an_roi_that_was_made_meanwhile(bench):
    left = bench("left", poll_s=60)
    left.fit(EVEN)
    storage, other = left.store.storage, RoiKey("part", "other")
    below, listed, made = storage._objects.below, threading.Event(), threading.Event()

    def late(prefix: str):
        found = below(prefix)
        listed.set()
        made.wait()
        return found

    storage._objects.below = late
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(storage._pointers.ask_for_all)
        listed.wait()
        storage._objects.below = below
        with left.store.lock(other, 5, creates=True):
            storage.replace(other, left.store.folder(other) / "current", b"x")
        made.set()
        asking.result()
    assert storage.keys() == [KEY, other]


def test_names_that_nobody_taught_are_remembered_in_a_bounded_number(bench, monkeypatch):
    monkeypatch.setattr(bucket_pointers, "_ABSENT", 3)
    left, right = bench("left"), bench("right")
    left.fit(EVEN)
    pointers = right.store.storage._pointers
    for i in range(9):
        with pytest.raises(UnknownRoiError):
            right.store.current(RoiKey("nobody", f"taught-{i}"))
    assert right.infer(STRAY).version == 1
    assert len(pointers._known) == 4
    assert not pointers._asking
    assert not right.store.storage._locks


def test_names_that_differ_only_in_case_are_refused_also_at_the_same_moment(bench):
    left, right = bench("left"), bench("right")
    barrier = threading.Barrier(2)

    def make(store: ArtifactStore, key: RoiKey) -> str:
        barrier.wait()
        try:
            with store.lock(key, 5, creates=True):
                store.storage.replace(key, store.folder(key) / "current", b"x")
        except (InvalidRequestError, OverloadedError) as error:
            return error.code
        return "made"

    with ThreadPoolExecutor(2) as pool:
        results = [pool.submit(make, left.store, RoiKey("a", "b")), pool.submit(make, right.store, RoiKey("A", "b"))]
        outcomes = [result.result() for result in results]
    assert outcomes.count("made") <= 1
    polled()
    made = [key for key in left.store.folders() if left.store.is_fitted(key)]
    assert len(made) == outcomes.count("made")
    if made:
        with pytest.raises(InvalidRequestError, match="differs only in case"):
            right.store.check_name(RoiKey(made[0].role_id.swapcase(), "b"))


def test_contents_that_nothing_names_are_removed_an_hour_later(bench, weed, url, monkeypatch):
    left = bench("left")
    for grey in range(8):  # five versions are kept
        left.fit([image(grey)])
    orphan = f"objects/{KEY.path.as_posix()}/{'0' * 64}.{'0' * 8}"
    left.store.storage._objects.put(orphan, b"of a gateway that was killed before it moved the pointer")
    before = objects_of(weed, url, "objects")
    assert sweep(left.store) == 0
    assert objects_of(weed, url, "objects") == before
    monkeypatch.setattr(bucket_storage, "_GRACE", timedelta(seconds=-60))
    assert sweep(left.store) > 0
    after = objects_of(weed, url, "objects")
    named = left.store.storage.files(KEY)
    assert len(after) == len(named) + 1  # and the list
    new = bench("new")
    assert new.infer(STRAY).version == 8
    assert all(new.store.is_whole(KEY, manifest) for manifest in new.store.manifests(KEY))


def test_an_interrupted_first_fit_leaves_no_roi(bench, monkeypatch):
    left = bench("left")
    with left.store.lock(KEY, 5, creates=True):
        pass
    assert left.store.storage.is_in_use(KEY)
    sweep(left.store)
    assert left.store.storage.is_in_use(KEY)  # perhaps its fit still runs
    monkeypatch.setattr(bucket_storage, "_GRACE", timedelta(seconds=-60))
    sweep(left.store)
    polled()
    assert not left.store.storage.is_in_use(KEY)


def test_tokens_stay_in_the_cache_of_the_gateway(bench, weed, url):
    left, right = bench("left"), bench("right")
    left.fit(EVEN)
    fingerprint = left.engine.model.fingerprint
    assert left.store.ok(KEY).has_tokens(sha256(EVEN[0]), fingerprint)
    assert not right.store.ok(KEY).has_tokens(sha256(EVEN[0]), fingerprint)
    right.fit([STRAY])  # computes them
    assert right.store.ok(KEY).has_tokens(sha256(EVEN[0]), fingerprint)


def test_a_pointer_is_small_and_never_comes_back(bench, weed, url):
    left = bench("left")
    left.fit(EVEN)
    ((path, size),) = objects_of(weed, url, "pointers").items()
    assert size < 400
    bodies = set()
    for version in (1, 1, 1):
        left.fit([STRAY])
        roll_back(left.store, left.settings, KEY, version)
        body = bytes(obstore.get(weed.client(BUCKET), path).bytes())
        assert re.fullmatch(r"[0-9a-f]{64}\.[0-9a-f]{8}", json.loads(body)["files"])
        bodies.add(body)
    assert len(bodies) == 3


@pytest.mark.parametrize("name", ["../../../../etc/passwd", "x" * 64 + ".00000000", "0" * 64])
def test_a_list_that_names_anything_but_an_object_is_not_followed(bench, weed, url, tmp_path, name):
    """Its first part would name a file of the cache, which is removed where it fails its checksum."""
    left = bench("left")
    left.fit(EVEN)
    (path,) = objects_of(weed, url, "pointers")
    pointer = RoiPointer.model_construct(format=2, files=name, move="x")
    overwrite(weed, path, pointer.to_bytes())
    with pytest.raises(ArtifactCorruptError, match="its pointer in s3://plant/"):
        bench("new").infer(STRAY)


def test_a_note_of_no_roi_is_changed_by_one_writer_after_the_other(bench):
    stores = [bench("left").store.storage, bench("right").store.storage]

    def add(n: int) -> None:
        for _ in range(3):
            stores[n].change_note(".gui/a.json", 5, lambda data: (data or b"") + b"x")

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(add, range(2)))
    stores[0].change_note(".gui/a.json", 5, lambda _: None)
    polled()
    assert [store.note(".gui/a.json") for store in stores] == [b"x" * 6] * 2
    assert stores[0].note(".gui/b.json") is None


def test_a_writer_that_leaves_a_note_as_it_found_it_knows_it_from_then_on(bench):
    """Otherwise a scale that another gateway has just fixed would not be seen by the check after the change."""
    left, right = bench("left", poll_s=60).store.storage, bench("right").store.storage
    assert left.note(".gui/a.json") is None
    right.change_note(".gui/a.json", 5, lambda _: b"right")
    left.change_note(".gui/a.json", 5, lambda found: b"left" if found is None else None)
    assert left.note(".gui/a.json") == b"right"
