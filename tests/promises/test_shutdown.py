"""Shutdown: admitted requests are answered within a deadline, and a second signal ends the process at once."""

import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPResponse

import httpx
import pytest

from tests.e2e.synthetic_images import png, steel

OK = [png(steel(seed)) for seed in range(3)]
UNSEEN = png(steel(70))
BATCH = 12
_GUARD_S = 60


@pytest.fixture
def served(launch, tmp_path):
    """Start a gateway with the full network, which is slow enough to be interrupted, and a fitted ROI."""

    def start(name, **settings):
        return launch(name, models_dir=tmp_path / "models", **settings)

    return start


def batch_of(gateway, n=BATCH):
    """POST /infer_batch of n images: some seconds of work."""
    items = ",".join(['{"role_id": "steel", "roi_id": "kept", "mm_per_px": 0.2, "heatmap": "none"}'] * n)
    files = [("images", (f"{i}.png", UNSEEN)) for i in range(n)]
    return httpx.post(
        f"http://127.0.0.1:{gateway.port}/infer_batch", data={"items": f"[{items}]"}, files=files, timeout=120
    )


def ask(gateway, path):
    """Inspect over a new connection."""
    return httpx.get(f"http://127.0.0.1:{gateway.port}{path}", timeout=30)


def until(condition):
    ends = time.monotonic() + _GUARD_S
    while not condition():
        assert time.monotonic() < ends, "not within a minute"
        time.sleep(0.02)


def at_work(gateway, pool, work, *arguments):
    """Start `work` in a thread and wait until the gateway runs it and refuses further work."""
    started = pool.submit(work, *arguments)
    time.sleep(0.5)
    assert not started.done()
    return started


def test_what_was_admitted_is_answered_before_the_process_ends(served):
    with served("ends") as gateway, ThreadPoolExecutor(2) as pool:
        gateway.fit("kept", OK)
        with socket.create_connection(("127.0.0.1", gateway.port)) as idle:  # a line between two parts
            idle.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            with HTTPResponse(idle) as response:
                response.begin()
                assert response.status == 200
                response.read()
            inspected = at_work(gateway, pool, batch_of, gateway)
            gateway.process.send_signal(signal.SIGTERM)
            until(lambda: ask(gateway, "/ready").status_code == 503)
            ready = ask(gateway, "/ready").json()
            assert (ready["ready"], ready["process"]) == (False, "shutting down")
            assert ask(gateway, "/health").status_code == 200
            refused = gateway.post("/infer", "kept", [UNSEEN], "image")
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "shutting_down")
            assert int(refused.headers["retry-after"]) >= 1
            assert refused.headers["connection"] == "close"
            assert not inspected.done(), "all this while it was at work"
            results = inspected.result().json()["results"]
            assert len(results) == BATCH
            assert all("score" in result for result in results)
            assert gateway.process.wait(_GUARD_S) == 0
    assert "cut" not in gateway.log.read_text()


def test_a_large_body_is_refused_with_an_answer_and_not_a_reset(served):
    with served("large") as gateway, ThreadPoolExecutor(2) as pool:
        gateway.fit("kept", OK)
        inspected = at_work(gateway, pool, batch_of, gateway)
        gateway.process.send_signal(signal.SIGTERM)
        until(lambda: ask(gateway, "/ready").status_code == 503)
        refused = gateway.post("/infer", "kept", [("large.png", bytes(20 * 2**20))], "image")
        assert refused.json()["error"]["code"] == "shutting_down"
        assert inspected.result().status_code == 200


def test_a_fit_that_ends_within_the_deadline_is_kept(served):
    with served("fit ends") as gateway, ThreadPoolExecutor(1) as pool:
        gateway.fit("kept", OK)
        fit = at_work(gateway, pool, gateway.fit, "kept", [png(steel(seed)) for seed in range(100, 110)])
        gateway.process.send_signal(signal.SIGTERM)
        assert fit.result()["n_ok_total"] == 13
        assert gateway.process.wait(_GUARD_S) == 0
    with served("fit ended") as again:
        assert again.infer("kept", UNSEEN)["version"] == 2


def test_what_exceeds_the_deadline_is_cut_and_told_and_leaves_the_old_state(served):
    with served("cut", shutdown_grace_s=0.3) as gateway, ThreadPoolExecutor(1) as pool:
        before = gateway.fit("kept", OK)
        images = [png(steel(seed)) for seed in range(100, 130)]
        fit = at_work(gateway, pool, gateway.post, "/fit_ok", "kept", images, "images")
        gateway.process.send_signal(signal.SIGTERM)
        assert fit.result().json()["error"]["code"] == "shutting_down"
        assert gateway.process.wait(_GUARD_S) == 0
    assert "cancelled at the deadline of the shutdown: 1 to fit" in gateway.log.read_text()
    with served("after the cut") as again:
        kept = again.client.get("/rois/steel/kept").json()
        assert (kept["version"], kept["n_ok_total"], kept["checksum"]) == (1, 3, before["checksum"])


def test_a_second_signal_ends_it_at_once(served):
    with served("twice") as gateway, ThreadPoolExecutor(1) as pool:
        gateway.fit("kept", OK)
        images = [png(steel(seed)) for seed in range(100, 130)]
        fit = at_work(gateway, pool, gateway.post, "/fit_ok", "kept", images, "images")
        gateway.process.send_signal(signal.SIGTERM)
        until(lambda: ask(gateway, "/ready").status_code == 503)
        gateway.process.send_signal(signal.SIGTERM)
        assert gateway.process.wait(_GUARD_S) == 128 + signal.SIGTERM
        with pytest.raises(httpx.TransportError):
            fit.result()


def test_while_it_drains_it_is_not_ready_and_still_serves(served):
    with served("drains", drain_s=2) as gateway:
        gateway.fit("kept", OK)
        gateway.process.send_signal(signal.SIGTERM)
        until(lambda: ask(gateway, "/ready").status_code == 503)
        gateway.infer("kept", UNSEEN)
        assert gateway.process.wait(_GUARD_S) == 0


def test_uvicorn_alone_ends_too(served):
    with served("uvicorn ends", command=("-m", "uvicorn", "gateway.app:app", "--port", "{port}")) as gateway:
        gateway.fit("kept", OK)
        with ThreadPoolExecutor(1) as pool:
            inspected = at_work(gateway, pool, batch_of, gateway)
            gateway.process.send_signal(signal.SIGTERM)
            assert inspected.result().status_code == 200
        gateway.process.wait(_GUARD_S)
