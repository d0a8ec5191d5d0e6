"""Images with labels: kept as sent, counted by their pixels, learned only when a fit asks for it."""

import asyncio
import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from gateway.errors import (
    ArtifactCorruptError,
    ImageConflictError,
    InvalidRequestError,
    StorageFullError,
    TooLargeError,
    UnknownImageError,
    UnknownRoiError,
    UnsupportedImageError,
)
from gateway.images.identity import pixel_digest
from gateway.learning.intake import NewImage
from gateway.learning.request import ImageFile
from gateway.learning.storing import StoreRequest
from gateway.learning.taken_over import StoredLabels
from gateway.store import together
from gateway.store.cleanup import sweep
from gateway.store.rollback import forget, roll_back
from postprocess.roi_mask import parse_shape
from tests.gateway.brightness_engine import distance, image, sha256
from tests.gateway.fit_bench import EVEN, KEY, STRAY, Bench
from tests.gateway.inspection.test_pictures import NOTHING
from tests.gateway.learning.test_intake import files_in, forms_of, pixels_of


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "models")


def id_of(data: bytes) -> str:
    return pixel_digest(pixels_of(data))


def labels_of(bench: Bench) -> dict[str, str]:
    return {found.record.id: found.record.label for found in bench.images.all(KEY).images}


def learned(bench: Bench) -> set[str]:
    return {found.record.id for found in bench.images.all(KEY).images if found.learned}


def ids(*images: bytes) -> set[str]:
    return {id_of(data) for data in images}


# --- storing ---------------------------------------------------------------------------------------------------------


def test_an_image_is_kept_as_sent_with_its_metadata_before_the_roi_was_ever_fitted(bench: Bench) -> None:
    told = '{"mm_per_px": 0.20, "shape_json": "{}",  "line": "\\u00e4"}'
    result = bench.keep("ng", [EVEN[0], STRAY], [told, None])
    assert (result.n_ok, result.n_ng, [is_new for _, is_new in result.images]) == (0, 2, [True, True])
    record = bench.images.record(KEY, id_of(EVEN[0]))
    assert bench.images.content(KEY, record) == EVEN[0]
    assert (record.label, record.file_name, record.metadata, record.width) == ("ng", "0.png", told, 16)
    assert bench.images.record(KEY, id_of(STRAY)).metadata is None
    assert not bench.store.is_fitted(KEY)


def test_a_picture_in_other_bytes_is_counted_once_in_a_request_and_later(bench: Bench) -> None:
    forms = list(forms_of(EVEN[3]).values())
    result = bench.keep("ok", [EVEN[3], *forms])
    assert [is_new for _, is_new in result.images] == [True] + [False] * len(forms)
    assert bench.keep("ok", [forms[0]]).images[0][1] is False
    assert len(bench.images.all(KEY).images) == 1
    assert bench.images.content(KEY, bench.images.record(KEY, id_of(EVEN[3]))) == EVEN[3]


def test_the_same_picture_as_ok_and_as_ng_is_refused_and_nothing_of_the_request_is_stored(bench: Bench) -> None:
    bench.keep("ok", [EVEN[3]])
    with pytest.raises(ImageConflictError, match=r"images: 1\.png is stored with the label ok, as 0\.png") as caught:
        bench.keep("ng", [EVEN[4], forms_of(EVEN[3])["BMP"]])
    assert f'PATCH /rois/part/face/images/{id_of(EVEN[3])} with {{"label": "ng"}}' in caught.value.hint
    assert labels_of(bench) == {id_of(EVEN[3]): "ok"}


def test_an_image_that_a_fit_brought_is_not_stored_as_ng(bench: Bench) -> None:
    bench.fit(EVEN[:3])
    with pytest.raises(ImageConflictError, match=r"0\.png is learned as an OK image"):
        bench.keep("ng", [forms_of(EVEN[1])["TIFF"]])
    assert bench.keep("ok", [EVEN[1]]).images[0][1] is True


@pytest.mark.parametrize("data", [pytest.param(data, id=name) for name, data in NOTHING.items()])
def test_a_picture_that_shows_nothing_is_refused_and_nothing_of_its_request_is_stored(
    bench: Bench, data: bytes
) -> None:
    with pytest.raises(InvalidRequestError, match=r"images: 2\.png shows nothing: .*; no image of this request was st"):
        bench.keep("ok", [*EVEN[:2], data])
    assert files_in(bench.store.root) == []


def test_a_damaged_file_is_refused_and_nothing_of_its_request_is_stored(bench: Bench) -> None:
    with pytest.raises(UnsupportedImageError, match=r"1\.png"):
        bench.keep("ok", [EVEN[0], EVEN[1][:-40]])
    assert files_in(bench.store.root) == []


def test_the_number_and_the_bytes_of_an_roi_are_limited(tmp_path: Path) -> None:
    few = Bench(tmp_path / "few", max_stored_images=2)
    few.keep("ok", EVEN[:1])
    with pytest.raises(TooLargeError, match="part/face would have 3 stored images; the limit is 2"):
        few.keep("ng", EVEN[1:3])
    few.keep("ng", EVEN[1:2])
    assert few.keep("ok", EVEN[:1]).images[0][1] is False  # a duplicate needs no room
    small = Bench(tmp_path / "small", max_stored_bytes=len(EVEN[0]))
    small.keep("ok", EVEN[:1])
    with pytest.raises(TooLargeError, match="would take"):
        small.keep("ok", EVEN[1:2])


def test_a_disk_that_fills_up_in_a_request_leaves_nothing_of_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.keep("ok", EVEN[:1])
    before = files_in(bench.store.root / "part")
    write, written = together.write_file, []

    def full(path: Path, data: bytes) -> None:
        written.append(path)
        if len(written) == 4:
            path.write_bytes(data[: len(data) // 2])
            raise OSError(28, "No space left on device")
        write(path, data)

    monkeypatch.setattr(together, "write_file", full)
    with pytest.raises(StorageFullError):
        bench.keep("ng", EVEN[1:4])
    assert files_in(bench.store.root / "part") == before
    assert bench.store.audit.read(KEY, 1)[0]["outcome"] == "failed"


# --- learning --------------------------------------------------------------------------------------------------------


def test_stored_images_are_learned_when_a_fit_asks_for_it_and_not_before(bench: Bench) -> None:
    bench.fit(EVEN[:3])
    bench.keep("ok", EVEN[3:6])
    bench.keep("ng", [STRAY])
    bench.fit(EVEN[6:7])
    assert learned(bench) == ids(*EVEN[:3], EVEN[6])
    result = bench.fit_stored()
    assert (result.n_added, result.duplicates) == (3, 0)
    assert learned(bench) == ids(*EVEN[:7])
    assert labels_of(bench)[id_of(STRAY)] == "ng"
    assert bench.infer(EVEN[4]).score == pytest.approx(0, abs=2e-3)


def test_the_same_images_give_the_same_bank_sent_or_stored(tmp_path: Path) -> None:
    sent, stored = Bench(tmp_path / "sent"), Bench(tmp_path / "stored")
    stored.keep("ok", EVEN)
    order = [found.record.id for found in stored.images.all(KEY).images]
    by_id = {id_of(data): data for data in EVEN}
    assert sent.fit([by_id[each] for each in order]).manifest.checksum == stored.fit_stored().manifest.checksum


def test_a_fit_of_stored_images_that_changes_nothing_makes_no_version(bench: Bench) -> None:
    bench.keep("ok", EVEN[:3])
    version = bench.fit_stored().manifest.version
    assert bench.fit_stored().manifest.version == version


def test_a_fit_without_any_ok_image_is_refused(bench: Bench) -> None:
    bench.keep("ng", [STRAY])
    with pytest.raises(InvalidRequestError, match="part/face has no OK image to learn") as caught:
        bench.fit_stored()
    assert "POST /rois/part/face/images" in caught.value.hint


@pytest.mark.parametrize("way", ["stored", "sent"])
def test_an_image_that_is_relabelled_or_deleted_leaves_the_bank_at_the_next_fit(bench: Bench, way: str) -> None:
    if way == "stored":
        bench.keep("ok", EVEN[:5])
        bench.fit_stored()
    else:
        bench.fit(EVEN[:5])
    bench.images.change(KEY, id_of(EVEN[1]), "ng")
    bench.images.delete(KEY, id_of(EVEN[2]))
    assert labels_of(bench) == {**dict.fromkeys(ids(EVEN[0], *EVEN[3:5]), "ok"), id_of(EVEN[1]): "ng"}
    assert id_of(EVEN[1]) in learned(bench)  # until the next fit, which may be any
    assert bench.infer(EVEN[1]).score == pytest.approx(0, abs=2e-3)
    result = bench.fit(EVEN[8:9])
    assert learned(bench) == ids(EVEN[0], *EVEN[3:5], EVEN[8])
    assert len(result.manifest.images) == 4
    assert bench.infer(EVEN[1]).score == pytest.approx(distance(0, 10), abs=2e-3)
    assert bench.fit_stored().manifest.version == result.manifest.version


def test_a_deleted_image_that_is_sent_again_is_learned_again(bench: Bench) -> None:
    bench.fit(EVEN[:3])
    bench.images.delete(KEY, id_of(EVEN[1]))
    assert learned(bench) == ids(EVEN[0], EVEN[2])
    bench.fit([forms_of(EVEN[1])["BMP"]])
    assert learned(bench) == ids(*EVEN[:3])
    bench.images.delete(KEY, id_of(EVEN[1]))
    bench.keep("ok", [EVEN[1]])
    bench.fit_stored()
    assert learned(bench) == ids(*EVEN[:3])


def test_an_image_that_is_stored_as_ng_is_refused_by_a_fit_that_sends_it(bench: Bench) -> None:
    bench.keep("ng", [STRAY])
    with pytest.raises(ImageConflictError, match=r"images: 1\.png is stored with the label ng, as 0\.png") as caught:
        bench.fit([EVEN[0], STRAY])
    assert '{"label": "ok"}' in caught.value.hint
    assert not bench.store.is_fitted(KEY)


def test_an_image_that_is_removed_from_the_bank_is_not_stored_any_more(bench: Bench) -> None:
    bench.keep("ok", EVEN[:3])
    bench.fit_stored()
    bench.remove(EVEN[1])
    assert bench.fit_stored().n_added == 0
    assert set(labels_of(bench)) == ids(EVEN[0], EVEN[2])


def test_an_image_that_an_old_version_learned_is_there_after_a_rollback_and_leaves_again(bench: Bench) -> None:
    bench.fit(EVEN[:3])
    bench.images.delete(KEY, id_of(EVEN[1]))
    bench.fit(EVEN[3:4])
    roll_back(bench.store, bench.settings, KEY, 1)
    assert bench.infer(EVEN[1]).score == pytest.approx(0, abs=2e-3)
    bench.fit(EVEN[4:5])
    assert learned(bench) == ids(EVEN[0], EVEN[2], EVEN[4])


def test_a_suspect_that_a_fit_excluded_stays_stored_and_excluded(bench: Bench) -> None:
    bench.keep("ok", [*EVEN, STRAY])
    bench.fit_stored(exclude_suspects=True)
    (out,) = [found for found in bench.images.all(KEY).images if found.excluded]
    assert (out.record.id, out.learned) == (id_of(STRAY), False)
    bench.fit_stored()
    assert id_of(STRAY) not in learned(bench)
    # Removed from the ROI and stored again, it is learned: somebody looked at it.
    bench.remove(STRAY)
    assert id_of(STRAY) not in labels_of(bench)
    bench.keep("ok", [STRAY])
    bench.fit_stored()
    assert id_of(STRAY) in learned(bench)


def test_the_list_says_of_each_image_what_the_version_in_use_says(bench: Bench) -> None:
    bench.keep("ok", EVEN)
    bench.fit([*EVEN, STRAY])
    by_id = {found.record.id: found for found in bench.images.all(KEY).images}
    assert by_id[id_of(STRAY)].suspect
    assert by_id[id_of(STRAY)].record.created_at is None  # only a fit brought it
    assert not by_id[id_of(EVEN[5])].suspect
    assert by_id[id_of(EVEN[5])].score == pytest.approx(distance(0, 10), abs=2e-3)


def test_a_stored_shape_masks_the_scores_of_its_images(bench: Bench) -> None:
    corner = {(0, 0): 200}
    spotted = [image(grey, corner) if grey == 20 else image(grey) for grey in (0, 10, 20, 30)]
    shape = '{"kind": "rect", "cx": 8, "cy": 12, "w": 16, "h": 6}'
    bench.keep("ok", spotted, shape_json=shape)
    result = bench.fit_stored()
    assert [entry.shape for entry in result.manifest.images] == [shape] * 4
    assert max(result.manifest.ok_scores) == pytest.approx(distance(0, 10), abs=2e-3)


def test_each_file_may_have_a_shape_of_its_own_unless_the_request_has_one(bench: Bench) -> None:
    text = '{"kind": "circle", "r": 6}'
    own = parse_shape(text)[0]
    files = [ImageFile("0.png", lambda: EVEN[0], own, text), ImageFile("1.png", lambda: EVEN[1])]
    asyncio.run(bench.storing.add(StoreRequest(KEY, "ok", files, [None] * 2)))
    shapes = {found.record.file_name: found.record.shape for found in bench.images.all(KEY).images}
    assert shapes == {"0.png": text, "1.png": None}
    outside = ImageFile("2.png", lambda: EVEN[2], parse_shape('{"kind": "circle", "cx": 99, "cy": 99, "r": 6}')[0], "")
    with pytest.raises(InvalidRequestError, match="covers no pixel"):
        asyncio.run(bench.storing.add(StoreRequest(KEY, "ok", [outside], [None])))


def test_an_image_is_deleted_only_with_the_label_that_is_named(bench: Bench) -> None:
    bench.keep("ok", EVEN[:1])
    with pytest.raises(UnknownImageError):
        bench.images.delete(KEY, id_of(EVEN[0]), "ng")
    assert labels_of(bench) == {id_of(EVEN[0]): "ok"}
    bench.images.delete(KEY, id_of(EVEN[0]), "ok")
    assert labels_of(bench) == {}


def test_a_class_may_be_cleared_without_the_images_that_only_a_fit_brought(bench: Bench) -> None:
    bench.fit(EVEN[:2])
    bench.keep("ok", EVEN[2:4])
    assert bench.images.delete_all(KEY, "ok", only_stored=True) == 2
    assert labels_of(bench) == dict.fromkeys(ids(*EVEN[:2]), "ok")
    assert bench.images.delete_all(KEY, "ok") == 2


def test_images_are_stored_while_a_fit_holds_the_roi(bench: Bench) -> None:
    bench.fit(EVEN[:2])
    with bench.store.lock(KEY, 5):
        bench.keep("ng", [STRAY])
        bench.images.change(KEY, id_of(STRAY), "ok")
        bench.images.delete(KEY, id_of(EVEN[0]))
    assert set(labels_of(bench)) == ids(STRAY, EVEN[1])


def test_several_gateways_that_store_at_once_lose_nothing_and_count_nothing_twice(tmp_path: Path) -> None:
    gateways = [Bench(tmp_path / "models") for _ in range(4)]
    common = [image(grey) for grey in range(100, 110)]

    def store(n: int) -> int:
        own = [image(grey) for grey in range(120 + 10 * n, 130 + 10 * n)]
        results = [gateways[n].keep("ok", pair) for pair in zip(own, common, strict=True)]
        gateways[n].images.change(KEY, id_of(own[0]), "ng")
        return sum(is_new for result in results for _, is_new in result.images)

    with ThreadPoolExecutor(4) as pool:
        n_added = sum(pool.map(store, range(4)))
    labels = labels_of(gateways[0])
    assert n_added == len(labels) == 50
    assert list(labels.values()).count("ng") == 4
    assert bench_is_whole(gateways[0])


def bench_is_whole(bench: Bench) -> bool:
    images = bench.store.images(KEY)
    return all(images.is_whole(record) for record in images.records().stored) and not list(images.orphans())


# --- deletion, cleanup and damage ------------------------------------------------------------------------------------


def test_an_image_that_is_deleted_while_a_fit_reads_it_is_not_learned(bench: Bench) -> None:
    bench.keep("ok", EVEN[:4])
    tokens = bench.engine.tokens

    async def deleting(*args, **kwargs):
        if id_of(EVEN[2]) in labels_of(bench):
            bench.images.delete(KEY, id_of(EVEN[2]))
        return await tokens(*args, **kwargs)

    bench.engine.tokens = deleting  # type: ignore[method-assign]
    bench.fit_stored()
    assert learned(bench) == ids(EVEN[0], EVEN[1], EVEN[3])
    assert bench.fit_stored().n_added == 0


def test_traces_of_deleted_images_go_when_no_version_names_them(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "models", keep_versions=1)
    bench.keep("ok", EVEN[:6])
    bench.fit_stored()
    bench.images.delete_all(KEY, "ok")
    with pytest.raises(InvalidRequestError):
        bench.fit_stored()
    for grey in (200, 210, 220, 230, 240):
        bench.fit([image(grey)])
    assert list(bench.store.images(KEY).folder.glob("*.json")) == []


def test_cleanup_removes_halves_and_nothing_that_is_stored(bench: Bench) -> None:
    bench.keep("ok", EVEN[:2])
    bench.keep("ng", [STRAY])
    bench.fit_stored()
    folder = bench.store.images(KEY).folder
    whole = files_in(folder)
    (folder / f"{'a' * 64}.png").write_bytes(EVEN[5])  # its record was not written any more
    (folder / f".{'b' * 64}.json.{'c' * 32}.tmp").write_bytes(b"half")
    damaged = folder / f"{id_of(EVEN[1])}.json"
    damaged.write_bytes(damaged.read_bytes()[:-9] + b"x" * 9)
    (folder / "notes.txt").write_text("somebody's")
    assert sweep(bench.store) == 2
    assert files_in(folder) == sorted([*whole, "notes.txt"])


def test_cleanup_keeps_the_stored_images_of_an_roi_that_was_never_fitted(bench: Bench) -> None:
    bench.keep("ng", [STRAY])
    assert sweep(bench.store) == 0
    assert labels_of(bench) == {id_of(STRAY): "ng"}
    bench.images.delete(KEY, id_of(STRAY))
    with pytest.raises(UnknownImageError):
        bench.images.delete(KEY, id_of(STRAY))


@pytest.mark.parametrize("what", ["image", "record"])
def test_a_damaged_file_is_told_and_the_image_sent_again_mends_it(bench: Bench, what: str) -> None:
    bench.keep("ok", EVEN[:3])
    name = f"{id_of(EVEN[1])}.{'png' if what == 'image' else 'json'}"
    path = bench.store.images(KEY).folder / name
    path.write_bytes(path.read_bytes()[:-9] + b"x" * 9)
    if what == "image":
        with pytest.raises(ArtifactCorruptError, match=r"1\.png\) is damaged"):
            bench.fit_stored()
    else:
        assert bench.images.all(KEY).damaged == (id_of(EVEN[1]),)
        assert f"record of stored image {id_of(EVEN[1])}" in " ".join(bench.fit_stored().warnings)
        assert learned(bench) == ids(EVEN[0], EVEN[2])
    again = forms_of(EVEN[1])["BMP"]
    bench.keep("ok", [again])
    assert bench.images.content(KEY, bench.images.record(KEY, id_of(EVEN[1]))) == again
    bench.fit_stored()
    assert learned(bench) == ids(*EVEN[:3])


def test_an_image_with_a_damaged_record_can_be_deleted(bench: Bench) -> None:
    bench.keep("ok", EVEN[:2])
    path = bench.store.images(KEY).folder / f"{id_of(EVEN[1])}.json"
    path.write_bytes(b"{}")
    bench.images.delete(KEY, id_of(EVEN[1]))
    assert bench.images.all(KEY).damaged == ()
    assert set(labels_of(bench)) == ids(EVEN[0])


def test_an_roi_is_deleted_with_its_stored_images(bench: Bench) -> None:
    bench.keep("ok", EVEN[:2])
    with bench.store.lock(KEY, 5), bench.store.image_lock(KEY, 5):
        forget(bench.store, KEY)
    with pytest.raises(UnknownRoiError):
        bench.images.all(KEY)
    assert files_in(bench.store.root / "part") == []


def test_every_change_is_in_the_audit_trail(bench: Bench) -> None:
    bench.keep("ok", EVEN[:3])
    bench.images.change(KEY, id_of(EVEN[0]), "ng")
    bench.images.change(KEY, id_of(EVEN[1]), metadata={"line": 3})
    bench.images.change(KEY, id_of(EVEN[1]), "ok")  # changes nothing
    bench.images.delete(KEY, id_of(EVEN[1]))
    bench.images.delete_all(KEY, "ok")
    entries = bench.store.audit.read(KEY, 10)[::-1]
    assert [(e["action"], e["n_images"], e["label"], e["image"], e["outcome"]) for e in entries] == [
        ("store_images", 3, "ok", None, "done"),
        ("label_image", 1, "ng", id_of(EVEN[0]), "done"),
        ("label_image", 1, "ok", id_of(EVEN[1]), "done"),
        ("delete_images", 1, None, id_of(EVEN[1]), "done"),
        ("delete_images", 1, None, None, "done"),
    ]
    assert labels_of(bench) == {id_of(EVEN[0]): "ng"}


def test_a_thumbnail_is_small_and_upright(bench: Bench) -> None:
    wide = np.tile(np.arange(256, dtype=np.uint8), (100, 4))
    data = cv2.imencode(".png", wide)[1].tobytes()
    bench.keep("ok", [data])
    record = bench.images.record(KEY, id_of(data))
    small = cv2.imdecode(np.frombuffer(bench.images.thumbnail(KEY, record), np.uint8), cv2.IMREAD_UNCHANGED)
    assert small.shape == (19, 192)


def test_metadata_is_replaced_as_a_whole(bench: Bench) -> None:
    bench.keep("ok", EVEN[:1], ['{"a": 1}'])
    bench.images.change(KEY, id_of(EVEN[0]), metadata={"b": "ä"})
    record = bench.images.record(KEY, id_of(EVEN[0]))
    assert json.loads(record.metadata or "") == {"b": "ä"}
    assert hashlib.sha256(bench.images.content(KEY, record)).hexdigest() == record.file_sha256 == sha256(EVEN[0])


def test_no_id_reaches_a_path(bench: Bench) -> None:
    bench.keep("ok", EVEN[:1])
    for hostile in ("..", "../../part", "%2e%2e", "a" * 63, "A" * 64, f"{'a' * 64}.png", "", "\0", "*", "ａ" * 64):
        with pytest.raises(UnknownImageError):
            bench.images.record(KEY, hostile)
    with pytest.raises(UnknownImageError):
        bench.images.delete(KEY, "*" * 64)


def test_an_image_that_is_deleted_while_a_fit_learns_it_is_left_out(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After its label was read under the lock, before its bytes are."""
    bench.keep("ok", EVEN[:3])
    learnable = StoredLabels.learnable

    def then_deleted(*args: Any) -> list[NewImage]:
        found = learnable(*args)
        bench.images.delete(KEY, id_of(EVEN[1]))
        return found

    monkeypatch.setattr(StoredLabels, "learnable", then_deleted)
    assert len(bench.fit_stored().manifest.images) == 2
    assert learned(bench) == ids(EVEN[0], EVEN[2])
