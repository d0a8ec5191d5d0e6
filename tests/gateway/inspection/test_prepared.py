"""What an inspection finds out before its network runs: the ROI, its model, the image."""

from pathlib import Path

import pytest

from gateway.errors import ModelMismatchError, UnknownRoiError, UnsupportedImageError
from tests.gateway.brightness_engine import BrightnessEngine, image
from tests.gateway.fit_bench import EVEN, KEY, Bench

UNSEEN = image(65)


@pytest.mark.parametrize("is_loaded", [False, True])
def test_errors_come_in_one_order_those_of_the_roi_of_its_model_and_of_the_image(
    tmp_path: Path, is_loaded: bool
) -> None:
    Bench(tmp_path / "models").fit(EVEN)

    def served_with(fingerprint: str) -> Bench:
        bench = Bench(tmp_path / "models")
        if is_loaded:
            bench.infer(UNSEEN)
        bench.engine.model = BrightnessEngine(fingerprint).model
        return bench

    with pytest.raises(UnsupportedImageError):
        served_with("brightness").infer(b"no image")
    bench = served_with("another")
    with pytest.raises(ModelMismatchError):
        bench.infer(b"no image")
    bench.store.delete(KEY)
    with pytest.raises(UnknownRoiError):
        bench.infer(b"no image")


def test_a_version_that_is_loaded_answers_until_another_gateway_fits_or_calibrates(tmp_path: Path) -> None:
    bench, another = Bench(tmp_path / "models"), Bench(tmp_path / "models")
    bench.fit(EVEN[:4])
    assert [(a.version, a.threshold) for a in (bench.infer(UNSEEN), bench.infer(UNSEEN))] == [(1, None)] * 2
    another.calibrate(ok_scores=[0.25])
    assert bench.infer(UNSEEN).threshold == 0.25
    another.fit(EVEN[4:6])
    assert bench.infer(UNSEEN).version == 2
