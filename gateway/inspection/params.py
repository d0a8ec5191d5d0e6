"""The parameters of an inspection: from the request, else from the calibration, else from the settings."""

from dataclasses import dataclass

from gateway.inspection.request import PreparedRequest
from gateway.settings import Settings


@dataclass(frozen=True, slots=True)
class InferParams:
    """The parameters that an answer was computed with."""

    extractor: str
    coreset_rate: float
    k: int
    p_score: float
    blur_sigma: float
    area_mm2_thr: float
    mm_per_px: float
    bit_depth: int | None
    """Bits a sample of the camera that files of more than 8 bits were scaled by; None for those of the file."""


def params_of(prepared: PreparedRequest, k: int, settings: Settings) -> InferParams:
    """Return the parameters of a request.

    Args:
        prepared: the request.
        k: neighbours that the detector averages.
        settings: the defaults.
    """
    request, calibration = prepared.request, prepared.roi.calibration
    return InferParams(
        extractor=prepared.model.extractor,
        coreset_rate=prepared.roi.loaded.manifest.coreset_rate,
        k=k,
        p_score=_first_given(
            request.p_score, None if calibration is None else calibration.score_percentile, settings.p_score
        ),
        blur_sigma=_first_given(
            request.blur_sigma, None if calibration is None else calibration.blur_sigma, settings.blur_sigma
        ),
        area_mm2_thr=_first_given(
            request.area_mm2_thr, None if calibration is None else calibration.area_mm2_thr, settings.area_mm2_thr
        ),
        mm_per_px=request.mm_per_px,
        bit_depth=prepared.roi.loaded.manifest.bit_depth if request.bit_depth is None else request.bit_depth,
    )


def is_scored_otherwise(prepared: PreparedRequest, params: InferParams) -> bool:
    """Return whether the score cannot be compared with the leave-one-out scores of the OK images.

    They were made with another `k`, another percentile, another bit depth, or with a shape where the request has none,
    or the reverse. An image that shows nothing cannot be compared either.
    """
    loaded, has_shape = prepared.roi.loaded, prepared.request.shape is not None
    return (
        prepared.image.nothing_shown is not None
        or params.bit_depth != loaded.manifest.bit_depth
        or params.k != loaded.detector.neighbours(None)[0]
        or params.p_score != loaded.manifest.p_score
        or not any((image.shape is not None) == has_shape for image in loaded.manifest.images)
    )


def _first_given(*values: float | None) -> float:
    return next(value for value in values if value is not None)
