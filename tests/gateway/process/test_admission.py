from contextlib import ExitStack

import pytest

from gateway.errors import InvalidRequestError, OverloadedError, ShuttingDownError
from gateway.monitoring import metrics
from gateway.process.admission import Admission
from gateway.store.roi_key import RoiKey
from gateway.turns import current_line


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr("gateway.process.admission.time.monotonic", lambda: self.now)

    def work(self, admission: Admission, seconds: float, n: int = 1) -> None:
        with admission.reserve() as place, place.work(n):
            self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def refused(admission: Admission, n_bytes: int = 0) -> OverloadedError:
    with pytest.raises(OverloadedError) as caught, admission.reserve(n_bytes):
        pass
    return caught.value


def test_a_request_beyond_the_limit_is_refused_at_once_with_a_retry_time() -> None:
    admission = Admission("inspect", 2)
    with admission.reserve(), admission.reserve():
        error = refused(admission)
        assert "2 requests to inspect" in error.message
        assert "the limit is 2" in error.message
        assert error.retry_after_s == 1, "nothing is measured yet"
    with admission.reserve(), admission.reserve():
        assert admission.in_flight == 2


def test_a_failed_request_gives_its_places_and_bytes_back() -> None:
    admission = Admission("fit", 1, max_bytes=10)
    for _ in range(3):
        with pytest.raises(RuntimeError), admission.reserve(7) as place, place.work(1):
            raise RuntimeError
    assert admission.in_flight == 0
    with admission.reserve(10):
        pass


def test_the_service_time_is_per_image_for_any_size_of_request(clock: Clock) -> None:
    admission = Admission("inspect", 64)
    clock.work(admission, 2.0, n=4)
    assert admission.service_s == pytest.approx(0.5)
    clock.work(admission, 30.0, n=28)
    assert admission.service_s == pytest.approx(1.0), "the mean of the first 32"
    clock.work(admission, 4.2)
    assert admission.service_s == pytest.approx(1.1), "then a part in 32 of the latest"


def test_the_service_time_accounts_for_parallel_work(clock: Clock) -> None:
    """Two that take a second together take half a second each; an idle time before counts for nothing."""
    admission = Admission("inspect", 64)
    clock.now += 50
    with admission.reserve() as a, a.work():
        with admission.reserve() as b, b.work():
            clock.now += 0.5
        clock.now += 0.5
    assert admission.service_s == pytest.approx(0.5)


def test_the_arrival_of_a_body_does_not_count_as_service_time(clock: Clock) -> None:
    admission = Admission("inspect", 64)
    with admission.reserve() as place:
        clock.now += 9
        with place.work():
            clock.now += 0.5
    assert admission.service_s == pytest.approx(0.5)


def test_failed_work_does_not_count_as_service_time(clock: Clock) -> None:
    admission = Admission("inspect", 64)

    def fail() -> None:
        with admission.reserve() as place, place.work():
            clock.now += 3
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert admission.service_s == 0


def test_a_request_that_would_wait_too_long_is_refused(clock: Clock) -> None:
    admission = Admission("inspect", 64, max_wait_s=5)
    clock.work(admission, 62.0, n=31)
    with admission.reserve(), admission.reserve(), admission.reserve(), admission.reserve():
        pass  # 31 are too few to go by
    clock.work(admission, 2.0)
    with admission.reserve(), admission.reserve(), admission.reserve():  # alone, then behind 2 s and 4 s
        error = refused(admission)
        assert "they will take 6.0 s; the limit is 5 s" in error.message
        assert error.retry_after_s == 6


def test_a_request_without_others_is_never_refused(clock: Clock) -> None:
    """However long the last one took, however large it is: else the measure could never be better again."""
    admission = Admission("inspect", 4, max_wait_s=5, max_bytes=10)
    clock.work(admission, 10000, n=40)
    with admission.reserve(n_bytes=99) as place, place.work(32):
        assert refused(admission).retry_after_s == 120


def test_a_batch_counts_by_its_images() -> None:
    admission = Admission("inspect", 10)
    with admission.reserve() as one, one.work(6), admission.reserve() as other:
        with pytest.raises(OverloadedError, match="5 more exceed"), other.work(5):
            pass
        with other.work(4):
            assert admission.in_flight == 10
            refused(admission)
    assert admission.in_flight == 0


def test_the_size_of_all_bodies_together_is_limited() -> None:
    admission = Admission("inspect", 64, max_bytes=100)
    with admission.reserve(60):
        with admission.reserve(40):
            assert "60 bytes" not in refused(admission, 1).message
        assert "60 bytes, and 41 more exceed" in refused(admission, 41).message


def test_a_body_of_undeclared_length_counts_as_it_arrives() -> None:
    admission = Admission("inspect", 64, max_bytes=100)
    with admission.reserve() as place:
        place.receive(500)  # alone, it may
    with admission.reserve(60), admission.reserve() as place:
        for seen in (10, 40):
            place.receive(seen)
        with pytest.raises(OverloadedError, match="100 bytes, and 1 more exceed"):
            place.receive(41)
    with admission.reserve(60), admission.reserve(40) as place:
        place.receive(40)  # as declared
        assert "100 bytes" in refused(admission, 1).message


def test_a_closed_admission_admits_nothing_and_admitted_work_continues() -> None:
    admission = Admission("inspect", 2)
    with admission.reserve() as place:
        admission.close(retry_after_s=7)
        with pytest.raises(ShuttingDownError) as caught, admission.reserve():
            pass
        assert caught.value.retry_after_s == 7
        with place.work():
            assert admission.in_flight == 1


def counts(kind: str) -> tuple[float, float]:
    found = (counter.labels(kind)._value.get() for counter in (metrics.ADMITTED, metrics.SHED))
    admitted, shed = found
    return admitted, shed


def test_a_request_is_counted_once_as_admitted_or_refused() -> None:
    """Whatever the refusal is for: no place, no room for its images, or a wait that ended."""
    admission = Admission("count", 2)
    with admission.reserve(), pytest.raises(OverloadedError), admission.reserve() as place, place.work(3):
        pytest.fail("more than there are places")
    assert counts("count") == (1, 1)
    with pytest.raises(OverloadedError), admission.reserve():
        raise OverloadedError("the queue of the engine is full")
    assert counts("count") == (1, 2)
    with pytest.raises(InvalidRequestError), admission.reserve():
        raise InvalidRequestError("k: 0")
    assert counts("count") == (2, 2)


def test_work_is_refused_while_the_memory_that_it_takes_is_taken() -> None:
    admission = Admission("fit", 4, max_memory=10e9)
    with admission.reserve() as first, first.work(memory=int(7e9)):
        with admission.reserve() as second:
            with pytest.raises(OverloadedError, match=r"they take 7000 MB of memory, and 4000 MB more exceed"):
                second.work(memory=int(4e9)).__enter__()
            with second.work(memory=int(3e9)):
                pass
        assert admission.in_flight == 1
    with admission.reserve() as alone, alone.work(memory=int(12e9)):  # work that is alone is never refused
        pass
    with pytest.raises(RuntimeError), admission.reserve() as failed, failed.work(memory=int(9e9)):
        raise RuntimeError
    with admission.reserve() as first, first.work(memory=int(9e9)):
        pass


def test_the_changes_of_one_roi_leave_places_for_the_others() -> None:
    admission = Admission("change", 16, max_per_roi=3)
    busy, other = RoiKey("part", "a"), RoiKey("part", "b")
    with ExitStack() as held:
        for _ in range(3):
            place = held.enter_context(admission.reserve())
            held.enter_context(place.work(key=busy))
        with admission.reserve() as fourth:
            with pytest.raises(OverloadedError, match="3 of them are of part/a"):
                fourth.work(key=busy).__enter__()
            with fourth.work(key=other):
                pass
    with admission.reserve() as again, again.work(key=busy):
        pass


class Lines:
    """Requests of several lines that are in flight together."""

    def __init__(self, limit: int, **limits: float) -> None:
        self.admission = Admission("inspect", limit, shared_by_lines=True, **limits)
        self._in_flight: list[tuple[str, ExitStack]] = []

    def admits(self, line: str, n: int = 1, n_bytes: int = 0) -> bool:
        """Ask for a place, then for those of n images; return whether the line got them. It keeps what it got."""
        with ExitStack() as asked:
            before = current_line.set(line)
            try:
                place = asked.enter_context(self.admission.reserve(n_bytes))
                asked.enter_context(place.work(n))
            except OverloadedError:
                return False
            finally:
                current_line.reset(before)
            self._in_flight.append((line, asked.pop_all()))
        return True

    def flood(self, line: str) -> int:
        """Ask until refused; return how many places the line got."""
        return next(n for n in range(1000) if not self.admits(line))

    def end(self, line: str, n: int = 1) -> None:
        """End the first n requests of a line."""
        for each in [each for each in self._in_flight if each[0] == line][:n]:
            self._in_flight.remove(each)
            each[1].close()


def test_one_line_alone_may_take_all_places() -> None:
    assert Lines(8).flood("only") == 8


def test_a_line_that_floods_leaves_places_to_the_others() -> None:
    lines = Lines(12)
    assert lines.admits("quiet")
    assert lines.flood("flood") == 8, "two thirds"
    assert lines.admits("quiet", 3)


def test_two_lines_that_flood_leave_places_too() -> None:
    lines = Lines(15)
    assert lines.admits("quiet")
    assert lines.flood("a") == 10
    lines.end("a", 4)
    assert lines.flood("b") == 6, "two fifths"
    assert lines.admits("quiet", 2)


def test_a_line_within_its_equal_share_is_refused_only_where_nothing_is_free() -> None:
    lines = Lines(8)
    assert lines.admits("quiet")
    assert lines.flood("flood") == 5
    assert lines.admits("quiet", 2)
    assert not lines.admits("quiet")


def test_a_line_that_was_refused_finds_a_place_as_soon_as_one_is_free() -> None:
    """The flood was alone and took everything. Now it gets nothing back before it holds less."""
    lines = Lines(6)
    assert lines.flood("flood") == 6
    assert not lines.admits("quiet")
    lines.end("flood")
    assert not lines.admits("flood")
    assert lines.admits("quiet")


def test_a_batch_is_held_to_the_share_of_its_line_by_its_images() -> None:
    lines = Lines(12)
    assert lines.admits("quiet")
    assert lines.admits("flood", 6)
    assert not lines.admits("flood", 5), "5 are free, and it would hold 11"
    assert lines.admits("flood", 4)


def test_a_batch_without_others_is_never_refused_for_its_line() -> None:
    lines = Lines(4)
    assert lines.admits("quiet")
    lines.end("quiet")
    assert lines.admits("other", 9)


def test_a_line_that_was_last_seen_long_ago_keeps_no_places_free(clock: Clock) -> None:
    lines = Lines(6)
    assert lines.admits("night shift")
    lines.end("night shift")
    clock.now += 601
    assert lines.flood("only") == 6


def test_a_client_that_changes_its_address_all_the_time_takes_no_memory_and_leaves_places() -> None:
    lines = Lines(4)
    assert lines.admits("flood")
    for n in range(1000):
        lines.admits(f"address {n}")
    assert len(lines.admission._asked_at) == 5
    lines.end("address 0")
    assert lines.admits("quiet")


def test_a_quiet_line_waits_for_its_share_of_a_flood_only(clock: Clock) -> None:
    lines = Lines(64, max_wait_s=5)
    clock.work(lines.admission, 32.0, n=32)  # a second each
    assert lines.flood("flood") == 6, "six seconds of its own work"
    assert lines.admits("quiet"), "behind one image of the flood"
    assert lines.admits("quiet", 2), "behind its own image, and two of the flood"
    assert not lines.admits("flood")


def test_the_bodies_of_a_line_that_floods_leave_bytes_to_the_others() -> None:
    lines = Lines(64, max_bytes=100)
    assert lines.admits("quiet", n_bytes=10)
    assert lines.admits("flood", n_bytes=60)
    assert not lines.admits("flood", n_bytes=20)
    assert lines.admits("quiet", n_bytes=30)


def test_an_admission_that_lines_do_not_share_refuses_nobody_for_its_line() -> None:
    lines = Lines(4)
    lines.admission = Admission("fit", 4)
    assert lines.admits("a")
    assert lines.flood("b") == 3
