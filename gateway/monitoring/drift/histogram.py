"""Histograms: of the two score samples that drift compares, and of the OK peaks that a calibration was made from."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.monitoring.drift.recent import Recent
from gateway.store.manifest import Manifest

_BINS = 20


@dataclass(frozen=True, slots=True)
class Histogram:
    """Score counts of both samples in the same bins."""

    edges: NDArray[np.float64]
    """Bin edges [n + 1]."""
    ok_images: NDArray[np.int64]
    """Counts [n] of the fit's leave-one-out scores."""
    recent: NDArray[np.int64]
    """Counts [n] of the comparable scores of recent inspections."""


def histogram(recent: Recent, manifest: Manifest) -> Histogram:
    """Count the leave-one-out scores of a version and the comparable scores of its recent inspections."""
    scores = recent.score[recent.comparable]
    both = np.concatenate([manifest.ok_scores, scores])
    edges = np.histogram_bin_edges(both, _BINS) if len(both) else np.linspace(0, 1, _BINS + 1)
    return Histogram(edges, np.histogram(manifest.ok_scores, edges)[0], np.histogram(scores, edges)[0])


@dataclass(frozen=True, slots=True)
class PeakHistogram:
    """Counts of the peaks of OK images."""

    edges: NDArray[np.float64]
    """Bin edges [n + 1]."""
    ok_images: NDArray[np.int64]
    """Counts [n]."""


def peak_histogram(peaks: Sequence[float]) -> PeakHistogram:
    """Count the peaks of the OK maps of a calibration, at least one.

    >>> peak_histogram([0.0, 1.0, 1.0]).ok_images.tolist()[::19]
    [1, 2]
    """
    counts, edges = np.histogram(peaks, _BINS)
    return PeakHistogram(edges, counts)
