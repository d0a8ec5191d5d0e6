"""The drawn samples have the sizes that they state, and the same seed gives the same files."""

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest

from evaluation.defects import blob, disc, line, paste
from evaluation.samples import DEFECTS, MM_PER_PX, SIDE, write_samples


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("samples")
    assert write_samples(folder) == 40 + 12 + 20
    return folder


def test_the_same_seed_gives_the_same_files_and_another_seed_others(samples, tmp_path):
    write_samples(tmp_path / "again")
    write_samples(tmp_path / "other", seed=1)
    files = sorted(path.relative_to(samples) for path in samples.rglob("*.*"))
    assert len(files) == 72 + 20 + 1
    for file in files:
        assert (samples / file).read_bytes() == (tmp_path / "again" / file).read_bytes(), file
    images = [file for file in files if file.parts[0] in ("train", "test")]
    assert all((samples / file).read_bytes() != (tmp_path / "other" / file).read_bytes() for file in images)


def test_no_two_samples_are_the_same(samples):
    contents = [path.read_bytes() for part in ("train", "test") for path in (samples / part).rglob("*.png")]
    assert len(set(contents)) == len(contents) == 72


def test_each_defect_has_a_mask_of_the_stated_size(samples):
    with (samples / "defects.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["defect"] for row in rows] == [kind for kind in DEFECTS for _ in range(4)]
    for row in rows:
        image = cv2.imread(str(samples / row["file"]), cv2.IMREAD_UNCHANGED)
        assert (image.shape, image.dtype) == ((SIDE, SIDE), np.uint8)
        _, kind, name = Path(row["file"]).parts
        mask = cv2.imread(str(samples / "ground_truth" / kind / name.replace(".", "_mask.")), cv2.IMREAD_UNCHANGED)
        assert (mask > 0).sum() * MM_PER_PX**2 == pytest.approx(float(row["area_mm2"]), abs=0.005)
        y, x = np.nonzero(mask)
        extent = max(np.ptp(x), np.ptp(y)) * MM_PER_PX
        # A line at an angle is shorter along the axes, a blob has bumps, and a crack is as long as its ends are apart.
        assert 0.6 * float(row["size_mm"]) < extent < 1.5 * float(row["size_mm"]), row


def test_coverages_have_the_area_of_their_shape():
    assert disc((40, 40), (20, 20), 10).sum() == pytest.approx(np.pi * 25, rel=0.02)
    assert disc((40, 40), (20.5, 20.5), 0.5).sum() == pytest.approx(np.pi / 16, rel=0.3)
    assert line((40, 20), np.array([[10.0, 10.0], [30.0, 10.0]]), 2).sum() == pytest.approx(40 + np.pi, rel=0.02)
    assert blob((60, 60), (30, 30), 20, np.random.default_rng(0)).sum() == pytest.approx(np.pi * 100, rel=0.3)


def test_a_shape_over_the_edge_is_cut_and_one_outside_covers_nothing():
    assert disc((10, 10), (0, 5), 4).sum() == pytest.approx(2 * np.pi, rel=0.05)
    assert disc((10, 10), (-20, 5), 4).sum() == 0


def test_paste_changes_brightness_by_the_coverage():
    image = np.full((1, 3), 100, np.uint8)
    assert paste(image, np.array([[0, 0.5, 1]], np.float32), -0.5).tolist() == [[100, 75, 50]]
    assert paste(image, np.array([[0, 1, 1]], np.float32), 9.0).tolist() == [[100, 255, 255]]
