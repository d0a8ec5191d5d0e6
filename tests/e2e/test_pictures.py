"""Pictures from the camera as they come, through the socket."""

import cv2
import numpy as np
import pytest

from tests.e2e.synthetic_images import png, steel


@pytest.fixture(scope="module")
def roi(gateway):
    gateway.fit("pictures", [png(steel(seed)) for seed in range(3)])
    gateway.calibrate("pictures", ok_scores=[1.9])
    return "pictures"


def test_a_black_picture_is_never_ok(gateway, roi):
    answer = gateway.infer(roi, png(np.zeros((240, 300), np.uint8)))
    assert (answer["verdict"], answer["verdict_reason"], answer["regions"]) == ("ng", "no_picture", [])
    assert 0 <= answer["score"] <= 2
    assert any(warning.startswith("no picture: every pixel has the value 0") for warning in answer["warnings"])


def test_the_depth_of_the_camera_may_be_stated(gateway, roi):
    grey = steel(7)
    in_16_bits = cv2.imencode(".png", np.rint(grey / 255 * 4095).astype(np.uint16))[1].tobytes()
    plain = gateway.infer(roi, png(grey))
    stated = gateway.infer(roi, in_16_bits, bit_depth=12)
    assert (stated["score"], stated["params"]["bit_depth"]) == (plain["score"], 12)
    assert any("send bit_depth=12" in warning for warning in gateway.infer(roi, in_16_bits)["warnings"])
