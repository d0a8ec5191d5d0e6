"""Versions over HTTP: rollback, audit trail, and what a client hears of damage."""

import time

import pytest

from tests.e2e.gateway_process import answered
from tests.e2e.synthetic_images import png, steel

UNSEEN = png(steel(90, (112, 112)))


def ok(*seeds: int) -> list[bytes]:
    return [png(steel(seed, (112, 112))) for seed in seeds]


@pytest.fixture(scope="module")
def gateway(launch, small_model_repository):
    with launch("versions", model_repository=small_model_repository, keep_versions=3) as started:
        yield started


def back(gateway, roi, version):
    return gateway.client.post(f"/rois/steel/{roi}/rollback", json={"version": version})


def audit(gateway, roi):
    return answered(gateway.client.get(f"/rois/steel/{roi}/audit"))["entries"]


def test_a_rollback_answers_as_the_version_did_and_lists_what_is_kept(gateway):
    gateway.fit("back", ok(1, 2))
    gateway.calibrate("back", ok_scores=[0.3])
    then = gateway.infer("back", UNSEEN)
    gateway.fit("back", ok(3))
    gateway.calibrate("back", ok_scores=[0.9])
    detail = answered(gateway.client.get("/rois/steel/back"))
    assert [(v["version"], v["n_ok"], v["current"]) for v in detail["versions"]] == [(2, 3, True), (1, 2, False)]
    answer = answered(back(gateway, "back", 1))
    assert answer == {
        "role_id": "steel",
        "roi_id": "back",
        "recipe_id": "default",
        "version_before": 2,
        "version": 1,
        "n_ok_total": 2,
        "calibration": "current",
        "threshold": 0.3,
        "warnings": [],
    }
    assert gateway.infer("back", UNSEEN) == then
    detail = answered(gateway.client.get("/rois/steel/back"))
    assert [(v["version"], v["current"]) for v in detail["versions"]] == [(2, False), (1, True)]
    assert gateway.fit("back", ok(4))["version"] == 3


def test_a_version_that_is_not_kept_is_refused_by_name_with_those_that_are(gateway):
    for seed in range(10, 15):
        gateway.fit("few", ok(seed))
    reply = back(gateway, "few", 1)
    assert (reply.status_code, reply.json()["error"]["code"]) == (409, "unknown_version")
    assert "kept versions are 3, 4, 5" in reply.json()["error"]["message"]
    assert back(gateway, "never", 1).status_code == 404
    for body in ({}, {"version": 0}, {"version": "x"}, {"version": 1, "more": 1}):
        assert gateway.client.post("/rois/steel/few/rollback", json=body).status_code == 422


def test_the_audit_trail_names_who_and_outlives_the_roi(gateway):
    gateway.client.post(
        "/fit_ok",
        data={"role_id": "steel", "roi_id": "told", "mm_per_px": "0.2"},
        files=[("images", image) for image in ok(1, 2)],
        headers={"X-Request-ID": "fit-1"},
    )
    gateway.fit("told", ok(1))  # changes nothing
    gateway.calibrate("told", ok_scores=[0.3])
    gateway.client.delete("/rois/steel/told", headers={"X-Request-ID": "del-1"})
    entries = audit(gateway, "told")
    assert [(e["action"], e["version_before"], e["version_after"], e["outcome"]) for e in entries] == [
        ("delete", 1, None, "done"),
        ("calibrate", 1, 1, "done"),
        ("fit", None, 1, "done"),
    ]
    assert [entries[0]["request_id"], entries[2]["request_id"]] == ["del-1", "fit-1"]
    assert {(e["actor"], e["client"]) for e in entries} == {("anonymous", "127.0.0.1")}
    assert [(e["threshold_before"], e["threshold_after"]) for e in entries] == [(0.3, None), (None, 0.3), (None, None)]
    assert gateway.client.get("/rois/steel/never/audit").status_code == 404
    assert len(answered(gateway.client.get("/rois/steel/told/audit?limit=1"))["entries"]) == 1
    assert gateway.client.get("/rois/steel/told").status_code == 404


def test_damage_is_told_in_every_answer_about_it_until_it_is_mended(gateway):
    gateway.fit("worn", ok(1, 2))
    gateway.calibrate("worn", ok_scores=[0.3])
    gateway.fit("worn", ok(3))
    (gateway.models_dir / "steel/worn/versions/2/memory.npz").write_bytes(b"x")
    answer = gateway.infer("worn", UNSEEN)
    assert (answer["version"], answer["threshold"], answer["degraded"]) == (1, 0.3, True)
    assert "memory.npz fails its checksum" in " ".join(answer["warnings"])
    ready = gateway.client.get("/ready")
    assert ready.status_code == 200
    assert any("steel/worn" in each for each in ready.json()["degraded"])
    detail = answered(gateway.client.get("/rois/steel/worn"))
    assert detail["degraded"]
    assert "memory.npz" in " ".join(detail["warnings"])
    listed = {roi["roi_id"]: roi["degraded"] for roi in answered(gateway.client.get("/rois"))["rois"]}
    assert listed["worn"]
    assert not listed["few"]
    assert "steel/worn is degraded" in gateway.log.read_text()
    assert gateway.fit("worn", ok(4))["version"] == 3
    assert not gateway.infer("worn", UNSEEN)["degraded"]
    assert not any("worn" in each for each in gateway.client.get("/ready").json()["degraded"])


def test_a_start_cleans_what_a_killed_writer_left(launch, small_model_repository, tmp_path):
    with launch("before", models_dir=tmp_path, model_repository=small_model_repository) as gateway:
        gateway.fit("kept", ok(1, 2))
    mark = "0" * 32
    leftovers = [
        tmp_path / "steel/kept" / f".current.{mark}.tmp",
        tmp_path / "steel/kept/versions" / f".2.{mark}.tmp" / "memory.npz",
        tmp_path / "steel/kept/ok" / f"{'a' * 64}.png",
        tmp_path / ".trash" / mark / "x",
    ]
    for path in leftovers:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    with launch("after", models_dir=tmp_path, model_repository=small_model_repository) as gateway:
        gateway.fit("kept", ok(3))
        deadline = time.monotonic() + 60
        while left := [path for path in leftovers if path.exists()]:
            assert time.monotonic() < deadline, left
            time.sleep(0.05)
        assert gateway.infer("kept", UNSEEN)["version"] == 2
