"""OK images that hardly differ from each other are told from images of different parts."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from gateway.detectors.memory_bank.token_file import ArrayTokens
from gateway.images.decoding import to_model_input
from gateway.learning.near_copies import NearCopies, find_near_copies
from gateway.networks.embedded.engine import open_network
from gateway.networks.model_description import newest_version, read_description
from gateway.settings import Settings
from gateway.store.manifest import OkImage
from tests.conftest import PROJECT
from tests.gateway.brightness_engine import image
from tests.gateway.fit_bench import EVEN, Bench


def tokens_at(*angles: list[float]) -> ArrayTokens:
    """One image for each list: tokens on a circle, at angles in degrees."""
    radians = np.radians(np.array(angles))
    return ArrayTokens(np.stack([np.cos(radians), np.sin(radians)], axis=-1).astype(np.float16))


def test_an_image_hardly_differs_if_its_tokens_are_nearer_to_another_image_than_to_each_other() -> None:
    # 20 degrees apart within an image, 5 degrees apart between the two.
    assert find_near_copies(tokens_at([0, 20, 40, 60], [5, 25, 45, 65])).n == 2
    # The other way round.
    assert find_near_copies(tokens_at([0, 5, 10, 15], [40, 45, 50, 55])).n == 0


def test_a_part_that_moves_is_found_wherever_it_lies() -> None:
    assert find_near_copies(tokens_at([0, 20, 40, 60], [61, 1, 21, 41])).n == 2


def test_a_defect_does_not_hide_a_copy() -> None:
    assert find_near_copies(tokens_at([0, 20, 40, 60, 80], [1, 21, 41, 180, 81])).n == 2


def test_the_copy_is_found_among_many_images() -> None:
    apart = [[90 + 20 * i, 95 + 20 * i, 100 + 20 * i] for i in range(6)]
    found = find_near_copies(tokens_at([0, 20, 40], *apart, [1, 21, 41]))
    assert (found.n, found.n_compared, found.pair) == (2, 8, (0, 7))


@pytest.mark.parametrize(("n", "warns"), [(0, False), (4, False), (5, True), (10, True)])
def test_half_of_the_images_cause_the_warning(n: int, warns: bool) -> None:
    images = [
        OkImage(sha256="0" * 64, file_name=f"{i}.png", extension="png", width=1, height=1, added_in=1)
        for i in range(10)
    ]
    warnings = NearCopies(n, 10, (3, 7) if n else None).warnings(images)
    assert bool(warnings) == warns
    if warns:
        assert f"{n} of 10 OK images hardly differ from another one, such as 3.png from 7.png" in warnings[0]


def test_one_image_is_no_copy() -> None:
    assert find_near_copies(tokens_at([0, 20])) == NearCopies(0, 1, None)


def test_a_fit_of_one_part_photographed_many_times_warns_and_one_of_different_parts_does_not(tmp_path: Path) -> None:
    steps = {(row, column): 40 * row + 10 * column for row in range(4) for column in range(4)}
    shots = [image(0, {cell: grey + 60 + shot for cell, grey in steps.items()}) for shot in range(6)]
    bench = Bench(tmp_path / "models")
    assert "6 of 6 OK images hardly differ" in " ".join(bench.fit(shots).warnings)
    assert not any("hardly differ" in warning for warning in Bench(tmp_path / "other").fit(EVEN).warnings)


def shot(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Another photograph of the same part: moved by up to a pixel, noise of 3 grey levels, 2 % more or less light."""
    height, width = pixels.shape[:2]
    move = np.array([[1, 0, rng.uniform(-1, 1)], [0, 1, rng.uniform(-1, 1)]])
    moved = cv2.warpAffine(pixels, move, (width, height), borderMode=cv2.BORDER_REFLECT).astype(np.float32)
    noise = rng.normal(0, 3, (height, width, 1))
    return np.clip(moved * rng.uniform(0.98, 1.02) + noise, 0, 255).astype(np.uint8)


def test_real_tiles_are_told_from_one_tile_photographed_many_times(real_model_repository: Path, full: bool) -> None:
    data = Path(os.environ.get("MAGNETIC_TILE_DIR", PROJECT.parent / "shared" / "data" / "magnetic_tile"))
    files = sorted(data.glob("train/good/*"))[: 24 if full else 10]
    if not files:
        pytest.skip("no magnetic tiles in ../shared/data and MAGNETIC_TILE_DIR names no folder")
    folder = newest_version(real_model_repository / "dinov2_vits14")
    model = read_description(folder)
    network = open_network(folder, model, Settings(_env_file=None))

    def tokens_of(pictures: list[np.ndarray]) -> ArrayTokens:
        inputs = [to_model_input(picture, model.input_size)[None] for picture in pictures]
        return ArrayTokens(np.concatenate([network.run(each) for each in inputs]).astype(np.float16))

    tiles = [cv2.imread(str(file), cv2.IMREAD_COLOR_RGB) for file in files]
    assert find_near_copies(tokens_of(tiles)).n == 0
    rng = np.random.default_rng(0)
    found = find_near_copies(tokens_of([shot(tiles[0], rng) for _ in range(15 if full else 8)]))
    assert 2 * found.n >= found.n_compared
