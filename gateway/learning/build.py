"""From the tokens of OK images to a version: memory bank, spatial weights, leave-one-out maps, manifest."""

import functools
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from gateway.calibration.ok_scores import ok_scores
from gateway.detectors.memory_bank.bank import MemoryBank, build_memory_bank, leave_one_out_distances
from gateway.detectors.memory_bank.token_file import ImageTokens
from gateway.detectors.spatial_weighting import weights_of
from gateway.images.tiling import Tiling
from gateway.learning.suspects import Suspect, find_suspects
from gateway.monitoring.timing import StageTimes
from gateway.networks.model_description import ModelDescription
from gateway.store.manifest import ExcludedImage, Manifest, OkImage, WeightsRecipe
from gateway.store.ok_maps import Frame, OkMaps
from gateway.store.roi_key import RoiKey
from postprocess.anomaly_map import cells_inside

_LARGEST_DISTANCE = 2.0
_UNRELATED = float(np.sqrt(2))
"""Distance of unrelated tokens."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """The parameters of a fit that decide, besides the images, what the bank is."""

    coreset_rate: float
    seed: int
    k: int
    p_score: float
    """Percentile of the leave-one-out scores."""
    spatial_weights: WeightsRecipe
    bit_depth: int | None
    """Bits of a sample of the camera, or None for those of the files."""
    tiling: Tiling
    """How images are cut, and the grid of their tokens."""


@dataclass(frozen=True, slots=True, eq=False)
class Learned:
    """What a fit learns from OK images."""

    bank: MemoryBank
    weights: NDArray[np.float32] | None
    """[h, w], the spatial weights."""
    ok_maps: OkMaps | None
    """None where all centres of the bank come from one image, so that no centre is left to measure that image by."""
    ok_scores: list[float]
    """Leave-one-out scores, in the order of the images; empty without `ok_maps`."""
    n_tokens: int
    """Number of tokens that the bank was chosen from: those of the images, without those outside the shapes."""

    def suspects(self) -> list[Suspect]:
        """Return the images that are probably defective, worst first."""
        return find_suspects(self.ok_scores)


def learn(
    tokens: ImageTokens,
    frames: Sequence[Frame],
    recipe: Recipe,
    blur_sigma: float,
    times: StageTimes,
) -> Learned:
    """Build a memory bank, its spatial weights and the leave-one-out maps and scores of its images.

    Args:
        tokens: float16 [I, N, D] of I images.
        frames: frames of the I images.
        recipe: parameters; its token grid has N tokens.
        blur_sigma: sigma of the blur in pixels: it carries values into the shapes from outside.
        times: takes the durations of the stages `coreset` and `loo`.
    """
    token_hw = recipe.tiling.token_hw
    with times.stage("coreset"):
        inside = _tokens_inside(frames, token_hw, blur_sigma)
        n_tokens = len(frames) * token_hw[0] * token_hw[1] if inside is None else int(inside.sum())
        bank = build_memory_bank(
            tokens, recipe.coreset_rate, recipe.seed, inside, functools.partial(times.count, "coreset")
        )
    with times.stage("loo"):
        distances = leave_one_out_distances(bank, tokens, recipe.k, functools.partial(times.count, "loo"))
        if distances is None:
            return Learned(bank, weights_of(recipe.spatial_weights, token_hw, None), None, [], n_tokens)
        ok_maps = OkMaps(distances, token_hw, tuple(frames))
        weights = weights_of(recipe.spatial_weights, token_hw, ok_maps.spread())
        ok_maps = replace(ok_maps, weights=weights)
        return Learned(bank, weights, ok_maps, ok_scores(ok_maps, recipe.p_score), n_tokens)


def manifest_of(
    key: RoiKey,
    version: int,
    model: ModelDescription,
    recipe: Recipe,
    mm_per_px: float,
    images: Sequence[OkImage],
    excluded: Sequence[ExcludedImage],
    learned: Learned,
) -> Manifest:
    """Describe a new version.

    Args:
        key: the ROI.
        version: number of the version.
        model: the model that computed the tokens.
        recipe: parameters of the fit.
        mm_per_px: side of a pixel in mm.
        images: the learned images, in the order of the bank's `image_index`.
        excluded: images that are kept out of the bank.
        learned: result of the fit.
    """
    return Manifest(
        **asdict(key),
        version=version,
        created_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        model_fingerprint=model.fingerprint,
        extractor=model.extractor,
        token_hw=recipe.tiling.token_hw,
        tiles=recipe.tiling.tiles,
        dim=model.dim,
        coreset_rate=recipe.coreset_rate,
        coreset_rate_applied=len(learned.bank) / learned.n_tokens,
        seed=recipe.seed,
        k=recipe.k,
        p_score=recipe.p_score,
        mm_per_px=mm_per_px,
        n_embeddings=len(learned.bank),
        n_tokens_total=learned.n_tokens,
        covering_radius=learned.bank.covering_radius,
        bit_depth=recipe.bit_depth,
        images=tuple(images),
        excluded=tuple(excluded),
        spatial_weights=recipe.spatial_weights,
        ok_scores=tuple(learned.ok_scores),
        heatmap_max=_heatmap_max(learned),
    )


def _tokens_inside(frames: Sequence[Frame], token_hw: tuple[int, int], blur_sigma: float) -> NDArray[np.bool_] | None:
    """Return which tokens take part in the maps inside the shapes, bool [I, N], or None without shapes."""
    if all(frame.shape is None for frame in frames):
        return None
    of_frame: dict[Frame, NDArray[np.bool_]] = {}
    for frame in frames:
        if frame not in of_frame:
            mask = frame.mask()
            whole = np.ones(token_hw, np.bool_)
            of_frame[frame] = (whole if mask is None else cells_inside(mask, token_hw, blur_sigma)).reshape(-1)
    return np.stack([of_frame[frame] for frame in frames])


def _heatmap_max(learned: Learned) -> float:
    """Return the distance that is white in a heatmap.

    It is √2, the distance of unrelated tokens, so that the peak of a defect is visible on the most even part. For a
    part whose OK images already score near it, it is twice their 99th percentile, at most the largest distance.
    """
    weight: float = 1.0 if learned.weights is None else float(learned.weights.max())
    p99 = float(np.percentile(learned.ok_scores, 99)) if learned.ok_scores else 0.0
    return min(max(2 * p99, _UNRELATED * weight), _LARGEST_DISTANCE * weight)
