"""A real Prometheus scrapes a gateway with Triton, under load and during faults."""

import bisect
import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import httpx
import numpy as np
import pytest

from gateway.monitoring.drift.measure import MIN_SAMPLES
from gateway.monitoring.metrics import STAGE_SECONDS
from tests.e2e.synthetic_images import png, steel, with_blob
from tests.monitoring.expressions import DASHBOARDS, dashboard, metric_names, targets, variable_query
from tests.monitoring.prometheus_process import wait_until
from tests.monitoring.site import PLACES, Site
from tests.monitoring.test_names import GPU_ONLY
from tests.triton.server import MODEL

CLIENTS = PLACES + 3
"""More than are admitted at once, so that some are refused."""
GAP_S = 8
"""Between the first requests and the load: a window may begin there, with scrapes, and hold the load alone."""


@dataclass(frozen=True)
class Load:
    """What the clients saw."""

    started: float
    """Seconds since 1970."""
    ended: float
    """Seconds since 1970, of the last answer, or of the scrape that holds it."""
    ok: int
    refused: int
    stages: dict[str, list[float]]
    """Seconds by stage, of each inspection, from its Server-Timing."""


def loaded(site: Site, inspections: int) -> Load:
    """Ask from as many clients at once as there are, until that many were answered; good parts and bad ones."""
    images = [png(steel(seed)) for seed in range(40, 47)] + [png(with_blob(steel(47), (200, 150), 22)[0])]

    def ask(number: int) -> list[httpx.Response]:
        answers = []
        while not answers or answers[-1].status_code == 429:
            if answers:
                time.sleep(0.1)
            answers.append(site.gateway.post("/infer", "watched", [images[number % len(images)]], "image"))
        return answers

    started = time.time()
    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = [answer for each in pool.map(ask, range(inspections)) for answer in each]
    ok = [answer for answer in answers if answer.status_code == 200]
    assert len(ok) == inspections, {answer.status_code for answer in answers}
    stages: dict[str, list[float]] = {}
    for answer in ok:
        for stage, ms in re.findall(r"(\w+);dur=([\d.]+)", answer.headers["server-timing"]):
            stages.setdefault(stage, []).append(float(ms) / 1e3)
    return Load(started, time.time(), len(ok), len(answers) - len(ok), stages)


@pytest.fixture(scope="module")
def load(site: Site, pytestconfig: pytest.Config) -> Load:
    """Load that Prometheus has seen to its end. The counters exist before: a rate does not see how a series begins."""

    def scraped() -> float:
        return sum(each.value for each in site.prometheus.query('gateway_requests_total{endpoint="/infer"}'))

    before = loaded(site, 2 * CLIENTS)
    wait_until(lambda: scraped() == before.ok + before.refused, "the first requests are scraped")
    time.sleep(GAP_S)
    load = loaded(site, 3000 if pytestconfig.getoption("--all") else 200)
    wait_until(lambda: scraped() == before.ok + before.refused + load.ok + load.refused, "the last are scraped")
    return replace(load, ended=time.time())


def test_throughput_is_that_of_the_clients(site, load):
    window = round(time.time() - load.started) + 1
    seen = site.prometheus.value(f'sum(increase(gateway_requests_total{{endpoint="/infer"}}[{window}s]))')
    # Prometheus extrapolates to the ends of the window, by up to a scrape each: much, where the load took seconds.
    assert seen == pytest.approx(load.ok + load.refused, rel=0.3)


def test_the_share_refused_is_that_of_the_clients(site, load):
    assert load.ok > 0
    assert load.refused > 0
    (seen,) = site.prometheus.query('instance:gateway_shed:ratio_rate5m{work="inspect"}')
    assert seen.value == pytest.approx(load.refused / (load.ok + load.refused), abs=0.05)


@pytest.mark.parametrize("stage", ["decode", "engine", "knn", "postprocess"])
def test_p95_of_a_stage_is_that_of_the_answers_to_a_bucket(site, load, stage):
    # The difference of the counters, not `rate`: that extrapolates a bucket with a small count only to where it was
    # zero, and the others further, so that the quantile moves.
    counted = f'sum by (le) (gateway_stage_duration_seconds_bucket{{stage="{stage}"}} @ %.3f)'
    during = f"({counted % load.ended} - {counted % (load.started - GAP_S / 2)})"
    assert site.prometheus.value(f"max({during})") == load.ok
    seen = site.prometheus.value(f"histogram_quantile(0.95, {during})")
    bounds = [0.0, *STAGE_SECONDS._upper_bounds]
    bucket = max(1, bisect.bisect_left(bounds, seen))
    below, within = (float(np.mean(np.array(load.stages[stage]) <= bounds[i])) for i in (bucket - 1, bucket))
    # Answers give hundredths of a millisecond: one or two may be on the other side of a bound.
    assert below - 0.02 <= 0.95 <= within + 0.02, seen


def test_the_mean_batch_is_what_triton_counts(site, load):
    counted = site.triton.settled_metrics()
    mean = counted["nv_inference_count"] / counted["nv_inference_exec_count"]
    (seen,) = site.prometheus.query("instance:nv_inference_batch_size:mean5m")
    assert 1 < seen.value <= PLACES
    assert seen.value == pytest.approx(mean, rel=0.25)
    assert seen.labels["model"] == MODEL


def test_an_unchanged_stream_is_no_alert_and_brighter_light_is_until_it_is_set_right(site, load):
    def fires() -> bool:
        return any(each["roi_id"] == "lamp" for each in site.prometheus.firing("Drift"))

    def alarms() -> dict[str, float]:
        found = site.prometheus.query('gateway_drift_alarm{role_id="steel", roi_id="lamp"}')
        return {each.labels["signal"]: each.value for each in found}

    site.look(range(100, 100 + MIN_SAMPLES))
    wait_until(alarms, "drift is scraped")
    assert alarms() == {"score": 0, "rejects": 0, "brightness": 0, "sharpness": 0}
    site.look(range(200, 200 + MIN_SAMPLES), brightness=1.15)
    wait_until(fires, "Drift fires")
    assert alarms()["brightness"] == 1
    site.look(range(300, 300 + MIN_SAMPLES))
    wait_until(lambda: not fires(), "Drift ends")


def test_a_killed_triton_is_an_alert_until_it_is_back(site, load):
    assert not site.prometheus.active("EngineDown")
    site.triton.kill()
    wait_until(lambda: site.prometheus.firing("EngineDown"), "EngineDown fires")
    wait_until(lambda: site.prometheus.firing("TritonDown"), "TritonDown fires")
    image = png(steel(1))
    assert site.gateway.post("/infer", "watched", [image], "image").status_code == 503
    site.triton.start()
    wait_until(lambda: not site.prometheus.active("EngineDown"), "EngineDown ends")
    wait_until(lambda: not site.prometheus.active("TritonDown"), "TritonDown ends")
    assert site.gateway.infer("watched", image)["score"] > 0


def test_a_damaged_file_is_an_alert_and_one_that_stays_until_it_is_mended(site, load):
    image = png(steel(1))
    site.gateway.fit("watched", [png(steel(30))])
    versions = site.gateway.models_dir / "steel" / "watched" / "versions"
    assert site.gateway.infer("lamp", image)["degraded"] is False  # the cache has one place: `watched` is read again
    assert not site.prometheus.active("ArtifactFault")
    (damaged,) = (versions / "2").glob("memory*")
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    answer = site.gateway.infer("watched", image)
    assert (answer["version"], answer["degraded"]) == (1, True)
    wait_until(lambda: site.prometheus.firing("ArtifactFault"), "ArtifactFault fires")
    (fired,) = site.prometheus.firing("ArtifactFault")
    assert (fired["kind"], fired["severity"]) == ("version", "critical")
    wait_until(lambda: site.prometheus.firing("Degraded"), "Degraded fires")
    wait_until(lambda: not site.prometheus.active("ArtifactFault"), "ArtifactFault ends")
    assert site.prometheus.firing("Degraded")
    site.gateway.fit("watched", [png(steel(31))])
    assert site.gateway.infer("watched", image)["degraded"] is False
    wait_until(lambda: not site.prometheus.active("Degraded"), "Degraded ends")


def test_every_panel_of_the_dashboard_shows_something(site, load):
    """Last, when everything has happened that can be shown."""
    (path,) = DASHBOARDS
    board = dashboard(path)
    for title, target in targets(board):
        if metric_names(target["expr"]) & GPU_ONLY:
            continue
        samples = site.prometheus.query(target["expr"])
        assert samples, f"panel {title} is empty: {target['expr']}"
        legend = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
        for sample in samples:
            assert legend <= set(sample.labels), f"panel {title}: {sample.labels}"
    role, roi = board["templating"]["list"]
    assert chosen_from(site, role) == {"steel"}
    assert chosen_from(site, roi) == {"watched", "lamp"}


def chosen_from(site: Site, variable: dict) -> set[str]:
    selector, label = variable_query(variable)
    return {sample.labels[label] for sample in site.prometheus.query(selector)}
