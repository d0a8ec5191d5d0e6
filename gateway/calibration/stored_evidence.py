"""What the stored images of an ROI tell a calibration: maps of images that the version has not learned."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from gateway.calibration.ok_scores import ok_statistics
from gateway.store.manifest import Manifest, StoredScore
from gateway.store.ok_maps import Frame, OkMaps
from postprocess.roi_mask import Shape


@dataclass(frozen=True, slots=True, eq=False)
class StoredEvidence:
    """Maps of the stored images that a version has not learned, made with its bank."""

    ok: OkMaps
    """Of OK images: unseen ones, so their maps count beside the leave-one-out maps."""
    ok_ids: tuple[str, ...]
    ng: OkMaps
    ng_ids: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    """Which stored images do not count, and why."""

    def within(self, shape: Shape) -> "StoredEvidence":
        """Return the same images with another shape of the part."""
        return replace(self, ok=with_shape(self.ok, shape), ng=with_shape(self.ng, shape))

    def scores(self, percentile: float, blur_sigma: float, min_area_px: int) -> tuple[StoredScore, ...]:
        """Return the score and the peak of each image, as `/infer` computes them; OK images first."""
        found = []
        for label, ids, maps in (("ok", self.ok_ids, self.ok), ("ng", self.ng_ids, self.ng)):
            for image_id, score, peak in zip(
                ids, *ok_statistics(maps, percentile, blur_sigma, min_area_px), strict=True
            ):
                found.append(StoredScore(id=image_id, label=label, score=score, peak=finite(peak)))
        return tuple(found)


EvidenceOf = Callable[[Manifest], StoredEvidence | None]
"""Returns what the stored images tell of a version; None where they cannot be scored. Blocks."""


def joined(maps: OkMaps, more: OkMaps) -> OkMaps:
    """Return the maps of both, in this order."""
    if not len(more.frames):
        return maps
    distances = np.concatenate([maps.distances, more.distances])
    return replace(maps, distances=distances, frames=(*maps.frames, *more.frames))


def with_shape(maps: OkMaps, shape: Shape) -> OkMaps:
    """Return the maps with another shape of the part, each at its own size."""
    return replace(maps, frames=tuple(Frame(frame.size_wh, shape) for frame in maps.frames))


def finite(peak: float) -> float | None:
    """Return a peak for a JSON file: None where no region of the smallest area fits."""
    return peak if math.isfinite(peak) else None
