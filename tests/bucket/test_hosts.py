"""Gateways on hosts of their own, over a bucket on a third: what clients see when a cable is pulled or gateways die."""

import collections
import random
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from artifacts.checking import damages
from gateway.settings import Settings
from gateway.store.artifact_store import ArtifactStore
from gateway.store.bucket.storage import BucketStorage
from gateway.store.roi_key import RoiKey
from gateway.store.rollback import roll_back
from tests.bucket.hosts import Host, hosts
from tests.bucket.server import Weed, environment, running_weed
from tests.e2e.gateway_process import answered, wait_until
from tests.e2e.synthetic_images import png, steel

SIZE = (64, 48)
OK = [png(steel(seed, SIZE)) for seed in range(4)]
UNSEEN = png(steel(900, SIZE))


@dataclass(frozen=True, slots=True)
class Site:
    """Two hosts for gateways, and a bucket on a third."""

    hosts: list[Host]
    weed: Weed


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with hosts(3) as (left, right, store):
        folder = tmp_path_factory.mktemp("weed")
        with running_weed(folder, store.store_address, store.command) as weed:
            yield Site([left, right], weed)


@pytest.fixture
def start(launch, site: Site, url: str, monkeypatch: pytest.MonkeyPatch):
    """Start a gateway on a host."""
    for name, value in environment(site.weed.port, site.weed.address).items():
        monkeypatch.setenv(name, value)

    def started(n: int, name: str, **settings):
        host = site.hosts[n]
        settings = {"models_dir": url, "host": host.address, "allow_anonymous": True, **settings}
        return launch(name, on_host=host.command, **settings)

    return started


def test_a_gateway_whose_cable_to_the_bucket_is_pulled_inspects_and_learns_again_when_it_is_back(
    start, site, url, tmp_path, record_property
):
    key = RoiKey("steel", "kept")
    with start(1, "cut off") as gateway:
        gateway.fit("kept", OK[:2])
        gateway.calibrate("kept", ok_scores=[0.2, 0.3])
        assert gateway.fit("kept", OK[2:3])["version"] == 2
        expected = gateway.infer("kept", UNSEEN)
        site.hosts[1].unplug()
        slowest = dict.fromkeys(("/infer", "/health", "/ready", "/metrics"), 0.0)

        def timed(path: str, ask) -> httpx.Response:
            began = time.perf_counter()
            reply = ask()
            slowest[path] = max(slowest[path], time.perf_counter() - began)
            assert reply.status_code == 200, reply.text
            return reply

        def looks() -> dict:
            """What the gateway answers now, to everything that needs no bucket."""
            time.sleep(0.05)
            for path in ("/health", "/ready", "/metrics"):
                timed(path, lambda path=path: gateway.client.get(path))
            return timed("/infer", lambda: gateway.post("/infer", "kept", [UNSEEN], "image")).json()

        wait_until(lambda: looks()["degraded"])
        with ThreadPoolExecutor(2) as pool:
            refused = [
                pool.submit(gateway.post, "/fit_ok", "kept", OK[3:], "images"),
                pool.submit(gateway.post, "/infer", "another", [UNSEEN], "image"),
            ]
            wait_until(lambda: looks() and all(each.done() for each in refused))
        for reply in (each.result() for each in refused):
            assert (reply.status_code, reply.json()["error"]["code"]) == (503, "storage_unavailable"), reply.text
            assert int(reply.headers["retry-after"]) > 0
        answer = looks()
        assert (answer["version"], answer["score"], answer["degraded"]) == (2, expected["score"], True)
        assert f"{url} does not answer: the version answers that was in use before" in answer["warnings"]
        assert "does not answer" in gateway.client.get("/ready").json()["storage"]
        roll_back(other_host(url, tmp_path), Settings(_env_file=None, models_dir=url), key, 1)  # its own cable is in

        site.hosts[1].plug_in()
        wait_until(lambda: gateway.infer("kept", UNSEEN)["version"] == 1)
        wait_until(lambda: not gateway.infer("kept", UNSEEN)["degraded"])
        wait_until(lambda: gateway.client.get("/ready").json()["storage"] == "ready")
        assert gateway.fit("kept", OK[3:])["version"] == 3
        assert other_host(url, tmp_path).current(key).number == 3
        assert "Traceback" not in gateway.log.read_text()
    record_property("figures", {path: f"slowest answer {seconds:.2f} s" for path, seconds in slowest.items()})


def other_host(url: str, cache: Path) -> ArtifactStore:
    """The store as this host sees it, which is in both networks too."""
    return ArtifactStore(BucketStorage(url, cache=cache, cache_bytes=1 << 30, poll_s=1), keep_versions=5)


def test_changes_from_two_hosts_with_kills_between_count_exactly(start, url, tmp_path, full, record_property):
    """Each change is sent until it is acknowledged, to whichever gateway lives. None waits for one that was killed."""
    if not full:
        pytest.skip("minutes: with --all")
    n_fits, n_kills, n_seen, rois = 720, 20, 30, [f"part {n}" for n in range(4)]
    of_each = n_fits // len(rois)
    lost = collections.Counter()
    with ExitStack() as stack:
        gateways = [stack.enter_context(start(n, f"host {n}")) for n in range(2)]
        rng = random.Random(1)

        def insisting(key: tuple[str, str], send) -> dict:
            while True:
                try:
                    reply = send(random.choice(gateways))
                except httpx.TransportError:
                    lost[key] += 1
                    time.sleep(0.05)
                    continue
                if reply.status_code not in (429, 503):
                    return answered(reply)
                time.sleep(0.1)

        def change(n: int) -> tuple[str, int, int]:
            roi, image = rois[n % len(rois)], png(steel(n, SIZE))
            sent = insisting((roi, "fit"), lambda gateway: gateway.post("/fit_ok", roi, [image], "images"))
            if n // len(rois) % 2:
                body = {"role_id": "steel", "roi_id": roi, "mm_per_px": 0.2, "ok_scores": [0.1 + n, 0.2]}
                insisting((roi, "calibrate"), lambda gateway: gateway.client.post("/calibrate_ng", json=body))
            return roi, sent["version"], sent["n_ok_added"]

        def kill(n: int) -> None:
            gateways[n % 2].process.kill()
            gateways[n % 2] = stack.enter_context(start(n % 2, f"host {n % 2}, start {n}"))

        began = time.perf_counter()
        with ThreadPoolExecutor(4) as pool:
            changes = pool.map(change, range(n_fits))
            for n in range(n_kills):
                time.sleep(rng.uniform(0, 2))
                kill(n)
            fits = list(changes)
        took = time.perf_counter() - began
        for roi in rois:
            of_roi = [version for each, version, n_added in fits if each == roi and n_added]
            assert len(set(of_roi)) == len(of_roi)
            # A fit that was published by a gateway that was killed before it answered is there when it is sent again.
            assert of_each - lost[roi, "fit"] <= len(of_roi) <= of_each
            for gateway in gateways:
                wait_until(lambda gateway=gateway, roi=roi: _n_ok(gateway, roi) == of_each)
        delays = [_seconds_until_seen(*gateways, "seen", 10_000 + n) for n in range(n_seen)]

    store = other_host(url, tmp_path)
    for roi in rois:
        key = RoiKey("steel", roi)
        assert list(damages(store, key)) == []
        ends = collections.Counter((each["action"], each["outcome"]) for each in store.audit.read(key, 100_000))
        n_fitted = sum(each == roi and n_added for each, _, n_added in fits)
        assert n_fitted <= ends["fit", "done"] <= of_each + lost[roi, "fit"], ends
        # Killed between publication and record, a fit has no outcome, and sent again it changes nothing.
        assert ends["fit", "done"] + ends["fit", "unknown"] >= of_each, ends
        assert of_each // 2 <= ends["calibrate", "done"] <= of_each // 2 + lost[roi, "calibrate"], ends
    record_property(
        "figures",
        f"{n_fits} fits and {n_fits // 2} calibrations in {took:.0f} s, {n_kills} kills, {lost.total()} sent in vain; "
        f"seen by the other gateway after {statistics.median(delays):.2f} s, at most {max(delays):.2f} s",
    )


def _n_ok(gateway, roi: str) -> int:
    return answered(gateway.client.get(f"/rois/steel/{roi}"))["n_ok_total"]


def _seconds_until_seen(one, other, roi: str, seed: int) -> float:
    """How long after the answer to a fit at one gateway the other one answers by the new version."""
    version = one.fit(roi, [png(steel(seed, SIZE))])["version"]
    began = time.perf_counter()
    wait_until(lambda: other.infer(roi, UNSEEN)["version"] == version)
    return time.perf_counter() - began
