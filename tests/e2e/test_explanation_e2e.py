"""``explain`` through the socket."""

import base64
import json

import numpy as np
import pytest

from tests.e2e.gateway_process import answered
from tests.e2e.synthetic_images import decoded, png, steel, with_blob

SIZE = (270, 216)
NG, _ = with_blob(steel(60, SIZE), (200, 80), 14)


def crop_of(image, crop):
    x, y, width, height = crop["box"]
    return image[y : y + height, x : x + width]


def test_the_answer_shows_the_patch_and_the_nearest_ok_patch(gateway, small_roi):
    answer = gateway.infer(small_roi, png(NG), explain="true")
    explanation = answer["explanation"]
    assert explanation.keys() == {"distance", "patch", "ok_patch"}
    ok_images = gateway.client.get(f"/rois/steel/{small_roi}").json()["images"]
    patch, ok_patch = explanation["patch"], explanation["ok_patch"]
    (ok_image,) = [image for image in ok_images if image["sha256"] == ok_patch["sha256"]]
    assert ok_image["file_name"] == ok_patch["file_name"]
    assert 0 < explanation["distance"] <= 2
    sources = {png(steel(seed)): steel(seed) for seed in range(2)}
    ok_pixels = list(sources.values())[ok_images.index(ok_image)]
    for shown, image in ((patch, NG), (ok_patch, ok_pixels)):
        seen = decoded(base64.b64decode(shown["crop"]["png_base64"]))
        assert np.array_equal(seen, crop_of(image, shown["crop"]))
        x, y, width, height = shown["box"]
        left, top, wide, high = shown["crop"]["box"]
        assert left <= x < x + width <= left + wide
        assert top <= y < y + height <= top + high
    heatmap = decoded(base64.b64decode(answer["heatmap_png_base64"]))
    peak_y, peak_x = np.unravel_index(heatmap.argmax(), heatmap.shape)
    x, y, width, height = patch["box"]
    assert x - width <= peak_x <= x + 2 * width
    assert y - height <= peak_y <= y + 2 * height


@pytest.mark.parametrize("asked", [{}, {"explain": "false"}, {"explain": ""}, {"explain": "null"}])
def test_the_key_is_null_unless_asked_for_and_costs_no_stage(gateway, small_roi, asked):
    response = gateway.post("/infer", small_roi, [png(NG)], "image", fields=asked)
    assert answered(response)["explanation"] is None
    assert "explain" not in response.headers["server-timing"]


def test_a_batch_explains_the_items_that_ask(gateway, small_roi):
    base = {"role_id": "steel", "roi_id": small_roi, "mm_per_px": 0.2, "heatmap": "none"}
    items = [{**base, "explain": True}, base]
    files = [("images", (f"{i}.png", png(NG))) for i in range(2)]
    first, second = answered(gateway.client.post("/infer_batch", data={"items": json.dumps(items)}, files=files))[
        "results"
    ]
    assert first["explanation"]["ok_patch"]["crop"]["png_base64"]
    assert second["explanation"] is None


@pytest.mark.parametrize(("roi", "fields", "status"), [("never fitted", {}, 404), (None, {"explain": "perhaps"}, 422)])
def test_a_request_that_cannot_be_answered_is_refused_as_without_it(gateway, small_roi, roi, fields, status):
    response = gateway.post("/infer", roi or small_roi, [png(NG)], "image", fields={"explain": "true"} | fields)
    assert response.status_code == status
    if status == 422:
        assert response.json()["error"]["message"].startswith("explain")
