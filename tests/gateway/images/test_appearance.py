import numpy as np
import pytest

from gateway.images.appearance import Look, look


def test_light_changes_the_brightness_and_not_the_sharpness() -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    image[:, ::2] = 100
    assert look(image) == Look(50.0, pytest.approx(np.sqrt(7 * 8 * 100**2 / 64) / 50))
    assert look(image * 2).sharpness == look(image).sharpness
    assert look(image * 2).brightness == 100.0
