"""Tiles over HTTP; and a defect of 1 mm on a plate of 154 mm, which is lost where the plate is shrunk, is found."""

import cv2
import numpy as np
import pytest

from evaluation.samples import MM_PER_PX, plate, scratch
from tests.e2e.synthetic_images import png, steel

SIDE = 1536


@pytest.mark.parametrize(
    ("tiles", "message"),
    [
        ("9", "tiles: 9; the limit is 1"),
        ("0", "expected 'auto' or a whole number from 1 to 64"),
        ("2x2", "expected 'auto' or a whole number from 1 to 64"),
    ],
)
def test_tiles_that_cannot_be_are_refused_by_name(gateway, tiles, message):
    answer = gateway.post("/fit_ok", "tiles-refused", [png(steel(0))], "images", fields={"tiles": tiles})
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert "tiles" in error["message"]
    assert message in error["message"]


def test_the_answers_tell_the_tiles(gateway):
    fitted = gateway.fit("tiles-told", [png(steel(0)), png(steel(1))], tiles="auto")
    assert fitted["tiles"] == [1, 1]
    assert gateway.client.get("/rois/steel/tiles-told").json()["tiles"] == [1, 1]


def test_a_defect_of_1_mm_that_is_lost_in_the_shrunk_image_is_found_with_tiles(launch, real_model_repository, full):
    """Every part is 1536 × 1536 pixels of 0.1 mm. Four tiles are enough here; `--all` takes nine, and more parts."""
    n_learned, n_unseen, tiles = (12, 6, "auto") if full else (4, 1, "4")
    random = np.random.default_rng(5)
    learned = [encoded(plate(random, SIDE)) for _ in range(n_learned)]
    unseen = [plate(random, SIDE) for _ in range(n_unseen)]
    good = [encoded(image) for image in unseen]
    scratched = [scratch(image, 1.0, np.random.default_rng(3 + i))[0] for i, image in enumerate(unseen)]
    bad = [encoded(image) for image in scratched]
    with launch("tiles", model_repository=real_model_repository, max_tiles=9) as gateway:

        def inspected(roi, images):
            return [gateway.infer(roi, image, mm_per_px=MM_PER_PX, heatmap="none") for image in images]

        def verdicts(roi, images):
            return [answer["verdict"] for answer in inspected(roi, images)]

        for roi, asked in (("whole", "1"), ("tiled", tiles)):
            fitted = gateway.fit(roi, learned, mm_per_px=MM_PER_PX, tiles=asked)
            gateway.calibrate(roi, mm_per_px=MM_PER_PX, area_mm2_thr=0.25)
        assert fitted["tiles"] == ([3, 3] if full else [2, 2])
        assert fitted["token_shape"] == ([75, 75] if full else [51, 51])
        assert gateway.client.get("/rois/steel/tiled").json()["tiles"] == fitted["tiles"]
        shrunk = inspected("whole", good + bad)
        assert [answer["verdict"] for answer in shrunk] == ["ok"] * 2 * n_unseen
        # Nothing is seen there: the scratch does not raise the peak of the image, or of one in six.
        peaks = [answer["peak"] for answer in shrunk]
        raised = [after > before + 0.05 for before, after in zip(peaks[:n_unseen], peaks[n_unseen:], strict=True)]
        assert sum(raised) <= n_unseen // 6
        assert verdicts("tiled", good) == ["ok"] * n_unseen
        assert verdicts("tiled", bad) == ["ng"] * n_unseen
        answer = gateway.infer("tiled", bad[0], mm_per_px=MM_PER_PX)
    region = answer["regions"][0]
    x, y, width, height = region["bbox"]
    rows, columns = np.nonzero(unseen[0] != scratched[0])
    assert x <= columns.max()
    assert columns.min() <= x + width
    assert y <= rows.max()
    assert rows.min() <= y + height
    assert max(width, height) < 150


def encoded(image):
    return cv2.imencode(".png", image)[1].tobytes()
