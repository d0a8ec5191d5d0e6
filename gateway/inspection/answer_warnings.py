"""The warnings of an answer: what the client should know about how a score came about."""

import hashlib

from gateway.inspection.params import InferParams
from gateway.inspection.request import InferRequest, PreparedRequest
from gateway.inspection.version_cache import FittedRoi

WEIGHTS_STALE = (
    "the manual box or the spatial weights changed since the fit: fit again (a student: publish again), then calibrate"
)
_SAME_SCALE = 0.01
"""Relative difference of mm_per_px up to which two values count as equal."""


def warnings_of(prepared: PreparedRequest, params: InferParams) -> list[str]:
    """Return the warnings for an image, apart from those of its regions."""
    request, roi = prepared.request, prepared.roi
    found = []
    if prepared.model.has_random_weights:
        found.append("the model has random weights: scores mean nothing")
    found += _damage(roi)
    found += _differences(request, roi, params)
    digests = (hashlib.sha256(request.image).hexdigest(), prepared.image.pixels_sha256)
    if any(roi.loaded.detector.has_learned(digest) for digest in digests):
        found.append("this image is one of the learned OK images: its score is lower than that of an unseen image")
    return found


def _damage(roi: FittedRoi) -> list[str]:
    found = []
    if roi.loaded.damaged:
        version = roi.loaded.manifest.version
        found.append(f"the version in use is damaged ({'; '.join(roi.loaded.damaged)}): version {version} answers")
    if roi.calibration_damaged:
        found.append(f"the calibration is damaged ({roi.calibration_damaged}): its copy answers")
    if roi.storage_problem:
        found.append(f"{roi.storage_problem.what}: the version answers that was in use before")
    return found


def _differences(request: InferRequest, roi: FittedRoi, params: InferParams) -> list[str]:
    """Return where a request differs from the fit or from the calibration."""
    manifest, calibration = roi.loaded.manifest, roi.calibration
    found = []
    if abs(request.mm_per_px - manifest.mm_per_px) > _SAME_SCALE * manifest.mm_per_px:
        found.append(f"mm_per_px: {request.mm_per_px:g} here, {manifest.mm_per_px:g} at the fit")
    if calibration is None:
        return found
    if calibration.is_stale(manifest):
        found.append(
            f"the threshold was calibrated for version {calibration.version}, "
            f"version {manifest.version} answers: calibrate again"
        )
    if calibration.pixel_threshold_source == "ok_pixels" and params.blur_sigma != calibration.blur_sigma:
        found.append(f"blur_sigma: {params.blur_sigma:g} here, {calibration.blur_sigma:g} at the calibration")
    return found
