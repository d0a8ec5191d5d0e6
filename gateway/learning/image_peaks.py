"""Peak and score of every image of an ROI in one version: for a histogram, and to compare versions."""

import math
from dataclasses import dataclass

import numpy as np

from gateway.calibration.ok_scores import ok_statistics
from gateway.calibration.request import Parameters
from gateway.calibration.stored_evidence import finite, with_shape
from gateway.errors import InvalidRequestError, UnknownVersionError
from gateway.images.masks import mask_of
from gateway.learning.stored_images import StoredImages
from gateway.learning.stored_scores import StoredScorer
from gateway.settings import Settings
from gateway.store.artifact_store import ArtifactStore
from gateway.store.labelled_images import ImageRecord, Label
from gateway.store.manifest import Calibration, Manifest
from gateway.store.ok_maps import OkMaps
from gateway.store.roi_key import RoiKey
from postprocess.peak import reaches
from postprocess.regions import smallest_area_px
from postprocess.roi_mask import Shape, parse_shape
from postprocess.verdict import Verdict, judge


@dataclass(frozen=True, slots=True)
class ImagePeak:
    """What a version says of an image. A learned image is measured against the bank without it."""

    id: str
    label: Label
    learned: bool
    score: float
    peak: float | None
    """None where no region of the smallest area fits."""

    def level(self, score_floor: float) -> float:
        """Return the highest threshold that rejects the image, where both thresholds lie at one level.

        Args:
            score_floor: the threshold of the score is never below it.
        """
        by_score = self.score if self.score > score_floor else 0.0
        return by_score if self.peak is None else max(self.peak, by_score)


@dataclass(frozen=True, slots=True)
class VersionPeaks:
    """All images that a version can be measured with, learned ones first."""

    images: list[ImagePeak]
    warnings: tuple[str, ...]

    def score_floor(self, margin: float) -> float:
        """Return p99 of the OK scores plus the margin: a threshold of the score that a client moves is never lower."""
        scores = [image.score for image in self.images if image.label == "ok"]
        return float(np.percentile(scores, 99)) + margin if scores else 0.0


@dataclass(frozen=True, slots=True)
class Judged:
    """An image and the verdict of a version."""

    image: ImagePeak
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class JudgedVersion:
    """What a version says of all images that it can be measured with."""

    version: int
    calibration: Calibration | None
    images: dict[str, Judged]
    """By id."""
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Changed:
    """An image that two versions judge differently."""

    record: ImageRecord
    before: Judged
    after: Judged


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two versions on the same images."""

    before: JudgedVersion
    after: JudgedVersion
    records: list[ImageRecord]
    """The images that both versions judge."""
    changed: list[Changed]


class ImagePeaks:
    """Measures the images of ROIs. Call it from a worker thread that anyio started."""

    def __init__(self, store: ArtifactStore, images: StoredImages, scorer: StoredScorer, settings: Settings) -> None:
        self._store = store
        self._images = images
        self._scorer = scorer
        self._settings = settings

    def of(
        self, key: RoiKey, manifest: Manifest, parameters: Parameters, mm_per_px: float, shape: Shape | None
    ) -> VersionPeaks:
        """Measure the learned images of a version and the stored ones that it has not learned. Blocks.

        Args:
            key: the ROI.
            manifest: of the version.
            parameters: percentile, blur and smallest area.
            mm_per_px: side of a pixel in mm.
            shape: where the part is; None for the shape of each image.

        Raises:
            InvalidRequestError: the version has no leave-one-out maps, or the shape covers no pixel of an image.
            ModelMismatchError: the version was made with another model than the engine serves.
            EngineUnavailableError: tokens are missing and cannot be computed.
        """
        maps = self._store.ok_maps(key, manifest)
        if maps is None:
            raise InvalidRequestError(
                f"version {manifest.version} of {key} has no leave-one-out maps, so its images have no peaks",
                "Fit two or more OK images.",
            )
        if shape is not None:
            for size_wh in {image.frame.size_wh for image in manifest.images}:
                mask_of(shape, size_wh)  # refused where it covers no pixel
        min_area_px = smallest_area_px(parameters.area_mm2_thr, mm_per_px)

        def measured(ids: list[str], label: Label, maps: OkMaps, *, learned: bool) -> list[ImagePeak]:
            within = maps if shape is None else with_shape(maps, shape)
            found = ok_statistics(within, parameters.percentile, parameters.blur_sigma, min_area_px)
            return [
                ImagePeak(image_id, label, learned, score, finite(peak))
                for image_id, score, peak in zip(ids, *found, strict=True)
            ]

        ids = [image.pixels_sha256 or image.sha256 for image in manifest.images]
        images = measured(ids, "ok", maps, learned=True)
        evidence = self._scorer.of_version(key, manifest)
        if evidence is not None:
            images += measured(list(evidence.ok_ids), "ok", evidence.ok, learned=False)
            images += measured(list(evidence.ng_ids), "ng", evidence.ng, learned=False)
        return VersionPeaks(images, () if evidence is None else evidence.warnings)

    def judged(self, key: RoiKey, version: int) -> JudgedVersion:
        """Return the verdict of a kept version on each image, by its own calibration. Blocks.

        Raises:
            UnknownRoiError: the ROI was never fitted.
            UnknownVersionError: the version is not kept, or damaged.
            InvalidRequestError, ModelMismatchError, EngineUnavailableError: as in `of`.
        """
        manifests = {each.version: each for each in self._store.manifests(key)}
        if version not in manifests:
            kept = ", ".join(str(number) for number in sorted(manifests)) or "none"
            raise UnknownVersionError(f"version {version} of {key} is not kept; kept versions are {kept}")
        manifest = manifests[version]
        calibration = self._store.calibration(key, manifest).calibration
        shape = None if calibration is None or calibration.shape is None else parse_shape(calibration.shape)[0]
        found = self.of(
            key,
            manifest,
            self._parameters(manifest, calibration),
            manifest.mm_per_px if calibration is None else calibration.mm_per_px,
            shape,
        )
        judged = {image.id: Judged(image, verdict_of(image, calibration)) for image in found.images}
        return JudgedVersion(version, calibration, judged, found.warnings)

    def compared(self, key: RoiKey, before: int, after: int) -> Comparison:
        """Compare two kept versions on the images that the ROI has now and that both can judge. Blocks.

        Raises:
            GatewayError: as in `judged`.
        """
        one, other = self.judged(key, before), self.judged(key, after)
        found = [image.record for image in self._images.all(key).images]
        both = [record for record in found if record.id in one.images and record.id in other.images]
        pairs = [Changed(record, one.images[record.id], other.images[record.id]) for record in both]
        return Comparison(one, other, both, [p for p in pairs if p.before.verdict != p.after.verdict])

    def _parameters(self, manifest: Manifest, calibration: Calibration | None) -> Parameters:
        if calibration is None:
            return Parameters(
                manifest.p_score,
                self._settings.area_mm2_thr,
                self._settings.threshold_margin,
                self._settings.blur_sigma,
            )
        blur = self._settings.blur_sigma if calibration.blur_sigma is None else calibration.blur_sigma
        return Parameters(calibration.score_percentile, calibration.area_mm2_thr, calibration.margin, blur)


def verdict_of(image: ImagePeak, calibration: Calibration | None) -> Verdict:
    """Return the verdict of a calibration on an image."""
    if calibration is None:
        return "uncalibrated"
    peak = -math.inf if image.peak is None else image.peak
    review = calibration.review_threshold
    return judge(
        image.score,
        calibration.threshold,
        int(reaches(peak, calibration.pixel_threshold)),
        in_review_band=review is not None and reaches(peak, review),
    )[0]
