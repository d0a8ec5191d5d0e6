"""Real gateways over one bucket, through their sockets: what clients see, also when gateways and servers are killed."""

import re

import pytest

from gateway.store.artifact_store import ArtifactStore
from gateway.store.bucket.storage import BucketStorage
from tests.bucket.server import SECRET, running_weed
from tests.bucket.server import environment as found_at
from tests.e2e.gateway_process import answered, wait_until
from tests.e2e.synthetic_images import png, steel
from tests.promises.test_kill_loop import kill_loop

SIZE = (64, 48)
OK = [png(steel(seed, SIZE)) for seed in range(4)]
UNSEEN = png(steel(900, SIZE))


def over(launch, url: str, name: str):
    return launch(name, models_dir=url, store_poll_s=0.1)


def test_two_gateways_over_a_bucket_answer_alike_and_say_when_it_is_away(launch, proxy, url):
    with over(launch, url, "left") as left, over(launch, url, "right") as right:
        left.fit("kept", OK[:2])
        assert right.infer("kept", UNSEEN)["version"] == 1
        left.calibrate("kept", ok_scores=[0.2, 0.3])
        wait_until(lambda: right.infer("kept", UNSEEN)["threshold"] is not None)
        assert right.infer("kept", UNSEEN)["score"] == left.infer("kept", UNSEEN)["score"]
        images = [("images", ("x.png", OK[2]))]
        answered(right.client.post("/rois/steel/kept/images", data={"label": "ng"}, files=images))
        assert right.fit("kept", OK[3:])["version"] == 2
        wait_until(lambda: left.infer("kept", UNSEEN)["version"] == 2)
        assert answered(left.client.get("/rois/steel/kept/images"))["n_ng"] == 1
        wait_until(lambda: left.client.get("/ready").json()["storage"] == "ready")

        proxy.refuse()
        wait_until(lambda: right.infer("kept", UNSEEN)["degraded"])
        answer = right.infer("kept", UNSEEN)
        assert answer["version"] == 2
        assert f"{url} does not answer: the version answers that was in use before" in answer["warnings"]
        for reply in (
            right.post("/fit_ok", "kept", OK[2:3], "images"),
            right.post("/infer", "another", [UNSEEN], "image"),
            right.client.delete("/rois/steel/kept"),
        ):
            assert (reply.status_code, reply.json()["error"]["code"]) == (503, "storage_unavailable"), reply.text
            assert int(reply.headers["retry-after"]) > 0
        ready = right.client.get("/ready")
        assert (ready.status_code, "does not answer" in ready.json()["storage"]) == (200, True)
        assert right.client.get("/metrics").status_code == 200

        proxy.heal()
        wait_until(lambda: not right.infer("kept", UNSEEN)["degraded"])
        wait_until(lambda: right.client.get("/ready").json()["storage"] == "ready")
        assert answered(right.client.delete("/rois/steel/kept"))
        wait_until(lambda: left.post("/infer", "kept", [UNSEEN], "image").status_code == 404)
        trail = answered(left.client.get("/rois/steel/kept/audit"))["entries"]
        assert [each["action"] for each in trail[:2]] == ["delete", "fit"]
        for gateway in (left, right):
            log = gateway.log.read_text()
            assert "Traceback" not in log
            assert SECRET not in log
            assert not re.search("Signature|X-Amz", log)


def test_killed_at_any_moment_over_a_bucket_nothing_acknowledged_is_lost(
    launch, small_model_repository, server, url, tmp_path, full, record_property
):
    """The kill loop of the promises: a step is then a request that changes something in the bucket."""
    if not full:
        pytest.skip("half a minute: with --all")
    wanted = 100
    storage = BucketStorage(url, cache=tmp_path, cache_bytes=1 << 30, poll_s=0)
    store = ArtifactStore(storage, keep_versions=5)
    kills = kill_loop(launch, small_model_repository, url, kills=wanted, seed=6, store=store)
    assert kills >= wanted
    record_property("kills", kills)


def test_a_server_that_is_killed_and_comes_back_has_everything(launch, monkeypatch, url, tmp_path, full):
    if not full:
        pytest.skip("half a minute: with --all")
    with running_weed(tmp_path) as weed:
        for name, value in found_at(weed.port).items():
            monkeypatch.setenv(name, value)
        with over(launch, url, "patient") as gateway:
            gateway.fit("kept", OK[:2])
            weed.kill()
            wait_until(lambda: gateway.infer("kept", UNSEEN)["degraded"])
            weed.start()
            wait_until(lambda: not gateway.infer("kept", UNSEEN)["degraded"])
            assert gateway.fit("kept", OK[2:])["version"] == 2


def test_a_gateway_with_a_wrong_secret_starts_and_says_what_is_wrong(launch, server, url, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
    with over(launch, url, "stranger") as gateway:
        log = gateway.log.read_text()
        assert "nothing can be learned or calibrated yet" in log
        assert "accepts no writes (PermissionDeniedError)" in log
        said = "accepts no writes (PermissionDeniedError)"
        wait_until(lambda: said in gateway.client.get("/ready").json()["storage"])
        reply = gateway.post("/fit_ok", "kept", OK[:1], "images")
        assert reply.status_code in (503, 507), reply.text
        assert "credentials" in reply.json()["error"]["hint"]
        log = gateway.log.read_text()
    assert "wrong-secret" not in log
    assert not re.search("Signature|X-Amz", log)
