import threading
import weakref

import numpy as np
import pytest

from gateway.detectors.memory_bank import threads


@pytest.fixture
def two_threads():
    threads.set_threads(2)
    yield
    threads.set_threads(1)


def test_every_row_is_taken_once(two_threads):
    taken = np.zeros(1000, np.int32)

    def take(start, stop):
        taken[start:stop] += 1

    threads.split_rows(take, len(taken), at_most=7, at_least=1)
    assert (taken == 1).all()


def filler(array):
    return lambda start, stop: array[start:stop].fill(1)


def test_calls_that_a_busy_helper_never_took_hold_no_arrays(two_threads):
    release, started = threading.Event(), threading.Event()

    def keep_busy(start, stop):
        started.set()
        assert release.wait(60)

    holder = threading.Thread(target=threads._helpers.submit, args=(keep_busy, 0, 1))
    holder.start()
    assert started.wait(60)
    queries = np.zeros(8)
    seen = weakref.ref(queries)
    threads.split_rows(filler(queries), 8, at_most=2, at_least=1)
    assert (queries == 1).all()
    del queries
    try:
        assert seen() is None
    finally:
        release.set()
        holder.join()
