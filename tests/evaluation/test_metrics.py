"""Measures against values worked out by hand, and AUPRO against a count over every threshold."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.ndimage import label

from evaluation.metrics import area_under_pro, image_metrics, pixel_metrics, rate


def test_scores_that_separate_are_perfect():
    found = image_metrics([0.1, 0.2, 0.8, 0.9], [False, False, True, True])
    assert (found.auroc, found.ap, found.f1_max, found.f1_threshold) == (1.0, 1.0, 1.0, 0.8)


def test_one_pair_in_four_the_wrong_way_round():
    found = image_metrics([0.1, 0.6, 0.5, 0.9], [False, False, True, True])
    assert found.auroc == 0.75
    assert found.ap == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert found.f1_max == pytest.approx(0.8)
    assert found.f1_threshold == 0.5


def test_rate_with_its_interval():
    found = rate([True, False, False, False])
    assert (found.count, found.n, found.share) == (1, 4, 0.25)
    assert found.low == pytest.approx(0.0063, abs=1e-4)
    assert found.high == pytest.approx(0.8059, abs=1e-4)
    assert rate([False] * 48).high == pytest.approx(1 - 0.025 ** (1 / 48))


def brute_force_aupro(maps, truths, limit):
    """The definition of Bergmann et al., read literally: every threshold, every region, one point each."""
    regions = []
    for index, truth in enumerate(truths):
        labels, n = label(truth, structure=np.ones((3, 3)))
        regions += [(index, labels == i + 1) for i in range(n)]
    levels = sorted({float(v) for m in maps for v in m.ravel()}, reverse=True)
    points = [(0.0, 0.0)]
    n_good = sum(int((~t).sum()) for t in truths)
    for level in levels:
        fpr = sum(int(((m >= level) & ~t).sum()) for m, t in zip(maps, truths, strict=True)) / n_good
        pro = np.mean([(maps[i][region] >= level).mean() for i, region in regions])
        points.append((fpr, float(pro)))
    area = 0.0
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 >= limit:
            break
        if x1 > limit:
            y1 = y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
            x1 = limit
        area += (x1 - x0) * (y0 + y1) / 2
    return area / limit


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("levels", [5, 40, 100_000])
def test_aupro_is_the_count_over_every_threshold(seed, levels):
    rng = np.random.default_rng(seed)
    shapes = [(9, 7), (6, 12), (8, 8)]
    truths = [rng.random(shape) < 0.2 for shape in shapes[:2]] + [np.zeros(shapes[2], bool)]
    maps = [(rng.integers(0, levels, t.shape) / levels + 0.4 * t).astype(np.float32) for t in truths]
    for limit in (0.05, 0.3, 1.0):
        found, n = area_under_pro(maps, truths, limit)
        assert found == pytest.approx(brute_force_aupro(maps, truths, limit), abs=1e-9)
        assert n == sum(label(t, structure=np.ones((3, 3)))[1] for t in truths)


def test_each_region_counts_the_same_however_large():
    truth = np.zeros((1, 20), bool)
    truth[0, 0] = truth[0, 5:15] = True
    found_small = np.zeros((1, 20), np.float32)
    found_small[0, 0] = 1
    # Half of the regions at once; then all pixels of one value, a straight line to (1, 1).
    assert area_under_pro([found_small], [truth])[0] == pytest.approx(0.5 + 0.5 * 0.3 / 2)


def test_pixels_touching_by_a_corner_are_one_region():
    truth = np.eye(3, dtype=bool)
    assert area_under_pro([truth.astype(np.float32)], [truth]) == (1.0, 1)


def test_a_perfect_map_is_perfect_and_a_flat_one_is_chance():
    truth = np.zeros((10, 10), bool)
    truth[2:5, 3:6] = True
    good = np.zeros((10, 10), bool)
    perfect = pixel_metrics([truth.astype(np.float32), good.astype(np.float32)], [truth, good])
    assert (perfect.auroc, perfect.aupro, perfect.n_regions) == (1.0, 1.0, 1)
    flat = pixel_metrics([np.ones((10, 10), np.float32)], [truth])
    assert (flat.auroc, flat.aupro) == (0.5, pytest.approx(0.15))


@pytest.mark.parametrize("truth", [np.zeros((2, 2), bool), np.ones((2, 2), bool)])
def test_aupro_of_nothing_is_refused(truth):
    with pytest.raises(ValueError, match="AUPRO"):
        area_under_pro([np.zeros((2, 2), np.float32)], [truth])
