"""An engine call that never returns: the computing thread is stopped, as a driver or a lock may do."""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.e2e.gateway_process import Gateway
from tests.e2e.synthetic_images import png, steel

# As small as the network's input, so that the engine takes more time than decoding and postprocessing.
SIZE = (112, 112)
OK = [png(steel(seed, SIZE)) for seed in range(3)]
UNSEEN = png(steel(70, SIZE))
_SEIZE, _INTERRUPT, _DETACH = 0x4206, 0x4207, 17
_ANY_THREAD = 0x40000000
_GUARD_S = 60


@pytest.fixture
def served(launch, small_model_repository) -> Iterator[Gateway]:
    """On one core, so that one thread computes."""
    settings = {"threads": 1, "engine_timeout_s": 1, "engine_fit_timeout_s": 2}
    with launch("stuck", model_repository=small_model_repository, **settings) as gateway:
        gateway.fit("kept", OK)
        yield gateway


def busiest_thread(gateway: Gateway) -> int:
    """The thread that computes while images are inspected, beside the main one."""

    def ticks() -> dict[int, int]:
        folders = Path(f"/proc/{gateway.process.pid}/task").iterdir()
        stats = {int(folder.name): (folder / "stat").read_text().rpartition(")")[2].split() for folder in folders}
        return {thread: int(stat[11]) + int(stat[12]) for thread, stat in stats.items()}

    before = ticks()
    for _ in range(80):
        gateway.infer("kept", UNSEEN, heatmap="none")
    used = {thread: now - before.get(thread, 0) for thread, now in ticks().items() if thread != gateway.process.pid}
    first, second = sorted(used, key=lambda thread: used[thread], reverse=True)[:2]
    assert used[first] > used[second], used
    return first


@contextmanager
def stopped(thread: int) -> Iterator[None]:
    """Stop one thread of a child process, as a debugger does."""
    if not sys.platform.startswith("linux"):
        pytest.skip("one thread can be stopped on Linux only")
    ptrace = ctypes.CDLL(None, use_errno=True).ptrace
    ptrace.argtypes, ptrace.restype = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p], ctypes.c_long
    if ptrace(_SEIZE, thread, None, None):
        pytest.skip(f"no thread can be stopped here: {os.strerror(ctypes.get_errno())}")
    assert ptrace(_INTERRUPT, thread, None, None) == 0
    os.waitpid(thread, _ANY_THREAD)
    try:
        yield
    finally:
        ptrace(_DETACH, thread, None, None)


def test_calls_to_a_stuck_engine_end_with_an_error_and_ready_shows_it_until_it_answers(served):
    with stopped(busiest_thread(served)), ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(served.post, "/infer", "kept", [UNSEEN], "image") for _ in range(3)]
        asked.append(pool.submit(served.post, "/fit_ok", "kept", [png(steel(9, SIZE))], "images"))
        for each in asked:
            reply = each.result(_GUARD_S)
            assert (reply.status_code, reply.json()["error"]["code"]) == (503, "engine_timeout")
            assert int(reply.headers["retry-after"]) >= 1
        ready = served.client.get("/ready")
        assert ready.status_code == 503
        assert "has not answered" in ready.json()["engine"]
        assert served.client.get("/health").status_code == 200
        assert served.client.get("/rois/steel/kept").json()["version"] == 1
    ends = time.monotonic() + _GUARD_S
    while served.client.get("/ready").status_code != 200:
        assert time.monotonic() < ends
        time.sleep(0.05)
    assert served.infer("kept", UNSEEN)["version"] == 1
    assert served.fit("kept", [png(steel(9, SIZE))])["n_ok_total"] == 4


def test_a_stuck_engine_does_not_block_the_end_of_the_process(served):
    thread = busiest_thread(served)
    with stopped(thread):
        assert served.post("/infer", "kept", [UNSEEN], "image").status_code == 503
        served.process.send_signal(signal.SIGTERM)
        ends = time.monotonic() + _GUARD_S
        while served.process.poll() is None:
            assert time.monotonic() < ends
            with suppress(ChildProcessError):
                os.waitpid(thread, _ANY_THREAD | os.WNOHANG)  # who stopped a thread is the one to be told of its end
            time.sleep(0.05)
        assert served.process.returncode == 0
    assert "a thread did not end" in served.log.read_text()
