"""Answer body of an inspection."""

import base64
from dataclasses import asdict
from typing import Any

from gateway.inspection.answer import Inspection
from gateway.inspection.explanation import Crop, Explanation


def _explanation_body(explanation: Explanation) -> dict[str, Any]:
    image = explanation.ok_image
    return {
        "distance": explanation.distance,
        "patch": {"box": explanation.box, "crop": _crop_body(explanation.crop)},
        "ok_patch": {
            "sha256": image.sha256,
            "file_name": image.file_name,
            "box": explanation.ok_box,
            "crop": None if explanation.ok_crop is None else _crop_body(explanation.ok_crop),
        },
    }


def _crop_body(crop: Crop) -> dict[str, Any]:
    return {"box": crop.box, "png_base64": base64.b64encode(crop.png).decode()}


def inspection_body(result: Inspection) -> dict[str, Any]:
    """Return the answer of `POST /infer`, as `InferAnswer` describes it."""
    png = result.heatmap_png
    return {
        **asdict(result.key),
        "score": result.score,
        "threshold": result.threshold,
        "peak": result.peak,
        "peak_threshold": result.peak_threshold,
        "pixel_threshold": result.peak_threshold,
        "review_threshold": result.review_threshold,
        "threshold_source": result.threshold_source,
        "verdict": result.verdict,
        "verdict_reason": result.verdict_reason,
        "calibration_stale": result.calibration_stale,
        "weights_stale": result.weights_stale,
        "degraded": result.degraded,
        "heatmap_png_base64": None if png is None else base64.b64encode(png).decode(),
        "heatmap_path": result.heatmap_path,
        "heatmap_max": result.heatmap_max,
        "regions": [
            {"bbox": r.bbox, "area_px": r.area_px, "area_mm2": r.area_mm2, "contour": r.contour} for r in result.regions
        ],
        "token_shape": result.token_hw,
        "image_size": result.image_size,
        "params": asdict(result.params),
        "version": result.version,
        "explanation": None if result.explanation is None else _explanation_body(result.explanation),
        "warnings": result.warnings,
    }
