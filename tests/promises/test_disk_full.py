"""What happens when nothing can be written: 507, everything answers as before, and again once there is space."""

import itertools
import time

import pytest

from gateway.inspection.version_cache import load_version
from gateway.store.artifact_store import ArtifactStore
from gateway.store.roi_key import RoiKey
from gateway.store.together import JOURNAL
from tests.e2e.gateway_process import answered
from tests.e2e.synthetic_images import decoded, png, steel
from tests.promises.small_disk import SmallDisk, on_small_disk, skip_where_none_can_be_mounted

SIZE = (120, 100)
UNSEEN = png(steel(900, SIZE))
KEY = RoiKey("steel", "kept")
IMAGES = "/rois/steel/kept/images"
_NEW = itertools.count(1)


@pytest.fixture(scope="module", autouse=True)
def _mountable(tmp_path_factory):
    skip_where_none_can_be_mounted(tmp_path_factory.mktemp("probe"))


@pytest.fixture(scope="module")
def disk(launch, small_model_repository, tmp_path_factory, full):
    """A gateway on its own disk, with room for all that the tests add, with an ROI of two versions, calibrated."""
    where = tmp_path_factory.mktemp("small") / "disk"
    options = "size=128m,nr_inodes=4000" if full else "size=8m,nr_inodes=400"
    with on_small_disk(launch, "small disk", where, options=options, model_repository=small_model_repository) as disk:
        disk.gateway.fit("kept", [png(steel(seed, SIZE)) for seed in (901, 902)])
        disk.gateway.fit("kept", [png(steel(903, SIZE))])
        disk.gateway.calibrate("kept", ok_scores=[0.2, 0.3])
        answered(store_images(disk))
        yield disk


def fit(disk: SmallDisk):
    """An image that nobody sent before."""
    return disk.gateway.post("/fit_ok", "kept", [png(steel(next(_NEW), SIZE))], "images")


def calibrate(disk: SmallDisk):
    body = {"role_id": "steel", "roi_id": "kept", "mm_per_px": 0.2, "ok_scores": [0.2, next(_NEW) / 1e4]}
    return disk.gateway.client.post("/calibrate_ng", json=body)


def roll_back(disk: SmallDisk):
    """To the newest of the others."""
    store = ArtifactStore(disk.models_dir, keep_versions=5)
    ref = store.current(KEY)
    number = max(kept for kept in store.kept(KEY, ref) if kept != ref.number)
    return disk.gateway.client.post("/rois/steel/kept/rollback", json={"version": number})


def remove_image(disk: SmallDisk):
    sha256 = state(disk)[0]["images"][0]["sha256"]
    return disk.gateway.client.delete(f"/rois/steel/kept/ok/{sha256}")


def store_images(disk: SmallDisk):
    """Two images that nobody sent before."""
    files = [("images", png(steel(next(_NEW), SIZE))) for _ in range(2)]
    return disk.gateway.client.post(IMAGES, data={"label": "ng"}, files=files)


def _newest(disk: SmallDisk):
    return answered(disk.gateway.client.get(IMAGES))["images"][-1]


def relabel_image(disk: SmallDisk):
    image = _newest(disk)
    label = "ok" if image["label"] == "ng" else "ng"
    return disk.gateway.client.patch(f"{IMAGES}/{image['id']}", json={"label": label})


def delete_image(disk: SmallDisk):
    return disk.gateway.client.delete(f"{IMAGES}/{_newest(disk)['id']}")


def heatmap_by_path(disk: SmallDisk):
    return disk.gateway.post("/infer", "kept", [UNSEEN], "image", fields={"heatmap": "path"})


def delete(disk: SmallDisk):
    return disk.gateway.client.delete("/rois/steel/kept")


CHANGES = [fit, calibrate, roll_back, remove_image, store_images, relabel_image, delete_image, heatmap_by_path]


def state(disk: SmallDisk):
    """What the gateway answers for the ROI, and what a process that starts now finds on disk."""
    detail = answered(disk.gateway.client.get("/rois/steel/kept"))
    store = ArtifactStore(disk.models_dir, keep_versions=5)
    loaded = load_version(store, KEY, store.current(KEY))
    assert loaded.damaged == ()
    images = answered(disk.gateway.client.get(IMAGES, params={"limit": 1000}))
    assert images["warnings"] == []
    assert all(store.images(KEY).is_whole(record) for record in store.images(KEY).records().stored)
    return detail, disk.gateway.infer("kept", UNSEEN), loaded.manifest, store.calibration(KEY, loaded.manifest), images


def with_images_to_spare(disk: SmallDisk):
    """The state, after a fit where a rollback or removal left too few to take one out of."""
    while state(disk)[0]["n_ok_total"] < 3:
        answered(fit(disk))
    return state(disk)


def refused_or_done(disk: SmallDisk, change, before) -> bool:
    """Whether it was refused: then with 507, and nothing is other than before, to the bit."""
    reply = change(disk)
    if reply.status_code == 200:
        return False
    assert (reply.status_code, reply.json()["error"]["code"]) == (507, "storage_full"), reply.text
    assert "No space left" in reply.json()["error"]["message"]
    assert state(disk) == before
    files = [path for path in disk.folder.rglob("*") if path.is_file()]
    interrupted = [path for path in files if path.suffix == ".tmp" or path.name.startswith((".probe", JOURNAL))]
    assert interrupted == []
    assert all(decoded(path.read_bytes()).shape == SIZE[::-1] for path in files if "heatmaps" in path.parts)
    return True


@pytest.mark.parametrize("change", CHANGES)
def test_a_full_disk_is_507_and_all_answers_stay_and_it_recovers_with_space(disk, change, full):
    """Full from the first byte, and at places in the midst of the write: each leaves the state of before."""
    refused = []
    places = range(0, 400_000, 4096) if full else (0, 20_480, 126_976)
    for but_for_bytes in places:
        before = with_images_to_spare(disk)
        with disk.full(but_for_bytes=but_for_bytes):
            refused.append(refused_or_done(disk, change, before))
            assert disk.gateway.infer("kept", UNSEEN)["version"] > 0
    assert refused[0]
    assert answered(change(disk))
    assert disk.gateway.client.get("/ready").json()["storage"] == "ready"


@pytest.mark.parametrize("change", CHANGES)
def test_a_disk_without_inodes_is_507_and_all_answers_stay_and_it_recovers(disk, change, full):
    refused = []
    for but_for in range(20) if full else (0, 1, 8):
        before = with_images_to_spare(disk)
        with disk.without_file_names(but_for=but_for):
            refused.append(refused_or_done(disk, change, before))
    assert refused[0]
    assert answered(change(disk))


@pytest.mark.parametrize("space", [SmallDisk.full, SmallDisk.without_file_names])
def test_on_a_full_disk_an_roi_is_deleted_wholly_or_not_at_all(disk, space):
    """To delete is how space is made: it may well succeed."""
    for seed in (901, 902):
        disk.gateway.fit("gone", [png(steel(seed, SIZE))])
    with space(disk):
        reply = disk.gateway.client.delete("/rois/steel/gone")
        exists = disk.gateway.client.get("/rois/steel/gone").status_code == 200
        assert (reply.status_code, exists) in [(200, False), (507, True)]
    disk.gateway.fit("gone", [png(steel(903, SIZE))])
    assert answered(disk.gateway.client.delete("/rois/steel/gone"))["deleted"]


def test_a_folder_that_becomes_read_only_is_507_and_answers_as_before_until_it_can_be_written_again(disk):
    before = state(disk)
    with disk.read_only():
        for change in (*CHANGES, delete):
            reply = change(disk)
            assert (reply.status_code, reply.json()["error"]["code"]) == (507, "storage_full"), reply.text
            assert "Read-only" in reply.json()["error"]["message"]
            assert state(disk) == before
        ready = disk.gateway.client.get("/ready")
        assert (ready.status_code, "Read-only" in ready.json()["storage"]) == (200, True)
        assert disk.gateway.infer("kept", UNSEEN)["version"] == before[0]["version"]
    assert answered(fit(disk))["version"] == before[0]["version"] + 1
    assert disk.gateway.client.get("/ready").status_code == 200


def test_a_gateway_on_a_read_only_folder_says_so_at_start_or_at_the_first_write(
    launch, small_model_repository, tmp_path
):
    with on_small_disk(
        launch, "read-only", tmp_path / "disk", read_only=True, model_repository=small_model_repository
    ) as disk:
        ready = disk.gateway.client.get("/ready")
        assert ready.status_code == 200  # a balancer must not remove a gateway that can inspect
        assert "nothing can be learned" in ready.json()["storage"]
        assert "Read-only" in ready.json()["storage"]
        assert "gateway_models_writable 0.0" in disk.gateway.client.get("/metrics").text
        reply = fit(disk)
        assert (reply.status_code, reply.json()["error"]["code"]) == (507, "storage_full")


def test_a_body_that_cannot_be_kept_while_it_comes_in_is_told_as_such(disk):
    def sent():
        return disk.gateway.post("/infer", "kept", [b"no image" * 2**18], "image")

    free = disk.n_bytes_free
    assert sent().status_code == 415
    ends = time.monotonic() + 30
    while disk.n_bytes_free < free - 2**20 and time.monotonic() < ends:
        time.sleep(0.01)  # it is closed only after the answer
    with disk.full():
        reply = sent()
    assert (reply.status_code, reply.json()["error"]["code"]) == (507, "storage_full"), reply.text
    assert "TMPDIR" in reply.json()["error"]["hint"]
    assert sent().status_code == 415
