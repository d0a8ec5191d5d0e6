"""A memory bank of one split, calibrated and used as in the service, without its files and its network."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.pool import Pool
from gateway.calibration.calibrate import derive
from gateway.calibration.ok_scores import ok_statistics
from gateway.calibration.request import CalibrationRequest
from gateway.calibration.within_shape import ShapeThresholds
from gateway.detectors.memory_bank.bank import patch_distances
from gateway.detectors.memory_bank.search.backend import build_search
from gateway.learning.build import Recipe, learn, manifest_of
from gateway.monitoring.timing import StageTimes
from gateway.settings import Settings
from gateway.store.manifest import Calibration, WeightsRecipe
from gateway.store.ok_maps import Frame, OkMaps
from gateway.store.roi_key import RoiKey
from postprocess.peak import reaches
from postprocess.regions import smallest_area_px
from postprocess.verdict import judge

_KEY = RoiKey("evaluation", "split")


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """Score and peak of images, as `/infer` computes them."""

    sizes: Sequence[tuple[int, int]]
    """`(W, H)` of each image."""
    scores: Sequence[float]
    peaks: Sequence[float]


class Fitted:
    """A memory bank of some OK images, with their leave-one-out maps."""

    def __init__(self, pool: Pool, indices: Sequence[int], settings: Settings, mm_per_px: float) -> None:
        """Learn as a fit does.

        Args:
            pool: the images.
            indices: the OK images to learn, at least two.
            settings: coreset rate, seed, k, percentile, blur, smallest area.
            mm_per_px: of all images.
        """
        model = pool.engine.model
        self._settings = settings
        self._mm_per_px = mm_per_px
        recipe = Recipe(
            settings.coreset_rate,
            settings.seed,
            settings.k,
            settings.p_score,
            WeightsRecipe(),
            bit_depth=None,
            tiling=pool.tiling,
        )
        frames = pool.frames(indices)
        tokens = pool.to_learn(indices)
        learned = learn(tokens, frames, recipe, settings.blur_sigma, StageTimes())
        assert learned.ok_maps is not None
        records = [pool.records[index] for index in indices]
        self._manifest = manifest_of(_KEY, 1, model, recipe, mm_per_px, records, (), learned)
        self._search = build_search(learned.bank.tokens, settings.search)
        self._k = min(settings.k, len(learned.bank))
        self._thresholds = ShapeThresholds(learned.ok_maps, frames)
        self.ok_maps = learned.ok_maps

    def maps(self, tokens: Iterable[NDArray[np.float32]], frames: Sequence[Frame]) -> OkMaps:
        """Return the maps of images to inspect.

        Args:
            tokens: float32 [N, D] of each image.
            frames: of the same images.
        """
        distances = [patch_distances(self._search, own, self._k) for own in tokens]
        return OkMaps(np.stack(distances), self.ok_maps.token_hw, tuple(frames), self.ok_maps.weights)

    def measured(self, maps: OkMaps) -> Measured:
        """Return score and peak of each map."""
        s = self._settings
        area = smallest_area_px(s.area_mm2_thr, self._mm_per_px)
        scores, peaks = ok_statistics(maps, s.p_score, s.blur_sigma, area)
        return Measured([frame.size_wh for frame in maps.frames], scores, peaks)

    def calibrated(self, false_alarm_rate: float, ng: Sequence[tuple[float, float]] = ()) -> Calibration:
        """Return the default calibration at a rate.

        Args:
            false_alarm_rate: α.
            ng: score and peak of the NG images that are shown.
        """
        request = CalibrationRequest(
            mm_per_px=self._mm_per_px,
            false_alarm_rate=false_alarm_rate,
            ng_scores=[score for score, _ in ng],
            ng_peaks=[peak for _, peak in ng],
        )
        return derive(self._manifest, self.ok_maps, self._settings, request)[0]

    def calibrated_by_spec(self) -> Calibration:
        """Return the calibration by p99 of the OK scores and the margin, which also cuts the regions."""
        request = CalibrationRequest(mm_per_px=self._mm_per_px, pixel_threshold="score")
        return derive(self._manifest, self.ok_maps, self._settings, request)[0]

    def rejected(self, calibrations: Sequence[Calibration], measured: Measured) -> NDArray[np.bool_]:
        """Return which images the verdict rejects, bool [C, I], by each of C calibrations."""
        found = np.zeros((len(calibrations), len(measured.scores)), np.bool_)
        for size in dict.fromkeys(measured.sizes):  # size by size: thresholds within one size are computed once
            own = [i for i, each in enumerate(measured.sizes) if each == size]
            for row, calibration in enumerate(calibrations):
                blur_sigma = self._settings.blur_sigma if calibration.blur_sigma is None else calibration.blur_sigma
                area = smallest_area_px(calibration.area_mm2_thr, self._mm_per_px)
                thresholds = self._thresholds.of(calibration, None, size, blur_sigma, area)
                assert thresholds is not None
                for i in own:
                    n_regions = int(reaches(measured.peaks[i], thresholds.pixels))
                    found[row, i] = judge(measured.scores[i], thresholds.score, n_regions)[0] == "ng"
        return found
