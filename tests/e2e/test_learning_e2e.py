"""What a fit learns and keeps, and within which pixels an image is judged, through the socket."""

import json

import cv2
import numpy as np
import pytest

from tests.e2e.synthetic_images import png, steel

BLACK = png(np.zeros((240, 300), np.uint8))
LEFT = {"kind": "rect", "cx": 75, "cy": 120, "w": 150, "h": 240}


def coded(kind: str, pixels: np.ndarray) -> bytes:
    return cv2.imencode(kind, pixels)[1].tobytes()


@pytest.fixture(scope="module")
def images():
    return [steel(seed) for seed in range(200, 208)]


@pytest.fixture(scope="module")
def roi(gateway, images):
    gateway.fit("learned", [png(image) for image in images], coreset_rate=0.05, seed=3)
    gateway.calibrate("learned")
    return "learned"


def test_a_picture_counts_once_in_whatever_file_it_comes(gateway, roi, images):
    again = [coded(".bmp", images[0]), coded(".tif", images[1]), coded(".png", np.dstack([images[2]] * 3))]
    answer = gateway.fit(roi, again)
    assert (answer["n_ok_added"], answer["duplicates"], answer["n_ok_total"]) == (0, 3, 8)
    assert any("learned OK images" in warning for warning in gateway.infer(roi, again[0])["warnings"])


def test_a_fit_keeps_what_it_does_not_name(gateway, images):
    first = gateway.fit("kept parameters", [png(image) for image in images[:3]], coreset_rate=0.05, seed=3)
    second = gateway.fit("kept parameters", [png(images[3])])
    assert (second["coreset_rate"], second["seed"], second["warnings"]) == (0.05, 3, first["warnings"])


def test_a_black_image_is_refused_by_name_and_nothing_of_its_request_is_learned(gateway, images):
    files = [*(("images", (f"{i}.png", png(image))) for i, image in enumerate(images)), ("images", ("dark.png", BLACK))]
    fields = {"role_id": "steel", "roi_id": "dark", "mm_per_px": "0.2"}
    refused = gateway.client.post("/fit_ok", data=fields, files=files)
    assert refused.status_code == 422
    error = refused.json()["error"]
    assert error["code"] == "invalid_request"
    assert error["message"].startswith("images: dark.png shows nothing: every pixel has the value 0")
    assert gateway.client.get("/rois/steel/dark").status_code == 404


def test_the_bit_depth_of_a_fit_is_that_of_later_fits_and_inspections(gateway, images):
    in_12_bits = [coded(".png", np.rint(image / 255 * 4095).astype(np.uint16)) for image in images]
    assert any("send bit_depth=12" in warning for warning in gateway.fit("deep", in_12_bits[:2])["warnings"])
    gateway.fit("twelve", in_12_bits[:2], bit_depth=12)
    later = gateway.fit("twelve", in_12_bits[2:4])
    assert not any("bit" in warning for warning in later["warnings"])
    assert gateway.infer("twelve", in_12_bits[5])["params"]["bit_depth"] == 12


@pytest.mark.parametrize("depth", ["7", "17", "12.5"])
def test_a_bit_depth_out_of_range_is_refused(gateway, images, depth):
    refused = gateway.post("/fit_ok", "refused depth", [png(images[0])], "images", fields={"bit_depth": depth})
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "invalid_request")


def test_an_image_is_judged_by_the_ok_images_within_the_shape_of_its_request(gateway, roi, images):
    whole = gateway.infer(roi, png(steel(300)))
    left = gateway.infer(roi, png(steel(300)), shape=json.dumps(LEFT))
    assert (whole["threshold_source"], left["threshold_source"]) == ("calibration", "shape")
    assert whole["threshold"] != left["threshold"]
    # Calibrated for that shape, the stored threshold is the same number.
    gateway.fit("calibrated left", [png(image) for image in images], coreset_rate=0.05, seed=3)
    calibrated = gateway.calibrate("calibrated left", shape=LEFT)
    same = gateway.infer("calibrated left", png(steel(300)), shape=json.dumps(LEFT))
    assert (same["threshold_source"], same["threshold"]) == ("calibration", calibrated["threshold"])
    assert same["threshold"] == pytest.approx(left["threshold"])


def test_a_shape_of_a_calibration_that_covers_nothing_is_refused(gateway, roi):
    fields = {"role_id": "steel", "roi_id": roi, "mm_per_px": 0.2, "shape": {"kind": "circle", "cx": 900, "r": 3}}
    refused = gateway.client.post("/calibrate_ng", json=fields)
    assert refused.status_code == 422
    assert refused.json()["error"]["message"].startswith("shape: ")


def test_a_request_with_another_percentile_than_the_threshold_is_not_judged(gateway, roi):
    answer = gateway.infer(roi, png(steel(301)), p_score=95)
    assert (answer["verdict"], answer["verdict_reason"]) == ("uncalibrated", "p_score")
    assert (answer["threshold"], answer["threshold_source"], answer["regions"]) == (None, None, [])
    assert gateway.infer(roi, png(steel(301)), p_score=99)["verdict"] in ("ok", "ng")


def test_swapped_scores_cause_a_warning(gateway, images):
    gateway.fit("swapped", [png(image) for image in images[:3]])
    answer = gateway.calibrate("swapped", ok_scores=[0.9, 0.95], ng_scores=[0.2])
    assert answer["separable"] is False
    assert any("probably swapped" in warning for warning in answer["warnings"])
