"""Errors of the dialect. The GUI starts a flow of its own on some of them, by their status and their text."""

from gateway.errors import GatewayError
from gateway.store.roi_key import RoiKey


class NotFittedError(GatewayError):
    """The ROI has no memory bank. The GUI fits from the data set, and asks again."""

    status = 400
    code = "not_fitted"
    default_hint = "POST /fit_ok with OK images, or with use_dataset=true."

    def __init__(self, key: RoiKey) -> None:
        super().__init__(f"memory not found: {key} is not fitted; run /fit_ok first")


class CalibrationMissingError(GatewayError):
    """The ROI has no threshold that applies, so there is no decision."""

    status = 400
    code = "calibration_missing"
    default_hint = "POST /calibrate_dataset."

    def __init__(self, key: RoiKey, why: str = "it is not calibrated") -> None:
        super().__init__(f"calibration_missing: {key}: {why}")


class ReservedRecipeError(GatewayError):
    """The recipe has a name that the dialect reserves."""

    status = 400
    code = "reserved_recipe"
    default_hint = "Name the recipe."


class TooFewImagesError(GatewayError):
    """The data set has too few images for what was asked."""

    status = 400
    code = "too_few_images"
    default_hint = "Upload more images, and ask again."


class OtherScaleError(GatewayError):
    """The recipe has another scale already."""

    status = 409
    code = "other_mm_per_px"
