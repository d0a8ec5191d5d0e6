"""Answer body of a fit."""

from dataclasses import asdict
from typing import Any

from gateway.learning.request import FitResult
from gateway.store.manifest import ScoreSummary


def fit_body(result: FitResult) -> dict[str, Any]:
    """Return the answer of `POST /fit_ok`, as `FitAnswer` describes it."""
    manifest = result.manifest
    summary = ScoreSummary.of(list(manifest.ok_scores))
    return {
        **asdict(manifest.key),
        "n_ok_total": len(manifest.images),
        "n_ok_added": result.n_added,
        "duplicates": result.duplicates,
        "n_embeddings": manifest.n_embeddings,
        "n_tokens_total": manifest.n_tokens_total,
        "coreset_rate": manifest.coreset_rate,
        "coreset_rate_applied": manifest.coreset_rate_applied,
        "covering_radius": manifest.covering_radius,
        "seed": manifest.seed,
        "checksum": manifest.checksum,
        "version": manifest.version,
        "token_shape": manifest.token_hw,
        "tiles": manifest.tiles,
        "ok_scores": None if summary is None else summary.model_dump(),
        "n_ok_excluded": len(manifest.excluded),
        "suspect_images": [
            {
                "sha256": suspect.image.sha256,
                "file_name": suspect.image.file_name,
                "score": suspect.score,
                "robust_z": suspect.robust_z,
                "excluded": suspect.excluded,
            }
            for suspect in result.suspects
        ],
        "spatial_weights": manifest.spatial_weights.model_dump(),
        "calibration": result.calibration,
        "warnings": result.warnings,
    }
