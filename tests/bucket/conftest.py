"""A real server for the session, and a prefix of its own for each test."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.store.artifact_store import ArtifactStore
from gateway.store.bucket import questions
from gateway.store.bucket.storage import BucketStorage
from tests.bucket.faults import FaultyProxy, faulty
from tests.bucket.server import BUCKET, Weed, environment, running_weed
from tests.e2e.conftest import launch, pytest_runtest_makereport
from tests.gateway.fit_bench import Bench

__all__ = ["launch", "pytest_runtest_makereport"]

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def weed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Weed]:
    with running_weed(tmp_path_factory.mktemp("weed")) as server:
        yield server


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loaded machine must not look like a bucket that does not answer. A test about that sets its own patience."""
    monkeypatch.setattr(questions, "_PATIENCE_S", 60)


@pytest.fixture
def server(weed: Weed, monkeypatch: pytest.MonkeyPatch) -> Weed:
    """The server, found by the environment."""
    for name, value in environment(weed.port).items():
        monkeypatch.setenv(name, value)
    return weed


@pytest.fixture
def url() -> str:
    """A prefix that nobody has used."""
    return f"s3://{BUCKET}/test-{next(_numbers)}"


@pytest.fixture
def proxy(weed: Weed, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """The server behind a proxy that can break: found by the environment."""
    with faulty(weed.port) as between:
        for name, value in environment(between.port).items():
            monkeypatch.setenv(name, value)
        yield between


@pytest.fixture
def bench(url: str, tmp_path: Path) -> Callable[..., Bench]:
    """Make the services of a gateway over the bucket, with a cache of its own by its name."""

    def services(name: str, poll_s: float = 0.05, cache_bytes: int = 1 << 30, where: str = url) -> Bench:
        storage = BucketStorage(where, cache=tmp_path / name / "store", cache_bytes=cache_bytes, poll_s=poll_s)
        storage.prepare = lambda: None  # the test of the server is in test_self_test.py; it takes a second
        return Bench(tmp_path / name / "models", ArtifactStore(storage, keep_versions=5))

    return services
