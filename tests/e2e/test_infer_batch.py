"""Several ROIs in one request."""

import json

import pytest

from tests.e2e.gateway_process import Gateway, answered
from tests.e2e.synthetic_images import png, steel


def batch(gateway: Gateway, items: list[dict] | str, images: list[bytes]):
    text = items if isinstance(items, str) else json.dumps(items)
    files = [("images", (f"{i}.png", image)) for i, image in enumerate(images)]
    return gateway.client.post("/infer_batch", data={"items": text}, files=files)


def item(roi: str, **fields) -> dict:
    return {"role_id": "steel", "roi_id": roi, "mm_per_px": 0.2, **fields}


def test_each_answer_is_that_of_infer_in_the_order_of_the_request(gateway, small_roi):
    images = [png(steel(10)), png(steel(11, (200, 300))), png(steel(12))]
    shape = {"kind": "circle", "r": 90}
    items = [item(small_roi), item(small_roi, shape=shape, heatmap="none"), item(small_roi, k=3, p_score=97)]
    results = answered(batch(gateway, items, images))["results"]
    singly = [
        gateway.infer(small_roi, images[0]),
        gateway.infer(small_roi, images[1], shape=json.dumps(shape), heatmap="none"),
        gateway.infer(small_roi, images[2], k=3, p_score=97),
    ]
    for together, alone in zip(results, singly, strict=True):
        # The network sees a batch of three as others than a batch of one: rounding in bf16 differs.
        assert together["score"] == pytest.approx(alone["score"], abs=5e-3)
        assert together.keys() == alone.keys()
        for key in ("params", "image_size", "token_shape", "version", "warnings", "heatmap_max"):
            assert together[key] == alone[key]
        assert (together["heatmap_png_base64"] is None) == (alone["heatmap_png_base64"] is None)


def test_an_error_in_one_item_does_not_fail_the_others(gateway, small_roi):
    good = png(steel(10))
    items = [
        item(small_roi),
        item("never fitted"),
        item(small_roi),
        item("../x"),
        item(small_roi, shape='{"kind": "blob"}'),
        item(small_roi),
    ]
    results = answered(batch(gateway, items, [good, good, b"text", good, good, good]))["results"]
    codes = [r.get("error", {}).get("code") for r in results]
    assert codes == [None, "unknown_roi", "unsupported_image", "invalid_request", "invalid_request", None]
    assert results[0]["score"] == pytest.approx(results[5]["score"], abs=5e-3)
    assert "2.png" in results[2]["error"]["message"]
    for result in (r for r in results if "error" in r):
        assert result.keys() == {"error"}
        assert result["error"].keys() == {"code", "message", "hint"}


@pytest.mark.parametrize(
    ("items", "named"),
    [
        ("", "items"),
        ("{}", "items"),
        ("not json", "items"),
        ("[" * 5000, "items"),
        ('[{"role_id": "steel"}]', "items.0.roi_id"),
        (r'{"steel": "\ud83d"}', "items.steel: expected Unicode text"),
        (r'[{"role_id": ["\ud83d"], "k": 4}]', "items.0.role_id.0: expected Unicode text"),
        ('[{"role_id": "steel", "roi_id": "x", "mm_per_px": "0,2"}]', "items.0.mm_per_px"),
        ('[{"role_id": "steel", "roi_id": "x", "mm_per_px": NaN}]', "items"),
        ('[{"role_id": "steel", "roi_id": "x", "mm_per_px": 0.2, "colour": 1}]', "items.0: unknown field 'colour'"),
        ('[{"role_id": "a", "roi_id": "x", "mm_per_px": 1}, {"role_id": "a", "roi_id": "x", "mm_per_px": 1}]', "items"),
    ],
)
def test_invalid_items_refuse_the_whole_request(gateway, items, named):
    response = batch(gateway, items, [png(steel(0))])
    assert response.status_code == 422
    error = response.json()["error"]
    assert error["code"] == "invalid_request"
    assert error["message"].startswith(named)


def test_more_images_than_the_limit_are_refused(gateway, small_roi):
    response = batch(gateway, [item(small_roi)] * 33, [b"x"] * 33)
    assert response.status_code == 413
    assert "32" in response.json()["error"]["message"]
