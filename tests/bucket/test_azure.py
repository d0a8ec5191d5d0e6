"""The same store in a container of Azure, whose protocol, conditions and errors are others than those of S3."""

import itertools
from collections.abc import Iterator

import pytest

from artifacts.checking import damages
from gateway.errors import OverloadedError, StorageFullError, StorageUnavailableError
from gateway.store.bucket.objects import LostRaceError, Objects
from gateway.store.bucket.self_test import require_conditional_writes
from gateway.store.cleanup import sweep
from gateway.store.rollback import forget
from tests.bucket.azure import CONTAINER, Azurite, azurite
from tests.bucket.test_bucket_storage import polled
from tests.gateway.brightness_engine import image
from tests.gateway.fit_bench import EVEN, KEY, STRAY

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    with azurite(tmp_path_factory.mktemp("azurite") / "log") as server:
        yield server


@pytest.fixture
def server(started: Azurite, monkeypatch: pytest.MonkeyPatch) -> Azurite:
    """The server, found by the environment."""
    for name, value in started.environment.items():
        monkeypatch.setenv(name, value)
    return started


@pytest.fixture
def url() -> str:
    """A prefix that nobody has used."""
    return f"az://{CONTAINER}/test-{next(_numbers)}"


def test_the_conditions_of_azure_hold_and_nothing_is_left(server, url):
    objects = Objects(url)
    require_conditional_writes(objects)
    assert objects.below("probe/") == []


def test_an_roi_lives_in_a_container_as_in_a_bucket(server, bench):
    left, right = bench("left"), bench("right")
    left.fit(EVEN)
    left.calibrate()
    expected, seen = left.infer(STRAY), right.infer(STRAY)
    assert (seen.version, seen.score, seen.threshold) == (1, expected.score, expected.threshold)
    with left.store.lock(KEY, 5):
        right.fit([STRAY])  # meanwhile, on another host
        with pytest.raises(OverloadedError, match="another gateway changed this ROI meanwhile"):
            left.store.set_calibration(KEY, left.manifest, left.calibration)
    polled()
    assert left.infer(STRAY).version == 2
    assert right.keep("ng", [image(200)]).images
    assert list(damages(left.store, KEY)) == []
    assert sweep(left.store) == 0
    with left.store.lock(KEY, 5), left.store.image_lock(KEY, 5):
        forget(left.store, KEY)
    polled()
    assert right.store.rois() == []
    assert {entry["action"] for entry in right.store.audit.read(KEY, 10)} >= {"fit", "calibrate", "delete"}


def test_what_may_not_be_created_or_exchanged_is_a_lost_race(server, url):
    objects = Objects(url)
    tag = objects.create("probe/x", b"a")
    with pytest.raises(LostRaceError):
        objects.create("probe/x", b"b")
    objects.exchange("probe/x", b"c", tag)
    with pytest.raises(LostRaceError):
        objects.exchange("probe/x", b"d", tag)
    objects.delete(["probe/x", "probe/never"])
    with pytest.raises(LostRaceError):
        objects.exchange("probe/x", b"e", tag)
    with pytest.raises(FileNotFoundError):
        objects.get("probe/x")


def test_a_container_that_does_not_exist_is_told_as_such(server):
    objects = Objects("az://absent/models")
    with pytest.raises(StorageFullError, match=r"az://absent/models accepts no writes \(there is no such bucket\)"):
        require_conditional_writes(objects)
    with pytest.raises(StorageUnavailableError, match=r"refuses to list \(there is no such bucket\)"):
        objects.below("pointers/")


def test_a_wrong_key_is_told_as_such_and_no_key_is_said(server, url, monkeypatch, caplog):
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "d3Jvbmc=")
    objects = Objects(url)
    with pytest.raises(StorageFullError, match="accepts no writes") as written:
        require_conditional_writes(objects)
    with pytest.raises(StorageUnavailableError, match="refuses to read") as read:
        objects.get("pointers/x")
    said = f"{written.value} {written.value.hint} {read.value} {read.value.hint} {caplog.text}"
    assert "credentials" in said
    for secret in (server.key, "d3Jvbmc=", "SharedKey", "Signature"):
        assert secret not in said
