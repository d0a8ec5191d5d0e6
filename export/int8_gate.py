"""Compare the decisions of a model in int8 with those in f32. Token distances say little about them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata, spearmanr

from evaluation.pasted import Defect, pasted
from gateway.detectors.memory_bank.bank import build_memory_bank, patch_distances
from gateway.detectors.memory_bank.search.backend import build_search
from postprocess.anomaly_map import anomaly_map, blur, upsample
from postprocess.peak import peak

LEAST_SPEARMAN = 0.95
LARGEST_AUROC_LOSS = 0.01

# In pixels of the model's input. f32 finds most and not all of them: on tiles its AUROC is 0.8. There, a loss shows.
DEFECTS = (Defect("disc", 12, -0.5), Defect("line", 48, -0.5), Defect("blob", 16, -0.5))
_CORESET_RATE = 0.02
_BLUR_SIGMA = 1.0
_SMALLEST_AREA_PX = 25

Tokens = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""uint8 [B, S, S, 3] RGB -> float32 [B, N, D]."""


@dataclass(frozen=True, slots=True)
class Decisions:
    """How decisions in int8 compare with those in f32."""

    spearman: float
    auroc_f32: float
    auroc_int8: float
    mean_cosine: float
    min_cosine: float

    @property
    def passed(self) -> bool:
        """Whether the peaks rank alike, and as many defects are told apart."""
        return self.spearman >= LEAST_SPEARMAN and self.auroc_f32 - self.auroc_int8 <= LARGEST_AUROC_LOSS


def compare_decisions(
    in_f32: Tokens,
    in_int8: Tokens,
    learned: NDArray[np.uint8],
    inspected: NDArray[np.uint8],
    token_hw: tuple[int, int],
) -> Decisions:
    """Learn some images, and inspect others, as they are and with each of `DEFECTS` pasted on them.

    Both precisions use the same centres: the choice of a coreset amplifies differences that change no decision.

    Args:
        in_f32: the network.
        in_int8: the same in int8.
        learned: uint8 [L, S, S, 3] RGB.
        inspected: uint8 [I, S, S, 3] RGB.
        token_hw: grid of the tokens.
    """
    ok = np.stack([in_f32(image[None])[0] for image in learned])
    bank = build_memory_bank(ok.astype(np.float16), _CORESET_RATE, 0)
    images = [image for i, plain in enumerate(inspected) for image in _with_defects(plain, i)]
    is_ng = np.arange(len(images)) % (1 + len(DEFECTS)) > 0

    ok_int8 = np.stack([in_int8(image[None])[0] for image in learned])
    centres = ok_int8[bank.image_index, bank.token_index].astype(np.float16)
    searches = build_search(bank.tokens), build_search(centres)
    peaks = np.empty((2, len(images)))
    cosines = np.empty((len(images), token_hw[0] * token_hw[1]))
    for i, image in enumerate(images):
        tokens = in_f32(image[None])[0], in_int8(image[None])[0]
        cosines[i] = (tokens[0] * tokens[1]).sum(axis=1)
        for row, (search, own) in enumerate(zip(searches, tokens, strict=True)):
            grid = anomaly_map(patch_distances(search, own, 1), token_hw)
            height, width = image.shape[:2]
            peaks[row, i] = peak(blur(upsample(grid, (width, height)), _BLUR_SIGMA), None, _SMALLEST_AREA_PX)
    return Decisions(
        spearman=float(spearmanr(peaks[0], peaks[1]).statistic),
        auroc_f32=auroc(peaks[0], is_ng),
        auroc_int8=auroc(peaks[1], is_ng),
        mean_cosine=float(cosines.mean()),
        min_cosine=float(cosines.min()),
    )


def auroc(values: NDArray[np.float64], is_ng: NDArray[np.bool_]) -> float:
    """Return the share of pairs of an NG and an OK image in which the NG image has the higher value. Ties count half.

    >>> auroc(np.array([1.0, 3.0, 2.0, 4.0]), np.array([False, False, True, True]))
    0.75
    """
    n_ng = int(is_ng.sum())
    n_ok = len(is_ng) - n_ng
    return float((rankdata(values)[is_ng].sum() - n_ng * (n_ng + 1) / 2) / (n_ng * n_ok))


def _with_defects(image: NDArray[np.uint8], place: int) -> list[NDArray[np.uint8]]:
    return [image, *(pasted(image, defect, 1.0, (place, i)) for i, defect in enumerate(DEFECTS))]
