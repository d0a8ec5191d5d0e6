"""What a gateway does that is asked for more than it can do, or asked for long.

Latencies are bounded by what the gateway was told (`GATEWAY_MAX_QUEUE_S`) and by what the same run measured on the same
machine while nothing was wrong, with room for a machine that does other things besides.
"""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.e2e.gateway_process import PROJECT, Gateway
from tests.e2e.synthetic_images import png, steel

OK = [png(steel(seed)) for seed in range(4)]
UNSEEN = png(steel(70))
QUEUE_S = 1.0
TIMES_OVER = 5
_GUARD_S = 180
_TRIES = 15
"""Other programs may run on this machine during a measurement."""


@pytest.fixture
def loaded(launch, small_model_repository) -> Iterator[Gateway]:
    with launch("loaded", model_repository=small_model_repository, max_queue_s=QUEUE_S) as gateway:
        gateway.fit("kept", OK)
        yield gateway


def infer_request(gateway: Gateway, folder: Path) -> Path:
    """Write the bytes of a POST /infer to a file."""
    form = {"role_id": "steel", "roi_id": "kept", "mm_per_px": "0.2"}
    request = httpx.Request("POST", "http://gateway/infer", data=form, files={"image": ("roi.png", UNSEEN)})
    body = request.read()
    head = f"POST /infer HTTP/1.1\r\nHost: localhost\r\nContent-Type: {request.headers['content-type']}\r\n"
    path = folder / "request"
    path.write_bytes(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return path


class Answers:
    """Answers and times in seconds, as the clients saw them."""

    def __init__(self, rows: list[list[float]], seconds: float) -> None:
        _, self._latency, self._status, self._retry_after = np.array(rows).T
        self._seconds = seconds

    @property
    def statuses(self) -> dict[int, int]:
        return {int(s): int((self._status == s).sum()) for s in np.unique(self._status)}

    def latency(self, percentile: float, status: int = 200) -> float:
        return float(np.percentile(self._latency[self._status == status], percentile))

    @property
    def retry_after(self) -> list[int]:
        return np.unique(self._retry_after[self._status == 429]).astype(int).tolist()

    @property
    def per_s(self) -> float:
        """Inspections answered."""
        return self.statuses.get(200, 0) / self._seconds

    @property
    def refused_share(self) -> float:
        return self.statuses.get(429, 0) / len(self._status)


def clients(gateway: Gateway, request: Path, seconds: float, *options: object) -> subprocess.Popen[bytes]:
    arguments = ["-m", "tests.promises.load_generator", gateway.port, request, "--seconds", seconds, *options]
    return subprocess.Popen([sys.executable, *map(str, arguments)], cwd=PROJECT, stdout=subprocess.PIPE)


def answers(process: subprocess.Popen[bytes], seconds: float) -> Answers:
    printed, _ = process.communicate(timeout=seconds + _GUARD_S)
    assert process.returncode == 0
    return Answers(json.loads(printed), seconds)


class Probe(threading.Thread):
    """Request /health continuously, and measure how late this machine wakes a sleeping thread."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._connection = HTTPConnection("127.0.0.1", port, timeout=60)
        self._over = threading.Event()
        self.health_s: list[float] = []
        self.late_s: list[float] = []

    def run(self) -> None:
        while not self._over.is_set():
            start = time.monotonic()
            self._connection.request("GET", "/health")
            response = self._connection.getresponse()
            response.read()
            assert response.status == 200
            asleep = time.monotonic()
            self.health_s.append(asleep - start)
            time.sleep(0.01)
            self.late_s.append(time.monotonic() - asleep - 0.01)
        self._connection.close()

    def __enter__(self) -> "Probe":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()


def rss_mb(gateway: Gateway) -> float:
    pages = int(Path(f"/proc/{gateway.process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def open_files(gateway: Gateway) -> int:
    return len(list(Path(f"/proc/{gateway.process.pid}/fd").iterdir()))


def test_at_five_times_its_capacity_admitted_work_is_answered_in_time_and_health_at_once(
    loaded, tmp_path, full, record_property
):
    request = infer_request(loaded, tmp_path)
    alone_s, seconds = (2, 120) if full else (1, 4)

    def alone() -> Answers:
        return answers(clients(loaded, request, alone_s, "--clients", 1), alone_s)

    alone()  # warm
    before = alone()
    capacity = answers(clients(loaded, request, alone_s + 1, "--clients", 4), alone_s + 1).per_s
    memory = rss_mb(loaded)
    with Probe(loaded.port) as probe:
        time.sleep(0.5)
        over = answers(clients(loaded, request, seconds, "--rate", TIMES_OVER * capacity), seconds)
    grown = rss_mb(loaded) - memory
    for _ in range(_TRIES):
        after = alone()
        if after.latency(50) <= 2 * before.latency(50):
            break

    health_ms, late_ms = (1e3 * np.percentile(each, (50, 99, 100)) for each in (probe.health_s, probe.late_s))
    record_property(
        "load",
        f"capacity {capacity:.0f}/s; {TIMES_OVER}× for {seconds} s: {over.per_s:.0f}/s answered, "
        f"{over.refused_share:.0%} refused with Retry-After {over.retry_after}; "
        f"admitted p50 {over.latency(50):.2f} s, p99 {over.latency(99):.2f} s at a queue of {QUEUE_S:g} s; "
        f"refused p50 {1e3 * over.latency(50, 429):.1f} ms, p99 {1e3 * over.latency(99, 429):.1f} ms; "
        f"health p50 {health_ms[0]:.1f}, p99 {health_ms[1]:.1f}, max {health_ms[2]:.1f} ms "
        f"(a sleeper woke late by p99 {late_ms[1]:.1f}, max {late_ms[2]:.1f} ms); memory {grown:+.0f} MB; "
        f"alone before p50 {1e3 * before.latency(50):.0f} ms, after {1e3 * after.latency(50):.0f} ms",
    )
    assert set(over.statuses) == {200, 429}
    assert over.statuses[429] > over.statuses[200], "five times as much was asked for as can be done"
    assert min(over.retry_after) >= 1
    # Without admission they would wait four seconds for every second of load. The wait is foretold by the pace so far:
    # where somebody else takes the machine meanwhile, it is longer by as much as the pace is lower.
    queue_s = QUEUE_S * max(1, capacity / over.per_s)
    assert over.latency(50) <= 2 * (queue_s + before.latency(50))
    assert over.latency(99) <= 8 * (queue_s + before.latency(99))
    assert over.latency(50, 429) <= over.latency(50) / 5, "a refusal is at once"
    assert over.per_s >= capacity / 10, "refusing is not all that it does"
    # In the queue it would wait as long as they do. Their last ones tell how busy this machine was besides.
    assert health_ms[1] <= max(100 + 10 * late_ms[1], 1e3 * over.latency(99) / 8)
    assert grown < 150
    assert after.latency(50) <= 2 * before.latency(50), f"in none of {_TRIES} tries was it back to normal"
    assert set(after.statuses) == {200}


def test_a_request_beyond_the_limit_is_refused_before_its_body_is_sent(launch, small_model_repository):
    with launch("early", model_repository=small_model_repository, max_queued_inspections=1) as gateway:
        with announced(gateway, 5_000_000) as holder, announced(gateway, 5_000_000) as refused:
            reply, error = answered(refused)
            assert (reply.status, error["code"]) == (429, "overloaded")
            assert int(reply.headers["retry-after"]) >= 1
            holder.close()
        until_admitted(gateway)


def test_the_size_of_all_arriving_bodies_together_is_limited(launch, small_model_repository):
    with (
        launch("bytes", model_repository=small_model_repository, max_queued_bytes=8_000_000) as gateway,
        announced(gateway, 5_000_000),
        announced(gateway, 5_000_000) as refused,
    ):
        reply, error = answered(refused)
        assert (reply.status, error["code"]) == (429, "overloaded")
        assert "5000000 bytes" in error["message"]


def test_a_slow_body_is_refused_and_its_place_is_free(launch, small_model_repository):
    with launch("slow", model_repository=small_model_repository, max_queued_inspections=1) as gateway:
        with announced(gateway, 5_000_000) as slow:
            slow.sendall(b"--x\r\n")
            reply, error = answered(slow)
            assert (reply.status, error["code"]) == (408, "slow_body")
        until_admitted(gateway)


def test_fits_and_inspections_have_places_of_their_own(launch, small_model_repository):
    limits = {"max_queued_inspections": 1, "max_queued_fits": 1}
    with launch("apart", model_repository=small_model_repository, **limits) as gateway:
        gateway.fit("kept", OK)
        head = "POST /fit_ok HTTP/1.1\r\n"
        with announced(gateway, 5_000_000, head):
            assert gateway.post("/fit_ok", "other", OK, "images").status_code == 429
            assert gateway.infer("kept", UNSEEN)["score"] > 0


def announced(gateway: Gateway, n_bytes: int, head: str = "POST /infer HTTP/1.1\r\n") -> socket.socket:
    """Open a connection with a request that declares the length of its body and does not send it."""
    connection = socket.create_connection(("127.0.0.1", gateway.port), timeout=60)
    content_type = "multipart/form-data; boundary=x"
    connection.sendall(
        f"{head}Host: localhost\r\nContent-Type: {content_type}\r\nContent-Length: {n_bytes}\r\n\r\n".encode()
    )
    assert httpx.get(f"http://127.0.0.1:{gateway.port}/health").status_code == 200  # it has been seen by now
    return connection


def answered(connection: socket.socket) -> tuple[HTTPResponse, dict[str, str]]:
    with HTTPResponse(connection) as response:
        response.begin()
        return response, json.loads(response.read())["error"]


def until_admitted(gateway: Gateway) -> None:
    """Wait until the gateway has noticed the disconnect and the only place is free."""
    ends = time.monotonic() + _GUARD_S
    while gateway.post("/infer", "never fitted", [UNSEEN], "image").status_code == 429:
        assert time.monotonic() < ends
        time.sleep(0.05)


def test_memory_and_open_files_do_not_grow(launch, small_model_repository, full, record_property):
    with launch("soaked", model_repository=small_model_repository) as gateway:
        gateway.fit("kept", OK)
        soaked(gateway, full, record_property)


def soaked(gateway: Gateway, full: bool, record_property) -> None:
    n_inferences, n_fits, n_first = (10_000, 200, 500) if full else (150, 4, 50)
    rois = ["kept", "b", "c", "d"]
    for roi in rois[1:]:
        gateway.fit(roi, OK[:1])
    every = n_inferences // n_fits
    url = f"http://127.0.0.1:{gateway.port}"
    images = [png(steel(1000 + seed)) for seed in range(8)]

    with ThreadPoolExecutor(3) as pool, httpx.Client(base_url=url, timeout=120, trust_env=False) as client:
        inspector = Gateway(gateway.process, gateway.port, client, gateway.models_dir, gateway.log)

        def infer(i: int) -> None:
            inspector.infer(rois[i % len(rois)], images[i % len(images)])

        def soak(begin: int, end: int) -> None:
            for start in range(begin, end, every):
                stop = min(start + every, end)
                fit = pool.submit(gateway.fit, rois[start // every % len(rois)], [png(steel(5000 + start))])
                list(pool.map(infer, range(start, stop)))
                fit.result()

        soak(0, n_first)
        first = rss_mb(gateway), open_files(gateway)
        soak(n_first, n_inferences)
        last = rss_mb(gateway), open_files(gateway)
    record_property(
        "soak",
        f"{n_inferences} inferences, {n_fits} fits: memory {first[0]:.0f} MB after the first {n_first}, "
        f"{last[0]:.0f} MB at the end ({last[0] - first[0]:+.0f}); open files {first[1]}, then {last[1]}",
    )
    assert last[0] <= first[0] + 150
    assert last[1] <= first[1] + 8
