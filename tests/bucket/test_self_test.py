"""A store whose conditional writes do not hold is refused by name, at the start."""

import re
import subprocess
import sys

import pytest

from gateway.errors import StorageUnavailableError
from gateway.store.artifact_store import ArtifactStore
from gateway.store.bucket.objects import Objects
from gateway.store.bucket.self_test import require_conditional_writes
from gateway.store.bucket.storage import BucketStorage
from gateway.store.place import UnsuitableStorageError
from tests.bucket.faults import FaultyProxy
from tests.e2e.gateway_process import PROJECT
from tests.e2e.gateway_process import environment as gateway_environment
from tests.gateway.fit_bench import KEY


@pytest.fixture
def proxy(proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> FaultyProxy:
    """Without signatures, which would notice that the proxy hides a header."""
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    return proxy


@pytest.mark.parametrize("condition", [b"if-none-match", b"if-match"])
def test_a_store_that_ignores_conditions_is_refused_by_name(url, proxy, condition):
    proxy.rewrite(condition + b":", b"x" * len(condition) + b":")
    with pytest.raises(UnsuitableStorageError, match=r"s3://plant/test-\d+ cannot be used: \d of 4 writers"):
        require_conditional_writes(Objects(url))


def test_a_gateway_over_such_a_store_does_not_start(url, proxy, tmp_path):
    proxy.rewrite(b"if-match:", b"x-match-:")
    settings = {"models_dir": url, "cache_dir": tmp_path, "state_dir": tmp_path, "model_repository": tmp_path}
    done = subprocess.run(
        [sys.executable, "-m", "gateway"],
        env=gateway_environment({"port": 0, **settings}),
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 2, done.stderr
    assert f"error: GATEWAY_MODELS_DIR: {url} cannot be used" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_store_that_did_not_answer_at_the_start_is_tested_before_the_first_change(url, proxy, tmp_path):
    storage = BucketStorage(url, cache=tmp_path, cache_bytes=1000, poll_s=1)
    proxy.refuse()
    with pytest.raises(StorageUnavailableError):
        storage.prepare()
    proxy.heal()
    proxy.rewrite(b"if-match:", b"x-match-:")
    store = ArtifactStore(storage, keep_versions=5)
    with pytest.raises(UnsuitableStorageError), store.lock(KEY, 5):
        pytest.fail("a change began")


def test_a_store_whose_conditions_hold_passes_and_nothing_is_left(url, server, tmp_path):
    objects = Objects(url)
    require_conditional_writes(objects)
    assert objects.below("probe/") == []


def test_a_store_whose_answers_are_lost_once_is_not_refused(url, proxy, monkeypatch):
    """obstore repeats each PUT. The winner of a race then loses against itself."""
    monkeypatch.delenv("AWS_SKIP_SIGNATURE")
    seen: set[bytes] = set()

    def breaks(data: bytes) -> bool:
        bodies = set(re.findall(rb"^PUT .*x-amz-content-sha256: (\w+)", data, re.DOTALL)) - seen
        seen.update(bodies)
        return bool(bodies)

    proxy.lose_answer_of(breaks)
    require_conditional_writes(Objects(url))
    assert len(seen) == 8
