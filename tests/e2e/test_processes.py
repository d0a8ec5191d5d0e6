"""The gateway as a process: start, restart, several gateways, limits, load, and no engine."""

import base64
import contextlib
import hashlib
import re
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.dotnet_multipart import Reply, exchange
from tests.e2e.gateway_process import PROJECT, environment, wait_until
from tests.e2e.held_request import held, in_flight, metric
from tests.e2e.synthetic_images import jpeg, png, steel

OK = [png(steel(seed)) for seed in range(4)]
UNSEEN = png(steel(70))
BODY_LIMIT = 2 * 2**20


@dataclass(frozen=True, slots=True)
class Before:
    """Answers of a gateway that was killed afterwards, during a fit."""

    models_dir: Path
    fit: dict[str, Any]
    inferred: dict[str, Any]
    detail: dict[str, Any]


@pytest.fixture(scope="module")
def start(launch, small_model_repository):
    """Start a gateway over the small network."""

    def start(name, **settings):
        return launch(name, **{"model_repository": small_model_repository, **settings})

    return start


@pytest.fixture(scope="module")
def before(start, tmp_path_factory) -> Before:
    models_dir = tmp_path_factory.mktemp("shared") / "models"
    with start("first", models_dir=models_dir) as first, ThreadPoolExecutor(1) as pool:
        fit = first.fit("kept", OK)
        first.calibrate("kept", ok_scores=[0.3, 0.32], ng_scores=[0.9], area_mm2_thr=2)
        inferred = first.infer("kept", UNSEEN)
        detail = first.client.get("/rois/steel/kept").json()
        calls = "gateway_engine_batch_images_count"
        n_calls = metric(first, calls)
        images = [png(steel(seed, (112, 112))) for seed in range(80, 280)]
        fields = {"coreset_rate": 1.0}  # of all tokens: many seconds
        killed = pool.submit(first.post, "/fit_ok", "kept", images, "images", fields=fields)
        wait_until(lambda: metric(first, calls) > n_calls)
        first.infer("kept", UNSEEN)  # answered between the batches of the fit
        assert not killed.done()
        first.process.kill()
        with contextlib.suppress(Exception):
            killed.result()
    return Before(models_dir, fit, inferred, detail)


@pytest.fixture(scope="module")
def again(start, before):
    """The same gateway, started again."""
    with start("again", models_dir=before.models_dir) as started:
        yield started


@pytest.fixture(scope="module")
def heatmaps(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("heatmaps")


@pytest.fixture(scope="module")
def beside(start, before, heatmaps):
    """A gateway beside it on the same models folder, with narrow limits."""
    limits = {"max_queued_inspections": 1, "max_queued_fits": 1, "max_fit_images": 3, "max_roi_images": 5}
    with start(
        "beside",
        models_dir=before.models_dir,
        heatmap_dir=heatmaps,
        max_body_bytes=BODY_LIMIT,
        max_image_pixels=150_000,
        **limits,
    ) as started:
        yield started


@pytest.fixture(scope="module")
def engineless(launch, before, tmp_path_factory):
    """A gateway without a model."""
    with launch(
        "engineless", models_dir=before.models_dir, model_repository=tmp_path_factory.mktemp("none")
    ) as started:
        yield started


def error_of(reply) -> dict[str, str]:
    answer = reply.json()
    assert list(answer) == ["error"]
    assert list(answer["error"]) == ["code", "message", "hint"]
    return answer["error"]


# --- restarts and neighbours -----------------------------------------------------------------------------------------


def test_a_restart_keeps_everything_even_after_a_kill_during_a_fit(before, again):
    assert again.client.get("/rois/steel/kept").json() == before.detail
    assert again.infer("kept", UNSEEN) == before.inferred


def test_the_same_images_order_and_seed_give_the_same_bank_after_a_restart(before, again):
    repeated = again.fit("repeated", OK)
    assert repeated["checksum"] == before.fit["checksum"]
    assert repeated["ok_scores"] == before.fit["ok_scores"]
    assert again.infer("repeated", UNSEEN)["score"] == before.inferred["score"]


def test_the_checksum_is_that_of_the_stored_memory_bank(before):
    memory = before.models_dir / "steel" / "kept" / "versions" / "1" / "memory.npz"
    assert hashlib.sha256(memory.read_bytes()).hexdigest() == before.fit["checksum"]


def test_another_seed_gives_another_bank(before, again):
    assert again.fit("seeded", OK, seed=1)["checksum"] != before.fit["checksum"]


def test_one_request_or_two_give_the_same_bank(before, again):
    again.fit("in two", OK[:2])
    assert again.fit("in two", OK[2:])["checksum"] == before.fit["checksum"]


def test_a_neighbour_sees_a_fit_a_calibration_and_a_deletion_at_its_next_request(again, beside):
    again.fit("shared", OK[:2])
    first = beside.infer("shared", UNSEEN)
    assert (first["version"], first["threshold"]) == (1, None)
    again.calibrate("shared", ok_scores=[0.25])
    assert beside.infer("shared", UNSEEN)["threshold"] == pytest.approx(0.25)
    again.fit("shared", OK[2:])
    second = beside.infer("shared", UNSEEN)
    assert second == again.infer("shared", UNSEEN)
    assert second["version"] == 2
    assert again.client.delete("/rois/steel/shared").status_code == 200
    assert beside.post("/infer", "shared", [UNSEEN], "image").status_code == 404


# --- load ------------------------------------------------------------------------------------------------------------


def test_health_and_inspections_are_answered_while_a_fit_runs(gateway, small_roi):
    """A stage of the fit on the event loop would keep one of them waiting for as long as the stage takes."""
    images = [png(steel(seed)) for seed in range(200, 260)]
    waited = []
    with ThreadPoolExecutor(1) as pool:
        # A rate of 40 % makes the coreset, which is one uninterrupted computation, a long stage.
        fit = pool.submit(gateway.post, "/fit_ok", "busy", images, "images", fields={"coreset_rate": 0.4})
        inspected = gateway.infer(small_roi, UNSEEN)
        inspected_in_time = not fit.done()
        while not fit.done():
            asked = time.monotonic()
            assert gateway.client.get("/health").json()["status"] == "ok"
            waited.append(time.monotonic() - asked)
    answer = fit.result()
    assert answer.json()["n_ok_total"] == 60, answer.text
    stages = {
        stage: float(ms) / 1e3 for stage, ms in re.findall(r"(\w+);dur=([\d.]+)", answer.headers["server-timing"])
    }
    assert inspected["score"] > 0
    assert inspected_in_time
    assert max(waited) < 0.9 * stages["coreset"], (max(waited), stages)


@pytest.mark.parametrize(("path", "field"), [("/infer", "image"), ("/fit_ok", "images")])
def test_more_requests_than_are_queued_are_told_when_to_come_again(beside, path, field):
    roi, work = ("kept", "inspect") if path == "/infer" else ("queued", "fit")
    form = {"role_id": "steel", "roi_id": roi, "mm_per_px": "0.2"}
    with held(beside, path, work, form, [(field, UNSEEN)]) as first:
        refused = beside.post(path, roi, [UNSEEN], field)
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        assert error_of(refused)["code"] == "overloaded"
        assert first.answer().status == 200
    wait_until(lambda: in_flight(beside, work) == 0)
    assert beside.post(path, roi, [UNSEEN], field).status_code == 200, "a place is free again"


# --- limits ----------------------------------------------------------------------------------------------------------


def test_a_body_over_the_limit_is_refused_by_its_declared_length_alone(beside):
    for path in ("/infer", "/fit_ok", "/calibrate_ng"):
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        head += f"Content-Length: {BODY_LIMIT + 1}\r\nExpect: 100-continue\r\n\r\n"
        reply = exchange(beside.port, head.encode())
        assert reply.status == 413
        assert error_of(reply)["code"] == "too_large"
        assert str(BODY_LIMIT) in error_of(reply)["message"]
        assert reply.headers["x-request-id"]


@pytest.mark.parametrize("path", ["/infer", "/fit_ok", "/calibrate_ng"])
def test_a_body_without_a_length_is_refused_once_it_is_over_the_limit(beside, path):
    content_type = "application/json" if path == "/calibrate_ng" else "multipart/form-data; boundary=x"
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    start = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
    with socket.create_connection(("127.0.0.1", beside.port), timeout=600) as connection:
        connection.sendall(head.encode())
        for chunk in (start, bytes(BODY_LIMIT // 2), bytes(BODY_LIMIT // 2)):
            connection.sendall(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
        with HTTPResponse(connection) as response:  # the body has no end yet
            response.begin()
            reply = Reply(response.status, dict(response.getheaders()), response.read())
    assert reply.status == 413
    assert error_of(reply)["code"] == "too_large"


def test_too_many_images_are_refused_before_any_is_learned(beside):
    reply = beside.post("/fit_ok", "many", [jpeg(steel(seed)) for seed in range(4)], "images")
    assert reply.status_code == 413
    assert "4" in error_of(reply)["message"]
    assert not (beside.models_dir / "steel" / "many").exists()


def test_more_files_than_any_form_may_have_are_refused(gateway):
    reply = gateway.post("/fit_ok", "many", [b"x"] * 1001, "images")
    assert reply.status_code == 413
    assert error_of(reply)["code"] == "too_large"


def test_an_roi_collects_no_more_images_than_its_limit(beside):
    images = [png(steel(seed, (120, 100))) for seed in range(6)]
    beside.fit("growing", images[:3])
    beside.fit("growing", images[3:5])
    reply = beside.post("/fit_ok", "growing", images[5:], "images")
    assert (reply.status_code, error_of(reply)["code"]) == (413, "too_large")
    assert beside.client.get("/rois/steel/growing").json()["n_ok_total"] == 5


def test_an_image_over_the_limit_of_pixels_is_refused_by_name_and_size(beside):
    reply = beside.post("/infer", "kept", [("wide.png", png(steel(0, (500, 301))))], "image")
    assert reply.status_code == 413
    assert "wide.png: 500 × 301" in error_of(reply)["message"]


def test_a_heatmap_as_a_path_is_the_same_png_below_the_folder(beside, heatmaps):
    answer = beside.infer("kept", UNSEEN, heatmap="path")
    assert answer["heatmap_png_base64"] is None
    written = heatmaps / answer["heatmap_path"]
    assert not Path(answer["heatmap_path"]).is_absolute()
    assert written.resolve().is_relative_to(heatmaps.resolve())
    assert written.read_bytes() == base64.b64decode(beside.infer("kept", UNSEEN)["heatmap_png_base64"])


# --- no engine -------------------------------------------------------------------------------------------------------


def test_without_an_engine_the_gateway_is_alive_but_not_ready_with_a_reason(engineless):
    assert engineless.client.get("/health").json()["status"] == "ok"
    reply = engineless.client.get("/ready")
    assert reply.status_code == 503
    assert reply.json()["ready"] is False
    assert "export" in reply.json()["engine"]
    assert reply.json()["storage"] == "ready"


@pytest.mark.parametrize(("path", "field"), [("/infer", "image"), ("/fit_ok", "images")])
def test_without_an_engine_work_is_refused_with_a_retry_time(engineless, path, field):
    reply = engineless.post(path, "kept", [UNSEEN], field)
    assert reply.status_code == 503
    assert int(reply.headers["retry-after"]) >= 1
    assert error_of(reply)["code"] == "engine_unavailable"


def test_without_an_engine_stored_rois_are_still_listed(engineless, before):
    assert engineless.client.get("/rois/steel/kept").json() == before.detail


# --- commands --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("application", "folder"),
    [("gateway.app:app", PROJECT), ("app:app", PROJECT / "gateway")],
    ids=["root", "gateway/"],
)
def test_uvicorn_starts_the_gateway_from_either_folder(launch, tmp_path, application, folder):
    command = ("-m", "uvicorn", application, "--port", "{port}")
    with launch(f"uvicorn {application}", command=command, cwd=folder, model_repository=tmp_path) as started:
        assert started.client.get("/health").json()["model"] == "dinov2-vit-s/14"
        assert started.client.get("/nothing").json()["error"]["code"] == "not_found"


def test_the_settings_command_prints_the_effective_settings():
    run = _gateway("settings", k=3, models_dir="/somewhere/else")
    assert run.returncode == 0
    printed = dict(line.split("=", 1) for line in run.stdout.splitlines())
    assert printed["GATEWAY_K"] == "3"
    assert printed["GATEWAY_MODELS_DIR"] == "/somewhere/else"
    assert printed["GATEWAY_CORESET_RATE"] == "0.02"


@pytest.mark.parametrize("command", ["settings", "serve"])
def test_a_wrong_setting_is_named_and_stops_the_start(command):
    run = _gateway(command, coreset_rate="0,02")
    assert run.returncode != 0
    assert "GATEWAY_CORESET_RATE" in run.stderr
    assert "0,02" in run.stderr
    assert "Traceback" not in run.stderr


def _gateway(command, **settings):
    return subprocess.run(
        [sys.executable, "-m", "gateway", command],
        cwd=PROJECT,
        env=environment(settings),
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_the_serving_process_never_loads_torch(again):
    """Checked after a fit and an inspection."""
    libraries = Path(f"/proc/{again.process.pid}/maps")
    if not libraries.is_file():
        pytest.skip("no /proc here")
    assert "torch" not in libraries.read_text()


def test_importing_the_gateway_imports_nothing_of_the_export_and_no_statistics():
    """scipy.stats takes as long as all the rest: it is loaded when drift is first measured, and by no calibration."""
    modules = ("torch", "timm", "onnx", "export", "scipy.stats")
    calibrate = "from gateway.calibration.false_alarms import false_alarms; false_alarms(1, 20, err_high=True)"
    code = f"import sys, gateway.app; {calibrate}; print([m for m in {modules} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, env=environment({}), capture_output=True, text=True)
    assert run.stdout.strip() == "[]", run.stderr


def test_a_port_in_use_is_told_with_the_remedy_before_the_network_is_loaded(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        given = environment({"models_dir": tmp_path, "port": port, "model_repository": tmp_path})
        done = subprocess.run([sys.executable, "-m", "gateway"], cwd=PROJECT, env=given, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: GATEWAY_HOST='127.0.0.1', GATEWAY_PORT={port}: Address already in use. ")


@pytest.mark.parametrize("command", [("gateway", "settings"), ("artifacts", "list")])
def test_output_whose_reader_has_ended_ends_without_a_traceback(command, tmp_path):
    with subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=PROJECT,
        env=environment({"models_dir": tmp_path}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141
