"""Several gateways over one folder: no fit is lost, no inspection waits for one, no reader sees half of one."""

import hashlib
import random
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from gateway.store.artifact_store import ArtifactStore
from gateway.store.roi_key import RoiKey
from tests.e2e.gateway_process import PROJECT, answered
from tests.e2e.synthetic_images import png, steel

SIZE = (120, 100)
UNSEEN = png(steel(900, SIZE))
ROIS = [f"part {i}" for i in range(4)]
_HANG_S = 900


@pytest.fixture(scope="module")
def two_gateways(launch, small_model_repository, tmp_path_factory):
    """Two gateways over one models folder. Each test has ROIs of its own."""
    shared = {"models_dir": tmp_path_factory.mktemp("shared") / "models", "model_repository": small_model_repository}
    with launch("left", **shared) as left, launch("right", **shared) as right:
        yield left, right


def test_eight_clients_fit_four_rois_at_two_gateways_while_eight_infer_and_no_image_is_lost(
    two_gateways, full, record_property
):
    n_fits, n_clients = (40 if full else 3), 8
    for roi in ROIS:
        two_gateways[0].fit(roi, [UNSEEN])
    fitting = threading.Event()
    fitting.set()
    with ThreadPoolExecutor(2 * n_clients) as pool:
        inspections = [pool.submit(_inspect_while, fitting, two_gateways, client) for client in range(n_clients)]
        fits = [pool.submit(_fit_all, two_gateways, client, n_fits) for client in range(n_clients)]
        try:
            sent = [fit.result(_HANG_S) for fit in fits]
        finally:
            fitting.clear()
        answers = [inspection.result(_HANG_S) for inspection in inspections]

    first = hashlib.sha256(UNSEEN).hexdigest()
    for i, roi in enumerate(ROIS):
        acknowledged = {first}.union(*(client[i][0] for client in sent))
        n_added = 1 + sum(client[i][1] for client in sent)
        for gateway in two_gateways:
            detail = answered(gateway.client.get(f"/rois/steel/{roi}"))
            assert sorted(image["sha256"] for image in detail["images"]) == sorted(acknowledged)
            assert detail["n_ok_total"] == len(acknowledged) == n_added
            # Every fit that added something published one version, and no two the same.
            added_in = {image["added_in"] for image in detail["images"]}
            assert (added_in, detail["version"]) == (set(range(1, len(added_in) + 1)), len(added_in))
    assert all(n_answers > 0 for n_answers in answers)
    record_property("fits and inspections answered", (n_clients * n_fits, sum(answers)))


def _fit_all(gateways, client: int, n_fits: int) -> list[tuple[set[str], int]]:
    """Fit now here, now there. Returns for each ROI what was acknowledged: the images sent, and how many were new."""
    rng = random.Random(client)
    sent: list[tuple[set[str], int]] = [(set(), 0) for _ in ROIS]
    for n in range(n_fits):
        i = rng.randrange(len(ROIS))
        # One image of its own, and one that the neighbours send as well: it counts once.
        images = [png(steel(1000 + 100 * client + n, SIZE)), png(steel(800 + n, SIZE))]
        answer = _insisting(rng, gateways, "/fit_ok", ROIS[i], images, "images")
        known, n_added = sent[i]
        sent[i] = (known | {hashlib.sha256(image).hexdigest() for image in images}, n_added + answer["n_ok_added"])
    return sent


def _inspect_while(fitting: threading.Event, gateways, client: int) -> int:
    """Inspect until the fits are done; a version never goes back. Returns how many answers there were."""
    rng = random.Random(client)
    versions = dict.fromkeys(ROIS, 0)
    n_answers = 0
    while fitting.is_set():
        roi = rng.choice(ROIS)
        answer = _insisting(rng, gateways, "/infer", roi, [UNSEEN], "image")
        assert answer["version"] >= versions[roi]
        versions[roi] = answer["version"]
        n_answers += 1
    return n_answers


def _insisting(rng: random.Random, gateways, *request):
    """The answer of either gateway; a 429 is sent again when it says so. Nothing else is accepted."""
    while (reply := rng.choice(gateways).post(*request)).status_code == 429:
        time.sleep(int(reply.headers["retry-after"]))
    return answered(reply)


def test_an_inspection_never_waits_for_a_fit(two_gateways, full):
    """While somebody on another host holds the ROI's lock, and writers queue up behind it."""
    gateway, other = two_gateways
    gateway.fit("held", [png(steel(1, SIZE)), png(steel(2, SIZE))])
    store = ArtifactStore(gateway.models_dir, keep_versions=5)
    with ThreadPoolExecutor(3) as pool:
        with store.lock(RoiKey("steel", "held"), 5):
            waiting = [
                pool.submit(gateway.fit, "held", [png(steel(3, SIZE))]),
                pool.submit(other.fit, "held", [png(steel(4, SIZE))]),
                pool.submit(gateway.calibrate, "held", ok_scores=[0.5, 0.6]),
            ]
            for _ in range(200 if full else 20):
                assert gateway.infer("held", UNSEEN)["version"] == 1
                assert other.infer("held", UNSEEN)["version"] == 1
            assert not any(writer.done() for writer in waiting)
        for writer in waiting:
            writer.result(_HANG_S)
    assert gateway.infer("held", UNSEEN)["version"] == 3
    assert other.client.get("/rois/steel/held").json()["n_ok_total"] == 4


def test_a_fit_that_waits_too_long_is_told_when_to_come_again(launch, small_model_repository, tmp_path):
    with launch(
        "impatient", models_dir=tmp_path, model_repository=small_model_repository, fit_lock_timeout_s=0.2
    ) as gateway:
        before = gateway.fit("held", [png(steel(1, SIZE))])
        store = ArtifactStore(tmp_path, keep_versions=5)
        with store.lock(RoiKey("steel", "held"), 5):
            reply = gateway.post("/fit_ok", "held", [png(steel(2, SIZE))], "images")
        assert (reply.status_code, reply.json()["error"]["code"]) == (429, "overloaded")
        assert int(reply.headers["retry-after"]) >= 1
        assert gateway.fit("held", [png(steel(2, SIZE))])["version"] == before["version"] + 1


_PUBLISH = """
import os, sys, time
from dataclasses import replace
from pathlib import Path
from gateway.store.roi_key import RoiKey
from gateway.inspection.version_cache import load_version
from gateway.store.artifact_store import ArtifactStore

store = ArtifactStore(Path(sys.argv[1]), keep_versions=3)
key = RoiKey("steel", "mixed")
sources = []
for roi_id in ("even", "odd"):
    source = RoiKey("steel", roi_id)
    loaded = load_version(store, source, store.current(source))
    sources.append((loaded, store.ok_maps(source, loaded.manifest), store.calibration(source, loaded.manifest)))
for number in range(1, int(sys.argv[2]) + 1):
    loaded, ok_maps, stored = sources[number % 2]
    calibration = stored.calibration.model_copy(update={"version": number})
    manifest = loaded.manifest.model_copy(update={"roi_id": key.roi_id, "version": number, "files": {}})
    with store.lock(key, 60):
        store.publish(key, manifest, loaded.detector.files(), loaded.weights, ok_maps, calibration)
    # A clock that stands still: nobody may go by the times of files.
    for path in (store.storage.root / "steel" / "mixed").rglob("*"):
        try:
            os.utime(path, (1e9, 1e9))
        except FileNotFoundError:
            pass
    time.sleep(0.05)  # faster than any fit, but not than a reader
    if number == 2:
        print("begun", flush=True)
"""


def test_readers_see_the_version_before_or_after_and_never_a_mixture(two_gateways, full, record_property):
    """Two known banks with their thresholds in turn, published by another process ten times a second and more."""
    gateway, other = two_gateways
    known = []
    for roi, seeds, area in (("even", (1, 2), 1.0), ("odd", (11, 12, 13), 2.0)):
        gateway.fit(roi, [png(steel(seed, SIZE)) for seed in seeds])
        gateway.calibrate(roi, area_mm2_thr=area)
        known.append(gateway.infer(roi, UNSEEN))
    assert known[0]["score"] != known[1]["score"]
    publisher = subprocess.Popen(
        [sys.executable, "-c", _PUBLISH, gateway.models_dir, str(2000 if full else 12)],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        text=True,
    )
    versions = []
    with publisher, ThreadPoolExecutor(4) as pool:
        assert publisher.stdout is not None
        assert publisher.stdout.readline() == "begun\n"
        readers = [
            pool.submit(_read_while, publisher, reader, known) for reader in (gateway, other) * (2 if full else 1)
        ]
        for reader in readers:
            versions += reader.result(_HANG_S)
    assert publisher.returncode == 0
    assert len(set(versions)) > 5, "the readers hardly saw a change"
    record_property("answers and versions seen", (len(versions), len(set(versions))))


def _read_while(publisher, gateway, known) -> list[int]:
    versions = [0]
    while publisher.poll() is None:
        answer = gateway.infer("mixed", UNSEEN)
        of_version = known[answer["version"] % 2]
        for field in ("score", "heatmap_max", "heatmap_png_base64"):
            assert answer[field] == of_version[field], f"version {answer['version']} with another's {field}"
        assert not answer["calibration_stale"]
        assert not answer["degraded"]
        assert answer["threshold"] == of_version["threshold"]
        assert answer["params"]["area_mm2_thr"] == of_version["params"]["area_mm2_thr"]
        assert answer["version"] >= versions[-1]
        versions.append(answer["version"])
    return versions
