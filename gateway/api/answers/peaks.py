"""Answer bodies about peaks, and about two versions."""

from dataclasses import asdict
from typing import Any

from gateway.calibration.false_alarms import by_rejected, misses
from gateway.calibration.request import Parameters
from gateway.learning.image_peaks import Comparison, Judged, JudgedVersion, VersionPeaks
from gateway.store.labelled_images import ImageRecord
from gateway.store.manifest import Manifest


def peaks_body(manifest: Manifest, found: VersionPeaks, parameters: Parameters, mm_per_px: float) -> dict[str, Any]:
    """Return the answer of `GET …/peaks`, as `ImagePeaksAnswer` describes it."""
    floor = found.score_floor(parameters.margin)
    n_ok = sum(image.label == "ok" for image in found.images)
    n_ng = len(found.images) - n_ok
    return {
        **asdict(manifest.key),
        "version": manifest.version,
        "mm_per_px": mm_per_px,
        "area_mm2_thr": parameters.area_mm2_thr,
        "score_percentile": parameters.percentile,
        "blur_sigma": parameters.blur_sigma,
        "score_floor": floor,
        "images": [{**asdict(image), "level": image.level(floor)} for image in found.images],
        "false_alarms": [asdict(rate) for rate in by_rejected(n_ok)],
        "misses": [asdict(rate) for rate in misses(n_ng)] if n_ng else [],
        "warnings": list(found.warnings),
    }


def comparison_body(found: Comparison) -> dict[str, Any]:
    """Return the answer of `GET …/comparison` without its ids, as `ComparisonAnswer` describes it."""
    n_ok = sum(record.label == "ok" for record in found.records)
    return {
        "before": _version_body(found.before, found.records),
        "after": _version_body(found.after, found.records),
        "n_ok": n_ok,
        "n_ng": len(found.records) - n_ok,
        "changed": [
            {
                "id": each.record.id,
                "label": each.record.label,
                "file_name": each.record.file_name,
                "before": _verdict_body(each.before),
                "after": _verdict_body(each.after),
            }
            for each in found.changed
        ],
        "warnings": list(dict.fromkeys((*found.before.warnings, *found.after.warnings))),
    }


def _version_body(found: JudgedVersion, records: list[ImageRecord]) -> dict[str, Any]:
    verdicts = [(record.label, found.images[record.id].verdict) for record in records]
    calibration = found.calibration
    return {
        "version": found.version,
        "threshold": None if calibration is None else calibration.threshold,
        "peak_threshold": None if calibration is None else calibration.pixel_threshold,
        "n_ok_rejected": verdicts.count(("ok", "ng")),
        "n_ng_passed": verdicts.count(("ng", "ok")) + verdicts.count(("ng", "review")),
    }


def _verdict_body(judged: Judged) -> dict[str, Any]:
    image = judged.image
    return {"verdict": judged.verdict, "score": image.score, "peak": image.peak, "learned": image.learned}
