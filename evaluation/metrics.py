"""Measure scores, maps and verdicts, with scikit-learn, except AUPRO, which it does not have.

AUPRO follows Bergmann et al., "The MVTec Anomaly Detection Dataset: A Comprehensive Real-World Dataset for Unsupervised
Anomaly Detection" (IJCV 2021): the mean share of each connected defect region that is found, over the share of false
pixels, integrated up to 30 % and divided by it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label as connected
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from postprocess.binomial import limits

FPR_LIMIT = 0.3
_CONNECTED_BY_EDGE_OR_CORNER = np.ones((3, 3), np.int8)


@dataclass(frozen=True, slots=True)
class ImageMetrics:
    """Metrics of the image scores."""

    auroc: float
    ap: float
    f1_max: float
    f1_threshold: float
    """Threshold of F1-max. It is chosen on the test images, so it must not be used to calibrate."""


@dataclass(frozen=True, slots=True)
class PixelMetrics:
    """Metrics of the anomaly maps against drawn defects."""

    auroc: float
    aupro: float
    """Up to a false positive rate of 30 %."""
    n_regions: int
    left_out: Sequence[str] = ()
    """Number of bad images without a drawn defect. Their pixels do not count."""


@dataclass(frozen=True, slots=True)
class Rate:
    """A share of images with its 95 % confidence interval (Clopper and Pearson)."""

    count: int
    n: int
    low: float
    high: float

    @property
    def share(self) -> float:
        """Count over n."""
        return self.count / self.n


def rate(wrong: Sequence[bool]) -> Rate:
    """Return the share of wrong images.

    Args:
        wrong: of each image, at least one.

    Example:
        >>> rate([True, False, False, False]).share
        0.25
    """
    return Rate(sum(wrong), len(wrong), *limits(sum(wrong), len(wrong), 0.95))


def image_metrics(scores: Sequence[float], is_ng: Sequence[bool]) -> ImageMetrics:
    """Measure how scores tell NG from OK.

    Args:
        scores: of the images.
        is_ng: of the same images; both kinds are there.
    """
    precision, recall, thresholds = precision_recall_curve(is_ng, scores)
    # The last point, with recall 0, has no threshold.
    f1 = 2 * precision[:-1] * recall[:-1] / np.maximum(precision[:-1] + recall[:-1], np.finfo(np.float64).tiny)
    best = int(np.argmax(f1))
    return ImageMetrics(
        auroc=float(roc_auc_score(is_ng, scores)),
        ap=float(average_precision_score(is_ng, scores)),
        f1_max=float(f1[best]),
        f1_threshold=float(thresholds[best]),
    )


def pixel_metrics(
    maps: Sequence[NDArray[np.float32]], truths: Sequence[NDArray[np.bool_]], left_out: Sequence[str] = ()
) -> PixelMetrics:
    """Measure how maps tell defect pixels from others, good images included.

    Args:
        maps: float32 [H, W] each.
        truths: bool [H, W] each, all False for a good image.
        left_out: names of images that are in neither.
    """
    values = np.concatenate([m.ravel() for m in maps])
    defect = np.concatenate([t.ravel() for t in truths])
    aupro, n_regions = area_under_pro(maps, truths)
    return PixelMetrics(float(roc_auc_score(defect, values)), aupro, n_regions, left_out)


def area_under_pro(
    maps: Sequence[NDArray[np.float32]], truths: Sequence[NDArray[np.bool_]], limit: float = FPR_LIMIT
) -> tuple[float, int]:
    """Return the area under the per-region overlap up to a false positive rate, divided by that rate. 1 is perfect.

    Args:
        maps: float32 [H, W] each.
        truths: bool [H, W] each; pixels that touch by edge or corner are one region.
        limit: share of the defect-free pixels of all images.

    Returns:
        The area, and the number of regions.

    Raises:
        ValueError: no defect pixel, or nothing but defect pixels.

    Example:
        >>> area_under_pro([np.array([[0.9, 0.1, 0.2]], np.float32)], [np.array([[True, False, False]])])
        (1.0, 1)
    """
    shares = []
    n_regions = 0
    for truth in truths:
        regions, n = connected(truth, structure=_CONNECTED_BY_EDGE_OR_CORNER)
        sizes = np.bincount(regions.ravel(), minlength=n + 1).astype(np.float64)
        per_pixel = np.divide(1.0, sizes, out=np.zeros_like(sizes), where=sizes > 0)
        per_pixel[0] = 0
        shares.append(per_pixel[regions.ravel()])
        n_regions += n
    share = np.concatenate(shares)
    is_false = share == 0
    n_false = int(is_false.sum())
    if n_regions == 0 or n_false == 0:
        raise ValueError("AUPRO needs pixels with and without a defect")
    values = np.concatenate([m.ravel() for m in maps])
    order = np.argsort(-values, kind="stable")
    values = values[order]
    false_positive = np.cumsum(is_false[order], dtype=np.float64) / n_false
    overlap = np.cumsum(share[order]) / n_regions
    # Pixels of equal value are found together: only the last point of each run is on the curve.
    last = np.append(values[1:] != values[:-1], True)
    fpr = np.concatenate([[0.0], false_positive[last]])
    pro = np.concatenate([[0.0], overlap[last]])
    inside = fpr <= limit
    fpr_inside, pro_inside = fpr[inside], pro[inside]
    if fpr_inside[-1] < limit:
        # The curve is vertical between points of equal rate, and linear elsewhere.
        after = int(inside.sum())
        slope = (pro[after] - pro_inside[-1]) / (fpr[after] - fpr_inside[-1])
        fpr_inside = np.append(fpr_inside, limit)
        pro_inside = np.append(pro_inside, pro_inside[-1] + slope * (limit - fpr_inside[-2]))
    area = float(np.trapezoid(pro_inside, fpr_inside)) / limit
    return min(area, 1.0), n_regions
