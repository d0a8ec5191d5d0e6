"""What happens between a gateway and its bucket: no answer, a lost one, a slow one, "slow down", and no permission."""

import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import obstore
import pytest

from gateway.errors import OverloadedError, StorageFullError, StorageUnavailableError
from gateway.monitoring.roi_metrics import RoiCollector
from gateway.monitoring.storage import write_problem
from gateway.store.bucket import questions
from tests.bucket.server import BUCKET, SECRET, environment
from tests.e2e.gateway_process import free_port, wait_until
from tests.gateway.brightness_engine import image
from tests.gateway.fit_bench import EVEN, KEY, STRAY

POLL_S = 0.05


def moves(weed, url: str) -> int:
    """How many contents of the ROI the bucket has: nothing is added by a change that was not made."""
    prefix = url.removeprefix(f"s3://{BUCKET}/")
    return len([each for chunk in obstore.list(weed.client(BUCKET), f"{prefix}/pointers/") for each in chunk])


def first_put_of_a_pointer():
    """Name the first PUT of a pointer, once."""
    return first_put_of(b"pointers")


def first_put_of(kind: bytes):
    done = threading.Event()

    def breaks(data: bytes) -> bool:
        if re.match(rb"PUT /\S*/%b/" % kind, data) and not done.is_set():
            done.set()
            return True
        return False

    return breaks


def answers(bench) -> bool:
    """Whether a gateway has asked again: it does so every few seconds."""
    try:
        return not bench.infer(STRAY).degraded
    except StorageUnavailableError:
        return False


@pytest.mark.parametrize("fault", ["refuse", "be_busy"])
def test_while_the_bucket_does_not_answer_known_versions_do_and_changes_are_refused(bench, proxy, fault):
    left = bench("left")
    left.fit(EVEN)
    left.calibrate()
    expected = left.infer(STRAY)
    getattr(proxy, fault)()
    time.sleep(2 * POLL_S)
    answer = left.infer(STRAY)
    assert (answer.score, answer.threshold, answer.verdict) == (expected.score, expected.threshold, expected.verdict)
    assert answer.degraded
    assert any(re.search(r"s3://plant/test-\d+ does not answer", warning) for warning in answer.warnings)
    for change in (lambda: left.fit([STRAY]), left.calibrate, lambda: left.keep("ng", [STRAY])):
        with pytest.raises(StorageUnavailableError, match="does not answer") as refused:
            change()
        assert refused.value.retry_after_s
    assert "does not answer" in (write_problem(left.store) or "")
    assert left.store.rois() == [KEY]
    new = bench("new")
    with pytest.raises(StorageUnavailableError):
        new.infer(STRAY)
    proxy.heal()
    assert left.fit([STRAY]).manifest.version == 2
    answer = left.infer(STRAY)
    assert (answer.version, answer.degraded, left.store.faults.degraded()) == (2, False, {})
    assert write_problem(left.store) is None
    wait_until(lambda: answers(new))
    assert new.infer(STRAY).version == 2


def test_nobody_waits_for_answers_of_the_bucket_that_do_not_come(bench, server, monkeypatch):
    """As on a network that loses packets. A reader waits a moment, and then takes what is known."""
    left = bench("left")
    left.fit(EVEN)
    left.infer(STRAY)
    left.store.rois()
    assert write_problem(left.store) is None
    objects = left.store.storage._objects
    monkeypatch.setattr(questions, "_PATIENCE_S", 0.5)
    answered, asked = threading.Event(), []

    def held_back(ask):
        return lambda *given: (asked.append(given), answered.wait(), ask(*given))[2]

    for name in ("get_changed", "get", "get_large", "create", "below"):
        setattr(objects, name, held_back(getattr(objects, name)))
    time.sleep(2 * POLL_S)
    try:
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda _: left.infer(STRAY), range(40)))
        assert {answer.version for answer in answers} == {1}
        assert left.infer(STRAY).degraded
        assert left.store.rois() == [KEY]
        assert "does not answer" in (write_problem(left.store) or "")
        assert len(asked) <= 3  # the pointer, the list, a write: each once
    finally:
        answered.set()
    wait_until(lambda: not left.infer(STRAY).degraded)
    wait_until(lambda: write_problem(left.store) is None)


def test_a_list_that_takes_long_is_no_bucket_that_does_not_answer(bench, server, monkeypatch):
    """The list of thousands of ROIs takes several answers."""
    left = bench("left")
    left.fit(EVEN)
    left.infer(STRAY)
    left.store.rois()
    monkeypatch.setattr(questions, "_PATIENCE_S", 0.5)
    objects, listed = left.store.storage._objects, threading.Event()
    below = objects.below
    objects.below = lambda prefix: (listed.wait(), below(prefix))[1]
    time.sleep(2 * POLL_S)
    try:
        assert left.store.rois() == [KEY]
        wait_until(lambda: not left.infer(STRAY).degraded, seconds=60)
    finally:
        listed.set()


def test_readers_that_know_nothing_are_refused_at_once_while_the_bucket_is_silent(bench, proxy):
    """Otherwise they would take the threads of the others, each for the whole timeout."""
    left = bench("left")
    left.fit(EVEN)
    new = bench("new")
    proxy.refuse()
    asked = []
    objects = new.store.storage._objects
    ask = objects.get
    objects.get = lambda *given: (asked.append(given), ask(*given))[1]
    for _ in range(20):
        with pytest.raises(StorageUnavailableError):
            new.infer(STRAY)
    assert len(asked) < 20
    proxy.heal()
    wait_until(lambda: answers(new))


def test_a_slow_bucket_changes_no_answer(bench, proxy):
    proxy.delay(0.02)
    left, right = bench("left"), bench("right")
    left.fit(EVEN[:2])
    assert right.infer(STRAY).version == 1
    assert right.fit([STRAY]).manifest.version == 2


def test_a_move_whose_answer_is_lost_counts_once(bench, proxy):
    """The bucket has moved the pointer, and the gateway cannot know: it finds out, and tells the client."""
    left = bench("left")
    left.fit(EVEN)
    proxy.lose_answer_of(first_put_of_a_pointer())
    result = left.fit([STRAY])
    assert (result.manifest.version, result.n_added, len(left.manifest.images)) == (2, 1, 13)
    assert left.store.audit.read(KEY, 1)[0]["outcome"] == "done"
    assert bench("right").infer(STRAY).version == 2


def test_a_probe_whose_answer_is_lost_was_written(bench, proxy):
    """`/ready` and `/metrics` ask for it. The second try finds what the first one wrote."""
    left = bench("left")
    proxy.lose_answer_of(first_put_of(b"probe"))
    assert write_problem(left.store) is None


def test_a_move_whose_answer_is_lost_counts_although_others_moved_on(bench, proxy, weed, monkeypatch):
    """Between the lost answer and the question what became of it, another gateway stores an image."""
    left, right = bench("left"), bench("right")
    left.fit(EVEN)
    pointers = left.store.storage._pointers
    put, done = pointers._put, []

    def moved_on(*given):
        e_tag = put(*given)
        if done:
            return e_tag
        done.append(e_tag)
        right.keep("ng", [image(77)])
        raise StorageUnavailableError("the answer was lost")

    with left.store.lock(KEY, 5):
        pointers._put = moved_on
        left.store.storage.replace(KEY, left.store.folder(KEY) / "calib.json", b"changed")
    time.sleep(2 * POLL_S)
    for each in (left, right):
        assert (each.store.folder(KEY) / "calib.json").read_bytes() == b"changed"
        assert len(each.store.images(KEY).records().stored) == 1


def test_a_move_that_was_given_up_never_comes_through_later(bench, server):
    """A PUT that is still on its way when the client was told 503 meets a pointer that has moved meanwhile."""
    left = bench("left")
    left.fit(EVEN)
    pointers = left.store.storage._pointers
    put, late = pointers._put, []

    def held_back(*given):
        if late:
            return put(*given)
        late.append(given)
        raise StorageUnavailableError("no answer")

    pointers._put = held_back
    with pytest.raises(StorageUnavailableError), left.store.lock(KEY, 5):
        left.store.storage.replace(KEY, left.store.folder(KEY) / "calib.json", b"changed")
    from gateway.store.bucket.objects import LostRaceError

    with pytest.raises(LostRaceError):
        put(*late[0])
    time.sleep(2 * POLL_S)
    assert not (left.store.folder(KEY) / "calib.json").exists()
    assert left.fit([STRAY]).manifest.version == 2


def test_a_change_that_nobody_can_know_of_is_said_to_be_unknown(bench, proxy):
    left = bench("left")
    left.fit(EVEN)
    losing = first_put_of_a_pointer()

    def breaks(data: bytes) -> bool:
        if losing(data):
            threading.Timer(0.3, proxy.refuse).start()
            time.sleep(0.5)
            return True
        return False

    proxy.lose_answer_of(breaks)
    with pytest.raises(StorageUnavailableError, match=r"whether it was is unknown|does not answer"):
        left.fit([STRAY])
    proxy.heal()
    time.sleep(2 * POLL_S)
    # Sent again, it counts once.
    left.fit([STRAY])
    assert len(left.manifest.images) == 13


@pytest.mark.parametrize("status", [b"507 Insufficient Storage", b"403 QuotaExceeded"])
def test_a_full_bucket_is_told_as_a_full_disk_is_and_all_answers_stay(bench, proxy, status):
    left = bench("left")
    left.fit(EVEN)
    left.calibrate()
    expected = left.infer(STRAY)
    proxy.be_full(status)
    for change in (lambda: left.fit([STRAY]), left.calibrate, lambda: left.keep("ng", [STRAY])):
        with pytest.raises(StorageFullError, match=r"s3://plant/test-\d+ accepts no writes"):
            change()
    assert "accepts no writes" in (write_problem(bench("new").store) or "")
    for reader in (left, bench("another")):
        answer = reader.infer(STRAY)
        assert (answer.score, answer.threshold, answer.degraded) == (expected.score, expected.threshold, False)
    proxy.heal()
    assert left.fit([STRAY]).manifest.version == 2
    assert write_problem(left.store) is None


def test_without_any_credentials_the_store_says_so(bench, server, monkeypatch, caplog):
    """obstore then asks the machine for those of its role."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    left = bench("left")
    for ask in (lambda: left.infer(STRAY), lambda: left.fit(EVEN), left.store.rois):
        with pytest.raises(StorageUnavailableError, match="there are no credentials") as refused:
            ask()
        assert "credentials in the gateway's environment" in refused.value.hint
    assert "there are no credentials" in (write_problem(left.store) or "")
    assert "there are no credentials" in caplog.text


def test_a_bucket_that_may_only_be_read_refuses_changes_as_a_full_disk_does(bench, weed, monkeypatch, caplog):
    for name, value in environment(weed.port).items():
        monkeypatch.setenv(name, value)
    left = bench("left")
    left.fit(EVEN)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "reader")
    reader = bench("reader")
    assert reader.infer(STRAY).version == 1
    assert "accepts no writes" in (write_problem(reader.store) or "")
    for change in (lambda: reader.fit([STRAY]), reader.calibrate):
        with pytest.raises(StorageFullError, match=r"s3://plant/test-\d+ accepts no writes \(PermissionDeniedError\)"):
            change()
    assert left.infer(STRAY).version == 1


def test_credentials_are_in_no_message_and_no_log(bench, proxy, monkeypatch, caplog):
    left = bench("left")
    left.fit(EVEN)
    messages = []
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another-secret")
    wrong = bench("wrong")
    with pytest.raises(StorageUnavailableError, match="refuses to read") as refused:
        wrong.infer(STRAY)
    messages.append(refused.value.message)
    proxy.be_busy()
    time.sleep(2 * POLL_S)
    with pytest.raises(StorageUnavailableError) as unavailable:
        left.fit([STRAY])
    messages.append(unavailable.value.message)
    for secret in (SECRET, "another-secret", "Signature"):
        assert secret not in "".join(messages)
        assert secret not in caplog.text


def test_metrics_are_scraped_while_the_bucket_does_not_answer(bench, proxy, caplog):
    from gateway.monitoring.drift.recent import RecentInspections
    from gateway.monitoring.drift.watch import DriftWatch
    from gateway.monitoring.metrics import RoiLabels

    proxy.refuse()
    new = bench("new")
    drift = DriftWatch(RecentInspections(new.settings.cache_dir / "drift", 200), 200)
    families = {family.name: family for family in RoiCollector(new.store, RoiLabels(10), drift).collect()}
    assert families["gateway_models_writable"].samples[0].value == 0
    assert "gateway_models_disk_free_bytes" not in families


def test_two_gateways_behind_a_bucket_that_comes_and_goes_lose_nothing(bench, proxy, full):
    """Fits from both while connections are reset and answers are lost; each one is sent until it is acknowledged."""
    gateways = [bench("left"), bench("right")]
    n_fits = 40 if full else 4
    over = threading.Event()

    def break_it() -> None:
        n = 0
        while not over.wait(0.15):
            n += 1
            proxy.lose_answer_of(first_put_of_a_pointer())
            if n % 4 == 0:
                proxy.refuse()
                over.wait(0.05)
                proxy.heal()

    def fit(n: int) -> list[int]:
        versions = []
        for i in range(n_fits):
            while True:
                try:
                    versions.append(gateways[n].fit([image(2 * i + n)]).manifest.version)
                    break
                except (OverloadedError, StorageUnavailableError):
                    time.sleep(0.05)
        return versions

    with ThreadPoolExecutor(3) as pool:
        breaking = pool.submit(break_it)
        try:
            versions = [version for each in pool.map(fit, range(2)) for version in each]
        finally:
            over.set()
        breaking.result()
    proxy.heal()
    new = bench("new")
    assert len(new.manifest.images) == 2 * n_fits
    assert new.manifest.version == max(versions)
    assert not new.infer(STRAY).degraded
