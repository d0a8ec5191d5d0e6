"""From the tokens of OK images to everything that inspecting needs: memory bank, spatial weights, OK scores."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gateway.calibration.ok_scores import ok_scores
from gateway.detectors.memory_bank.bank import MemoryBank, build_memory_bank, leave_one_out_distances
from gateway.detectors.spatial_weighting import weights_of
from gateway.learning.suspects import Suspect, find_suspects
from gateway.monitoring.timing import StageTimes
from gateway.store.manifest import WeightsRecipe
from gateway.store.ok_maps import Frame, OkMaps


@dataclass(frozen=True, slots=True)
class Recipe:
    """What decides how a bank comes out, beside the images."""

    coreset_rate: float
    seed: int
    k: int
    p_score: float
    """Percentile of the leave-one-out scores."""
    spatial_weights: WeightsRecipe


@dataclass(frozen=True, slots=True, eq=False)
class Learned:
    """What OK images taught."""

    bank: MemoryBank
    weights: NDArray[np.float32] | None
    """[h, w], the spatial weights."""
    ok_maps: OkMaps | None
    """None where one image only has anything in the bank, so that nothing is left to measure it against."""
    ok_scores: list[float]
    """Leave-one-out scores, in the order of the images; empty without `ok_maps`."""

    def suspects(self) -> list[Suspect]:
        """Images that may be none of the OK ones, worst first."""
        return find_suspects(self.ok_scores)


def learn(
    tokens: NDArray[np.float16],
    frames: Sequence[Frame],
    token_hw: tuple[int, int],
    recipe: Recipe,
    times: StageTimes | None = None,
) -> Learned:
    """Build a memory bank, score each image against it without itself, and weigh.

    Args:
        tokens: float16 [I, N, D] of I images.
        frames: of the I images.
        token_hw: `(h, w)` of the token grid, h · w = N.
        recipe: how.
        times: where to book the stages `coreset` and `loo`.
    """
    times = times or StageTimes()
    with times.stage("coreset"):
        bank = build_memory_bank(tokens, recipe.coreset_rate, recipe.seed)
    with times.stage("loo"):
        distances = leave_one_out_distances(bank, tokens, recipe.k)
        if distances is None:
            return Learned(bank, weights_of(recipe.spatial_weights, token_hw, None), None, [])
        ok_maps = OkMaps(distances, token_hw, tuple(frames))
        weights = weights_of(recipe.spatial_weights, token_hw, ok_maps.spread())
        ok_maps = replace(ok_maps, weights=weights)
        return Learned(bank, weights, ok_maps, ok_scores(ok_maps, recipe.p_score))
