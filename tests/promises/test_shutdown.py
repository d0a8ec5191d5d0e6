"""Shutdown: admitted requests are answered within a deadline, and a second signal ends the process at once."""

import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPResponse

import httpx
import pytest

from tests.e2e.gateway_process import wait_until
from tests.e2e.held_request import held, metric
from tests.e2e.synthetic_images import png, steel

SIZE = (112, 112)
OK = [png(steel(seed, SIZE)) for seed in range(3)]
UNSEEN = png(steel(70, SIZE))
BATCH = 4
_GUARD_S = 300


@pytest.fixture
def served(launch, small_model_repository, tmp_path):
    def start(name, **settings):
        return launch(name, models_dir=tmp_path / "models", model_repository=small_model_repository, **settings)

    return start


def held_batch(gateway):
    """POST /infer_batch, admitted and waited for."""
    item = '{"role_id": "steel", "roi_id": "kept", "mm_per_px": 0.2, "heatmap": "none"}'
    files = [("images", (f"{i}.png", UNSEEN)) for i in range(BATCH)]
    return held(gateway, "/infer_batch", "inspect", {"items": f"[{','.join([item] * BATCH)}]"}, files)


def held_fit(gateway, seeds):
    """POST /fit_ok of an image a seed, admitted and waited for."""
    form = {"role_id": "steel", "roi_id": "kept", "mm_per_px": "0.2"}
    return held(gateway, "/fit_ok", "fit", form, [("images", png(steel(seed, SIZE))) for seed in seeds])


def long_fit(gateway, pool):
    """A fit that computes for many seconds: a coreset of all tokens. Waits until the engine is at work on it."""
    images = [png(steel(seed, SIZE)) for seed in range(100, 300)]
    calls = "gateway_engine_batch_images_count"
    before = metric(gateway, calls)
    fit = pool.submit(gateway.post, "/fit_ok", "kept", images, "images", fields={"coreset_rate": 1.0})
    wait_until(lambda: metric(gateway, calls) > before)
    return fit


def ask(gateway, path):
    """On a connection of its own."""
    return httpx.get(f"http://127.0.0.1:{gateway.port}{path}", timeout=_GUARD_S)


def test_admitted_work_is_answered_before_the_process_ends(served):
    with served("ends") as gateway:
        gateway.fit("kept", OK)
        with socket.create_connection(("127.0.0.1", gateway.port)) as idle:  # a line between two parts
            idle.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            with HTTPResponse(idle) as response:
                response.begin()
                assert response.status == 200
                response.read()
            with held_batch(gateway) as inspection:
                gateway.process.send_signal(signal.SIGTERM)
                wait_until(lambda: ask(gateway, "/ready").status_code == 503)
                ready = ask(gateway, "/ready").json()
                assert (ready["ready"], ready["process"]) == (False, "shutting down")
                assert ask(gateway, "/health").status_code == 200
                refused = gateway.post("/infer", "kept", [UNSEEN], "image")
                assert (refused.status_code, refused.json()["error"]["code"]) == (503, "shutting_down")
                assert int(refused.headers["retry-after"]) >= 1
                assert refused.headers["connection"] == "close"
                results = inspection.answer().json()["results"]
            assert len(results) == BATCH
            assert all("score" in result for result in results)
            assert gateway.process.wait(_GUARD_S) == 0
    assert "cut" not in gateway.log.read_text()


def test_a_large_body_is_refused_with_an_answer_and_not_a_reset(served):
    with served("large") as gateway:
        gateway.fit("kept", OK)
        with held_batch(gateway) as inspection:
            gateway.process.send_signal(signal.SIGTERM)
            wait_until(lambda: ask(gateway, "/ready").status_code == 503)
            refused = gateway.post("/infer", "kept", [("large.png", bytes(20 * 2**20))], "image")
            assert refused.json()["error"]["code"] == "shutting_down"
            assert inspection.answer().status == 200


def test_a_fit_that_ends_within_the_deadline_is_kept(served):
    with served("fit ends", drain_s=0.1) as gateway:
        gateway.fit("kept", OK)
        with held_fit(gateway, range(100, 110)) as fit:
            gateway.process.send_signal(signal.SIGTERM)
            wait_until(lambda: ask(gateway, "/ready").status_code == 503)
            assert fit.answer().json()["n_ok_total"] == 13
        assert gateway.process.wait(_GUARD_S) == 0
    with served("fit ended") as again:
        assert again.infer("kept", UNSEEN)["version"] == 2


def test_work_beyond_the_deadline_is_cancelled_with_an_answer_and_leaves_the_old_state(served):
    with served("cut", shutdown_grace_s=0.3) as gateway, ThreadPoolExecutor(1) as pool:
        before = gateway.fit("kept", OK)
        fit = long_fit(gateway, pool)
        gateway.process.send_signal(signal.SIGTERM)
        assert fit.result().json()["error"]["code"] == "shutting_down"
        assert gateway.process.wait(_GUARD_S) == 0
    assert "cancelled at the deadline of the shutdown: 1 to fit" in gateway.log.read_text()
    with served("after the cut") as again:
        kept = again.client.get("/rois/steel/kept").json()
        assert (kept["version"], kept["n_ok_total"], kept["checksum"]) == (1, 3, before["checksum"])


def test_a_second_signal_ends_the_process_at_once(served):
    with served("twice") as gateway, ThreadPoolExecutor(1) as pool:
        gateway.fit("kept", OK)
        fit = long_fit(gateway, pool)
        gateway.process.send_signal(signal.SIGTERM)
        wait_until(lambda: ask(gateway, "/ready").status_code == 503)
        gateway.process.send_signal(signal.SIGTERM)
        assert gateway.process.wait(_GUARD_S) == 128 + signal.SIGTERM
        with pytest.raises(httpx.TransportError):
            fit.result()


def test_a_draining_gateway_is_not_ready_and_still_serves(served):
    with served("drains", drain_s=600) as gateway:
        gateway.fit("kept", OK)
        gateway.process.send_signal(signal.SIGTERM)
        wait_until(lambda: ask(gateway, "/ready").status_code == 503)
        gateway.infer("kept", UNSEEN)
        gateway.process.send_signal(signal.SIGTERM)
        assert gateway.process.wait(_GUARD_S) == 128 + signal.SIGTERM


def test_plain_uvicorn_answers_admitted_work_before_it_ends(served):
    with served("uvicorn ends", command=("-m", "uvicorn", "gateway.app:app", "--port", "{port}")) as gateway:
        gateway.fit("kept", OK)
        with held_batch(gateway) as inspection:
            gateway.process.send_signal(signal.SIGTERM)
            wait_until(lambda: "Shutting down" in gateway.log.read_text())
            assert inspection.answer().status == 200
        gateway.process.wait(_GUARD_S)
