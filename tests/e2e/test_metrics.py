"""Metrics and log lines of a gateway that served requests."""

import json
import os
import re
import signal
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.gateway_process import wait_until
from tests.e2e.synthetic_images import png, steel


@pytest.fixture(scope="module")
def served(launch, small_model_repository, tmp_path_factory):
    """A gateway with JSON logs for this module only."""
    state = tmp_path_factory.mktemp("state")
    with launch("metrics", model_repository=small_model_repository, state_dir=state, log_format="json") as gateway:
        gateway.fit("watched", [png(steel(i)) for i in range(4)])
        yield gateway


def samples(client: httpx.Client) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    response = client.get("/metrics")
    assert response.status_code == 200
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def value(client, name, **labels) -> float:
    """Of the default recipe, unless `labels` say otherwise."""
    if "roi_id" in labels:
        labels = {"recipe": "default", **labels}
    return samples(client).get((name, tuple(sorted(labels.items()))), 0.0)


def test_requests_are_counted_by_endpoint_and_outcome(served) -> None:
    def counts():
        found = samples(served.client)
        return [
            found.get(("gateway_requests_total", (("code", code), ("endpoint", endpoint))), 0)
            for code, endpoint in (("ok", "/infer"), ("unknown_roi", "/infer"), ("not_found", "unmatched"))
        ]

    before = counts()
    for _ in range(3):
        served.infer("watched", png(steel(9)))
    served.post("/infer", "never-fitted", [png(steel(9))], "image")
    served.client.get("/no/such/path")
    assert _difference(counts(), before) == [3, 1, 1]


def test_a_request_refused_before_routing_is_counted_for_its_endpoint(served) -> None:
    labels = {"endpoint": "/rois/{role_id}/{roi_id}", "code": "forbidden"}
    before = value(served.client, "gateway_requests_total", **labels)
    refused = served.client.get("/rois/steel/watched", headers={"Origin": "https://elsewhere.example"})
    assert refused.status_code == 403
    assert value(served.client, "gateway_requests_total", **labels) == before + 1


def _difference(after: list[float], before: list[float]) -> list[float]:
    return [a - b for a, b in zip(after, before, strict=True)]


def test_an_inspection_is_counted_with_its_stages_score_and_verdict(served) -> None:
    labels = {"recipe": "default", "role_id": "steel", "roi_id": "watched"}
    before = samples(served.client)
    score = served.infer("watched", png(steel(10)))["score"]
    after = samples(served.client)

    def added(name, **labels):
        key = (name, tuple(sorted(labels.items())))
        return after[key] - before.get(key, 0)

    for stage in ("decode", "engine", "knn", "postprocess"):
        assert added("gateway_stage_duration_seconds_count", stage=stage) == 1
    assert added("gateway_score_count", **labels) == 1
    assert added("gateway_score_sum", **labels) == pytest.approx(score, abs=1e-6)
    assert added("gateway_verdicts_total", verdict="uncalibrated", **labels) == 1
    assert after["gateway_bank_ok_images", tuple(sorted(labels.items()))] == 4
    assert after["gateway_engine_ready", ()] == 1


def test_every_metric_has_a_help_text_and_a_valid_name(served) -> None:
    for family in text_string_to_metric_families(served.client.get("/metrics").text):
        assert family.name.startswith("gateway_")
        assert len(family.documentation) > 10, family.name
        assert not re.search(r"_(ms|milliseconds|kb|mb|percent)$", family.name)


def test_rois_beyond_the_bound_share_one_label(launch, small_model_repository, tmp_path) -> None:
    with launch("bounded", model_repository=small_model_repository, metrics_max_rois=1, state_dir=tmp_path) as gateway:
        for roi in ("first", "second", "third"):
            gateway.fit(roi, [png(steel(0))])
        for roi in ("first", "second", "third"):
            gateway.infer(roi, png(steel(1)))
        assert (
            value(gateway.client, "gateway_verdicts_total", role_id="steel", roi_id="first", verdict="uncalibrated")
            == 1
        )
        assert (
            value(
                gateway.client,
                "gateway_verdicts_total",
                recipe="other",
                role_id="other",
                roi_id="other",
                verdict="uncalibrated",
            )
            == 2
        )
        assert value(gateway.client, "gateway_rois") == 3


def test_each_request_has_a_json_log_line_without_its_image(served) -> None:
    sent = png(steel(11))
    answer = served.post("/infer", "watched", [sent], "image")
    line = _line(served.log, answer.headers["X-Request-ID"])
    assert (line["status"], line["code"], line["path"]) == (200, "ok", "/infer")
    assert (line["role_id"], line["roi_id"], line["version"]) == ("steel", "watched", 1)
    assert line["score"] == pytest.approx(answer.json()["score"], abs=1e-4)
    assert line["verdict"] == answer.json()["verdict"]
    assert line["ms"] > 0
    assert len(json.dumps(line)) < 1000


def _line(log: Path, request_id: str) -> dict:
    """The line of a request, which is written when its answer is already on its way."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        for text in log.read_text().splitlines(keepends=True):
            line = json.loads(text) if text.endswith("\n") else {}
            if line.get("request_id") == request_id and line["event"] == "request":
                return line
        time.sleep(0.05)
    raise AssertionError(f"no line of {request_id}")


def test_drift_is_measured_from_the_window_and_survives_a_restart(launch, small_model_repository, tmp_path) -> None:
    settings = {
        "model_repository": small_model_repository,
        "models_dir": tmp_path / "models",
        "state_dir": tmp_path / "state",
    }
    with launch("drift", **settings) as gateway:
        gateway.fit("moving", [png(steel(i, (112, 112))) for i in range(20)])
        few = gateway.client.get("/rois/steel/moving/drift").json()
        assert (few["n"], few["ks"]) == (0, None)
        assert "drift needs 50" in few["reason"]
        for i in range(50):
            gateway.infer("moving", png((steel(100 + i, (112, 112)) * 0.7).astype("uint8")), heatmap="none")
        before = gateway.client.get("/rois/steel/moving/drift").json()
    with launch("drift", **settings) as gateway:
        after = gateway.client.get("/rois/steel/moving/drift").json()
        assert after == before
        assert after["n"] == 50
        assert "brightness" in after["alarms"]
        assert after["brightness"]["shift"] < -1
        assert sum(after["histogram"]["recent"]) == after["n_ok"]
        assert sum(after["histogram"]["ok_images"]) == 20
        alarm = {"role_id": "steel", "roi_id": "moving", "signal": "brightness"}
        assert value(gateway.client, "gateway_drift_alarm", **alarm) == 1


TWO_WORKERS = ("-m", "uvicorn", "gateway.app:app", "--port", "{port}", "--workers", "2")


class TestTwoWorkers:
    @pytest.fixture(scope="class")
    @staticmethod
    def workers(launch, small_model_repository, tmp_path_factory):
        settings = {"model_repository": small_model_repository, "state_dir": tmp_path_factory.mktemp("state")}
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
            with launch("workers", command=TWO_WORKERS, **settings) as gateway:
                gateway.fit("shared", [png(steel(0)), png(steel(1))])
                yield gateway

    def infer(self, gateway) -> None:
        """Inspect over a new connection, so that either worker may answer."""
        form = {"role_id": "steel", "roi_id": "shared", "mm_per_px": "0.2", "heatmap": "none"}
        url = f"http://127.0.0.1:{gateway.port}/infer"
        answer = httpx.post(url, data=form, files={"image": ("a.png", png(steel(3)))}, timeout=600, trust_env=False)
        assert answer.status_code == 200, answer.text

    def scrape(self, gateway) -> dict:
        with httpx.Client(base_url=f"http://127.0.0.1:{gateway.port}", timeout=600, trust_env=False) as client:
            return samples(client)

    def test_the_counters_of_two_workers_add_up_exactly_whichever_is_asked(self, workers) -> None:
        n = 0
        while n == 0 or (self.scrape(workers)["gateway_bank_cache_misses_total", ()] < 2 and n < 400):
            with ThreadPoolExecutor(6) as pool:
                list(pool.map(lambda _: self.infer(workers), range(20)))
            n += 20
        answered = "gateway_requests_total", (("code", "ok"), ("endpoint", "/infer"))
        wait_until(lambda: self.scrape(workers)[answered] >= n)  # the last are counted when they are answered
        for _ in range(10):
            found = self.scrape(workers)
            assert found[answered] == n
            assert (
                found["gateway_score_count", (("recipe", "default"), ("roi_id", "shared"), ("role_id", "steel"))] == n
            )
            assert found["gateway_stage_duration_seconds_count", (("stage", "engine"),)] == n
            assert (
                found["gateway_bank_version", (("recipe", "default"), ("roi_id", "shared"), ("role_id", "steel"))] == 1
            )
            both = found["gateway_bank_cache_misses_total", ()] == 2
            assert both, "one worker did all the work: nothing was added up"

    def test_the_counters_of_a_killed_worker_are_kept(self, workers) -> None:
        answered = "gateway_requests_total", (("code", "ok"), ("endpoint", "/infer"))
        before = self.scrape(workers).get(answered, 0)
        for _ in range(6):
            self.infer(workers)
        children = Path(f"/proc/{workers.process.pid}/task/{workers.process.pid}/children").read_text().split()
        names = {pid: Path(f"/proc/{pid}/cmdline").read_text() for pid in children}
        victim = next(pid for pid, name in names.items() if "spawn_main" in name)
        os.kill(int(victim), signal.SIGKILL)
        deadline = time.monotonic() + 3000
        while time.monotonic() < deadline:
            try:
                self.infer(workers)
                break
            except (httpx.TransportError, AssertionError):
                time.sleep(0.2)
        found = self.scrape(workers)
        assert found[answered] == before + 7
        (folder,) = Path(tempfile.gettempdir()).glob(f"patchcore-gateway-metrics-{workers.process.pid}-*")
        assert list(folder.glob("counter_*.db"))
        assert not list(folder.glob(f"gauge_live*_{victim}.db")), "what it had in flight or loaded is still counted"
