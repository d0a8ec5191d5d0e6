"""Thresholds for the pixels that a request inspects, where the OK images were scored within other pixels.

A threshold belongs to the pixels that its OK scores were made of. The leave-one-out maps of the OK images are stored,
so that the OK scores within any shape can be computed.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gateway.calibration.calibrate import pixel_threshold_of
from gateway.calibration.ok_scores import ok_scores, ok_statistics
from gateway.calibration.peak_rule import choose_by_peak
from gateway.calibration.request import CalibrationRequest
from gateway.calibration.review_band import review_threshold
from gateway.calibration.threshold import choose_threshold
from gateway.store.manifest import Calibration
from gateway.store.ok_maps import Frame, OkMaps
from postprocess.regions import smallest_area_px
from postprocess.roi_mask import Shape, parse_shape

ThresholdSource = Literal["calibration", "shape", "parameters"]
"""Source of a threshold: the stored calibration, or its rule over the OK maps, within the shape of the request or with
its blur and smallest area."""

_Pixels = tuple[Shape, tuple[int, int]] | None
"""What two images have in common that are inspected within the same pixels of the part: see `_pixels`."""
_SAME_SIZE = 1.1
"""Ratio up to which the side of an image counts as within the sides of the OK images."""
_KEPT = 64
"""Shapes whose thresholds are kept for a version."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The thresholds that apply to an image."""

    score: float
    pixels: float
    """Threshold of regions."""
    source: ThresholdSource
    warning: str | None = None
    review: float | None = None
    """Lower end of the review band; None without one."""


class ShapeThresholds:
    """The thresholds of one version for every shape. Several threads may ask at once."""

    def __init__(self, ok_maps: OkMaps | None, frames: Sequence[Frame]) -> None:
        """Keep what thresholds are computed from.

        Args:
            ok_maps: leave-one-out maps of the version, or None if it has none.
            frames: frames of its OK images.
        """
        self._ok_maps = ok_maps
        self._learned = {_pixels(frame.shape, frame.size_wh) for frame in frames}
        self._sizes = {frame.size_wh for frame in frames}
        self._found: OrderedDict[tuple[Calibration, Shape | None, tuple[int, int], float, int], Thresholds]
        self._found = OrderedDict()
        self._lock = threading.Lock()

    @property
    def n_bytes(self) -> int:
        """Memory that the maps take, in bytes."""
        return 0 if self._ok_maps is None else self._ok_maps.distances.nbytes

    def of(
        self,
        calibration: Calibration,
        shape: Shape | None,
        size_wh: tuple[int, int],
        blur_sigma: float,
        min_area_px: int,
    ) -> Thresholds | None:
        """Return the thresholds for an image. Blocks: the first request with a shape takes about 3 ms per OK image.

        The stored thresholds apply where their OK scores were made within the same pixels. Otherwise, the rule of the
        calibration chooses thresholds from the OK maps within the shape, with the NG scores of the calibration.
        A threshold of the peak also belongs to one blur, one smallest area in pixels, and images about as large as the
        OK images.

        A client does not have to say within which shape it measured the scores that it sends to `/calibrate_ng`. Such
        OK scores are taken as measured the way the client inspects, and a warning says so where the shape is not that
        of the OK images. Scores that were sent with a shape count for that shape only.

        Args:
            calibration: the calibration of the version.
            shape: shape of the request, or None for the whole image.
            size_wh: `(W, H)` of the image as sent.
            blur_sigma: sigma of the blur, in pixels.
            min_area_px: smallest region that counts, in pixels.

        Returns:
            The thresholds, or None where the scores were made within other pixels and the version has no OK maps.
        """
        wanted = _pixels(shape, size_wh)
        score_applies = self._score_applies(calibration, shape, wanted)
        same_pixels = self._frames_of(calibration) == {wanted}
        pixels_apply = same_pixels or calibration.pixel_threshold_source in ("score", "given")
        if calibration.pixel_threshold_source == "peak" and pixels_apply:
            own_area_px = smallest_area_px(calibration.area_mm2_thr, calibration.mm_per_px)
            same_map = blur_sigma == calibration.blur_sigma and (shape is not None or self._is_usual(size_wh))
            pixels_apply = same_map and min_area_px == own_area_px
        if score_applies and (pixels_apply or self._ok_maps is None):
            doubt = self._doubt(calibration, wanted)
            review = calibration.review_threshold
            return Thresholds(calibration.threshold, calibration.pixel_threshold, "calibration", doubt, review)
        if self._ok_maps is None:
            return None
        key = (calibration, shape, size_wh, blur_sigma, min_area_px)
        with self._lock:
            found = self._found.get(key)
            if found is None:
                found = self._computed(
                    calibration,
                    shape,
                    size_wh,
                    blur_sigma,
                    min_area_px,
                    keep_score=score_applies,
                    source="parameters" if same_pixels else "shape",
                )
                self._found[key] = found
                if len(self._found) > _KEPT:
                    self._found.popitem(last=False)
            self._found.move_to_end(key)
        return found

    def _is_usual(self, size_wh: tuple[int, int]) -> bool:
        """Return whether an image is about as large as the OK images: its peaks compare with theirs.

        A region is counted in pixels, and the map of an image that is sent larger is smoother.
        """
        return all(
            min(sides) / _SAME_SIZE <= side <= max(sides) * _SAME_SIZE
            for side, sides in zip(size_wh, zip(*self._sizes, strict=True), strict=True)
        )

    def _frames_of(self, calibration: Calibration) -> set[_Pixels]:
        """Return the pixels that the OK maps were scored within for a calibration."""
        if calibration.shape is None:
            return self._learned
        said = parse_shape(calibration.shape)[0]
        return {_pixels(said, size_wh) for size_wh in self._sizes}

    def _score_applies(self, calibration: Calibration, shape: Shape | None, wanted: _Pixels) -> bool:
        if calibration.ok_source != "given":
            return self._frames_of(calibration) == {wanted}
        return calibration.shape is None or parse_shape(calibration.shape)[0] == shape

    def _doubt(self, calibration: Calibration, wanted: _Pixels) -> str | None:
        if calibration.ok_source != "given" or calibration.shape is not None or self._learned == {wanted}:
            return None
        return (
            "shape: not that of the OK images, and the threshold rests on ok_scores that were sent without a shape: it "
            "holds if they were measured within this shape; send the shape to /calibrate_ng to make sure"
        )

    def _computed(
        self,
        calibration: Calibration,
        shape: Shape | None,
        size_wh: tuple[int, int],
        blur_sigma: float,
        min_area_px: int,
        *,
        keep_score: bool,
        source: ThresholdSource,
    ) -> Thresholds:
        assert self._ok_maps is not None
        maps = self._ok_maps.within(shape, size_wh)
        # NG scores that were sent with a shape were measured within other pixels.
        ng_scores = calibration.ng_scores if calibration.shape is None else ()
        score = calibration.threshold
        doubt = self._doubt(calibration, _pixels(shape, size_wh)) if keep_score else None
        if calibration.pixel_threshold_source == "peak" and calibration.false_alarm_rate is not None:
            statistics = ok_statistics(maps, calibration.score_percentile, blur_sigma, min_area_px)
            by_peak = choose_by_peak(
                *statistics,
                margin=calibration.margin,
                false_alarm_rate=calibration.false_alarm_rate,
                ng_scores=ng_scores,
            )
            if not (keep_score and calibration.ok_source == "given"):
                score = by_peak.threshold
            review = (
                None if calibration.review_rate is None else review_threshold(statistics[1], calibration.review_rate)
            )
            return Thresholds(score, by_peak.peak_threshold, source, doubt, review)
        if not keep_score:
            scores = ok_scores(maps, calibration.score_percentile)
            is_given = calibration.method == "given"
            chosen = choose_threshold(
                scores, () if is_given else ng_scores, calibration.margin, calibration.false_alarm_rate
            )
            score = max(chosen.threshold, calibration.pixel_threshold) if is_given else chosen.threshold
        wish = calibration.pixel_threshold_source
        request = CalibrationRequest(
            mm_per_px=calibration.mm_per_px,
            false_alarm_rate=calibration.false_alarm_rate,
            pixel_threshold=calibration.pixel_threshold if wish == "given" else wish,
        )
        pixels = pixel_threshold_of(maps, request, calibration.margin, blur_sigma, score)
        return Thresholds(score, pixels, source, doubt, calibration.review_threshold)


def _pixels(shape: Shape | None, size_wh: tuple[int, int]) -> _Pixels:
    """Return what two images must have in common to be inspected within the same pixels of the part.

    The whole image is the whole part, whatever its size. A shape is in pixels, so that the size matters.
    """
    return None if shape is None else (shape, size_wh)
