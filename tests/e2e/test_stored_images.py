"""The stored images of an ROI through the socket: upload, list, bytes, thumbnail, relabel, delete, fit."""

import json

import cv2
import numpy as np
import pytest

from tests.e2e.gateway_process import answered
from tests.e2e.synthetic_images import png, steel

OK = [png(steel(seed)) for seed in range(40, 44)]
NG = png(steel(50))
ROI = "/rois/steel/kept/images"


def keep(gateway, label, images, metas=(), path=ROI, **fields):
    files = [("images", (f"teil ü {i}.png", data, "image/png")) for i, data in enumerate(images)]
    files += [("metas", (None, text, "application/json")) for text in metas]
    return gateway.client.post(path, data={"label": label, **fields}, files=files)


@pytest.fixture
def kept(gateway):
    """An ROI that was never fitted, with three OK images and one NG image."""
    answered(keep(gateway, "ok", OK[:3], ['{"n": 1.50}', "null", ""]))
    answered(keep(gateway, "ng", [NG]))
    yield answered(gateway.client.get(ROI))
    gateway.client.delete("/rois/steel/kept")


def test_images_are_listed_page_by_page_and_by_label(gateway, kept):
    assert (kept["n_ok"], kept["n_ng"], kept["total"], kept["warnings"]) == (3, 1, 4, [])
    first = kept["images"][0]
    assert first.keys() == {
        *("id", "label", "file_name", "content_type", "created_at", "n_bytes", "width", "height"),
        *("has_metadata", "learned", "excluded", "suspect", "score", "peak"),
    }
    assert [image["file_name"] for image in kept["images"][:3]] == [f"teil ü {i}.png" for i in range(3)]
    assert not any(image["learned"] or image["suspect"] for image in kept["images"])
    assert sum(image["n_bytes"] for image in kept["images"]) == kept["n_bytes"] == sum(map(len, [*OK[:3], NG]))
    page = answered(gateway.client.get(ROI, params={"label": "ok", "offset": 1, "limit": 1}))
    assert (page["images"], page["total"]) == (kept["images"][1:2], 3)
    assert gateway.client.get(ROI, params={"label": "bad"}).status_code == 422
    assert gateway.client.get("/rois/steel/never/images").json()["error"]["code"] == "unknown_roi"


def test_an_image_its_thumbnail_and_its_metadata_are_answered_as_what_they_are(gateway, kept):
    by_name = {image["file_name"]: image["id"] for image in kept["images"] if image["label"] == "ok"}
    url = f"{ROI}/{by_name['teil ü 0.png']}"
    reply = gateway.client.get(url)
    assert (reply.content, reply.headers["content-type"]) == (OK[0], "image/png")
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["content-disposition"] == "inline; filename*=UTF-8''teil%20%C3%BC%200.png"
    small = gateway.client.get(f"{url}/thumbnail")
    assert small.headers["content-type"] == "image/jpeg"
    assert max(cv2.imdecode(np.frombuffer(small.content, np.uint8), cv2.IMREAD_UNCHANGED).shape) == 192
    assert "max-age" in small.headers["cache-control"]
    assert "private" in small.headers["cache-control"]
    for path, answer in ((url, reply), (f"{url}/thumbnail", small)):
        again = gateway.client.get(path, headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert gateway.client.head(path).headers["content-type"] == answer.headers["content-type"]
    assert gateway.client.get(f"{url}/metadata").text == '{"n": 1.50}'
    assert gateway.client.get(f"{ROI}/{by_name['teil ü 1.png']}/metadata").json() is None
    for hostile in ("a" * 64, "..%2f..%2fcurrent", "%00"):
        assert gateway.client.get(f"{ROI}/{hostile}").status_code == 404


def test_the_life_of_stored_images_from_upload_to_bank(gateway, kept):
    fields = {"role_id": "steel", "roi_id": "kept", "mm_per_px": "0.2"}
    fit = answered(gateway.client.post("/fit_ok", files={name: (None, value) for name, value in fields.items()}))
    assert (fit["n_ok_total"], fit["n_ok_added"], fit["duplicates"]) == (3, 3, 0)
    listed = answered(gateway.client.get(ROI))["images"]
    assert [image["learned"] for image in listed] == [image["label"] == "ok" for image in listed]
    assert all(image["score"] is not None for image in listed)
    calibration = gateway.calibrate("kept", ok_scores=None, ng_scores=None, area_mm2_thr=0.5)
    assert (calibration["n_ok"], calibration["n_ng"], calibration["stored_images"]) == (3, 1, True)
    ng = next(image["score"] for image in listed if image["label"] == "ng")
    assert gateway.infer("kept", NG)["score"] == pytest.approx(ng, abs=1e-4)  # stored tokens are float16
    assert all(image["peak"] is not None for image in answered(gateway.client.get(ROI))["images"])
    first = listed[0]["id"]
    changed = answered(gateway.client.patch(f"{ROI}/{first}", json={"label": "ng", "metadata": {"why": "scratch"}}))
    assert (changed["label"], changed["has_metadata"], changed["learned"]) == ("ng", True, True)
    more = answered(keep(gateway, "ok", [OK[3], OK[1]]))
    assert (more["n_added"], more["duplicates"], more["n_ok"], more["n_ng"]) == (1, 1, 3, 2)
    assert [image["duplicate"] for image in more["images"]] == [False, True]
    fit = answered(gateway.client.post("/fit_ok", files={name: (None, value) for name, value in fields.items()}))
    assert (fit["n_ok_total"], fit["n_ok_added"], fit["calibration"]) == (3, 1, "redone")
    assert answered(gateway.client.get("/rois/steel/kept"))["calibration"]["n_ng"] == 2
    assert answered(gateway.client.delete(f"{ROI}/{first}"))["deleted"] is True
    assert answered(gateway.client.delete(ROI, params={"label": "ng"}))["deleted"] == 1
    assert gateway.client.delete(f"{ROI}/{first}").status_code == 404
    actions = [entry["action"] for entry in answered(gateway.client.get("/rois/steel/kept/audit"))["entries"]]
    expected = ["store_images", "store_images", "fit", "calibrate", "label_image", "store_images", "fit"]
    assert actions[::-1][-9:] == [*expected, "delete_images", "delete_images"]


def test_an_roi_with_stored_images_alone_is_listed_as_such_until_it_is_fitted(gateway, kept):
    def of_kept(headers=None):
        listed = answered(gateway.client.get("/rois", headers=headers))
        return [[roi for roi in listed[name] if roi["roi_id"] == "kept"] for name in ("rois", "unfitted")]

    told = {"role_id": "steel", "roi_id": "kept", "recipe_id": "default"}
    assert of_kept() == [[], [{**told, "state": "stored_images_only", "n_ok": 3, "n_ng": 1}]]
    assert of_kept({"X-Recipe-Id": "another"}) == [[], []]
    assert gateway.client.get("/rois/steel/kept").status_code == 404
    fields = {"role_id": "steel", "roi_id": "kept", "mm_per_px": "0.2"}
    answered(gateway.client.post("/fit_ok", files={name: (None, value) for name, value in fields.items()}))
    rois, unfitted = of_kept()
    assert ([roi["version"] for roi in rois], unfitted) == ([1], [])


@pytest.mark.parametrize(
    ("label", "images", "metas", "status", "said"),
    [
        ("bad", OK[:1], [], 422, "label"),
        ("ok", [OK[0], OK[1][:-40]], [], 415, "teil ü 1.png"),
        ("ok", [OK[0], png(np.zeros((64, 64), np.uint8))], [], 422, "shows nothing"),
        ("ok", OK[:2], ["{}"], 422, "metas: 1 for 2 images"),
        ("ok", OK[:2], ["{}", "{"], 422, "metas: number 2 is not JSON"),
        ("ok", OK[:1], [r'{"note": "\udc00"}'], 422, "metas: number 1.note: expected Unicode text"),
        ("ok", OK[:1], ["[1]"], 422, "metas: number 1 is not a JSON object"),
        ("ok", OK[:1], [json.dumps({"x": "y" * 20_000})], 413, "metas: number 1"),
        ("ok", OK[:1], ["{" + " " * 70_000 + "}"], 413, "Field exceeded|Part exceeded"),
    ],
)
def test_a_wrong_upload_is_refused_and_nothing_of_it_is_stored(gateway, label, images, metas, status, said):
    reply = keep(gateway, label, images, metas, path="/rois/steel/refused/images")
    assert reply.status_code == status, reply.text
    assert any(each in reply.json()["error"]["message"] for each in said.split("|")), reply.text
    assert gateway.client.get("/rois/steel/refused/images").status_code == 404


def test_a_conflict_of_labels_names_the_remedy_and_the_remedy_works(gateway, kept):
    reply = keep(gateway, "ok", [NG])
    assert (reply.status_code, reply.json()["error"]["code"]) == (409, "image_conflict")
    ng = next(image["id"] for image in kept["images"] if image["label"] == "ng")
    assert f"PATCH {ROI}/{ng}" in reply.json()["error"]["hint"]
    answered(gateway.client.patch(f"{ROI}/{ng}", json={"label": "ok"}))
    assert answered(keep(gateway, "ok", [NG]))["duplicates"] == 1


def test_many_metas_of_a_large_request_are_read(gateway):
    images = [png(steel(seed, (24, 24))) for seed in range(300, 345)]
    path = "/rois/steel/many/images"
    assert answered(keep(gateway, "ok", images, [f'{{"n": {i}}}' for i in range(45)], path=path))["n_added"] == 45
    listed = answered(gateway.client.get(path, params={"limit": 1000}))["images"]
    for image in listed[::15]:
        told = gateway.client.get(f"{path}/{image['id']}/metadata").json()
        assert image["file_name"] == f"teil ü {told['n']}.png"
    answered(gateway.client.delete("/rois/steel/many"))
    assert gateway.client.get(path).status_code == 404
