"""Real images and real weights, where this machine has them: defects are told from good tiles and shown in place."""

import base64
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.e2e.gateway_process import PROJECT
from tests.e2e.synthetic_images import decoded

PATCHES = 27
KINDS = ("blowhole", "break", "crack", "fray")
# Defects that a person sees at once, and whose heatmaps were looked at.
CLEAR = ("blowhole/exp4_num_54308", "crack/exp4_num_3234", "crack/exp5_num_265695", "fray/exp4_num_136676")


@dataclass(frozen=True, slots=True)
class Inspected:
    good: list[dict[str, Any]]
    defects: dict[str, dict[str, Any]]
    """By kind/name."""


@pytest.fixture(scope="module")
def tiles() -> Path:
    named = os.environ.get("MAGNETIC_TILE_DIR", "")
    folder = Path(named) if named else PROJECT.parent / "shared" / "data" / "magnetic_tile"
    if not (folder / "train" / "good").is_dir():
        pytest.skip("no magnetic tiles: ../shared/data is not here and MAGNETIC_TILE_DIR names no folder of them")
    return folder


@pytest.fixture(scope="module")
def gateway(tiles, launch, real_model_repository):
    """A gateway with real weights, which has learned the first 20 good tiles."""
    with launch("real", model_repository=real_model_repository) as started:
        images = [(path.name, path.read_bytes()) for path in sorted((tiles / "train" / "good").iterdir())[:20]]
        assert started.fit("tile", images)["n_ok_total"] == 20
        yield started


@pytest.fixture(scope="module")
def inspected(tiles, gateway) -> Inspected:
    def infer(path):
        return gateway.infer("tile", path.read_bytes())

    good = [infer(path) for path in sorted((tiles / "test" / "good").iterdir())[:12]]
    names = {f"{kind}/{path.stem}" for kind in KINDS for path in sorted((tiles / "test" / kind).iterdir())[:2]}
    defects = {name: infer(tiles / "test" / f"{name}.jpg") for name in sorted(names | set(CLEAR))}
    return Inspected(good, defects)


def test_health_tells_real_weights_from_random_ones(gateway, inspected):
    assert gateway.client.get("/health").json()["model_weights"] == "file"
    assert inspected.good[0]["warnings"] == []


def test_a_defect_scores_above_a_good_tile_in_4_of_5_pairs(inspected):
    good = np.array([answer["score"] for answer in inspected.good])
    defects = np.array([answer["score"] for answer in inspected.defects.values()])
    assert (defects[:, None] > good[None, :]).mean() >= 0.8


@pytest.mark.parametrize("name", CLEAR)
def test_a_clear_defect_scores_above_nearly_every_good_tile(inspected, name):
    good = np.array([answer["score"] for answer in inspected.good])
    assert (inspected.defects[name]["score"] > good).mean() > 0.9


@pytest.mark.parametrize("name", CLEAR)
def test_the_heatmap_peaks_in_the_defect_or_half_a_patch_from_it(tiles, inspected, name):
    heatmap = decoded(base64.b64decode(inspected.defects[name]["heatmap_png_base64"]))
    truth = cv2.imread(str(tiles / "ground_truth" / f"{name}_mask.png"), cv2.IMREAD_GRAYSCALE)
    height, width = heatmap.shape
    assert truth.shape == heatmap.shape
    near = cv2.dilate(truth, np.ones((height // PATCHES + 1, width // PATCHES + 1)))
    assert near[np.unravel_index(heatmap.argmax(), heatmap.shape)]


def test_a_threshold_made_of_scores_keeps_most_good_tiles_and_finds_clear_defects(tiles, gateway, inspected):
    good = [answer["score"] for answer in inspected.good]
    ng = [inspected.defects[name]["score"] for name in CLEAR[1:]]
    threshold = gateway.calibrate("tile", ok_scores=good, ng_scores=ng)["threshold"]
    assert np.percentile(good, 99) <= threshold <= np.percentile(ng, 5)
    answer = gateway.infer("tile", (tiles / "test" / f"{CLEAR[0]}.jpg").read_bytes(), mm_per_px=0.2, area_mm2_thr=0)
    assert answer["score"] > answer["threshold"]
    assert answer["regions"]
