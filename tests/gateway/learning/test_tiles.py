"""Tiles from the first fit to the answer, on images of 6 × 10 patches: the network's input has 4 × 4."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from artifacts.moving import export_roi, import_roi
from gateway.errors import GatewayError, InvalidRequestError
from gateway.inspection.answer import Inspection
from gateway.learning.request import FitRequest, ImageFile
from gateway.networks import Priority
from gateway.networks.model_description import ModelDescription
from gateway.store.rollback import roll_back
from postprocess.roi_mask import parse_shape
from tests.gateway.brightness_engine import PATCH, BrightnessEngine, distance, image, sha256
from tests.gateway.fit_bench import KEY, Bench, request_of

GRID = (6, 10)
TILES = (2, 3)
OK = [image(grey, grid=GRID) for grey in range(40, 120, 10)]
CORNER = image(75, {(5, 9): 160}, GRID)
"""Unlike all OK images in its last patch, 16 × 16 pixels at most of which lie in one tile."""


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "models", p_score=100.0, area_mm2_thr=16.0)


def test_an_image_is_cut_inspected_and_shown_in_its_own_pixels(bench: Bench) -> None:
    result = bench.fit(OK)
    manifest = result.manifest
    assert (manifest.tiles, manifest.token_hw, manifest.n_tokens_total) == (TILES, GRID, 8 * 60)
    # Each OK image is one step of 10 from its nearest neighbour.
    assert manifest.ok_scores == pytest.approx([distance(0, 10)] * 8, abs=1e-3)
    bench.calibrate(false_alarm_rate=0.2)
    even, corner = bench.infer(image(75, grid=GRID)), bench.infer(CORNER)
    assert even.score == pytest.approx(distance(0, 5), abs=1e-3)
    assert (even.verdict, even.token_hw, even.image_size) == ("ok", GRID, (40, 24))
    assert corner.score == pytest.approx(distance(160, 110), abs=1e-3)
    assert corner.verdict == "ng"
    (region,) = corner.regions
    x, y, width, height = region.bbox
    assert (x + width, y + height) == (40, 24)
    assert x >= 40 - 2 * PATCH
    assert y >= 24 - 2 * PATCH


def test_an_explanation_shows_the_patches_of_the_stitched_grid(bench: Bench) -> None:
    bench.fit([*OK, image(60, {(1, 8): 150}, GRID)])
    found = bench.infer(image(60, {(4, 6): 163}, GRID), explain=True).explanation
    assert found is not None
    assert found.distance == pytest.approx(distance(163, 150), abs=1e-3)
    assert found.box == (6 * PATCH, 4 * PATCH, PATCH, PATCH)
    assert found.ok_box == (8 * PATCH, 1 * PATCH, PATCH, PATCH)
    assert found.ok_crop is not None


def test_shape_and_spatial_weights_have_the_stitched_grid(bench: Bench) -> None:
    shape, _ = parse_shape('{"kind": "rect", "x": 0, "y": 0, "w": 20, "h": 24}')
    spots = [image(grey, {(0, 0): 40 + grey // 2}, GRID) for grey in range(60, 120, 10)]
    manifest = bench.fit(spots, spatial_weights="variance").manifest
    loaded = bench.store.ok_maps(KEY, manifest)
    assert loaded is not None
    assert loaded.weights is not None
    assert loaded.weights.shape == GRID
    whole, left = bench.infer(CORNER), bench.infer(CORNER, shape=shape)
    assert left.score < whole.score


def test_a_later_fit_keeps_the_tiles_of_the_roi(bench: Bench) -> None:
    bench.fit(OK[:6], tiles=6)
    added = bench.fit([image(200, grid=(4, 4))])  # another size is resized to the grid
    assert (added.manifest.tiles, added.manifest.token_hw) == (TILES, GRID)
    removed = bench.remove(OK[0])
    assert (removed.manifest.tiles, removed.manifest.token_hw) == (TILES, GRID)
    assert not [warning for warning in (*added.warnings, *removed.warnings) if "tiles" in warning]
    assert bench.infer(CORNER).token_hw == GRID


def test_other_tiles_read_all_images_again_and_never_mix_tokens(tmp_path: Path) -> None:
    bench, fresh = Bench(tmp_path / "a"), Bench(tmp_path / "b")
    tiled = bench.fit(OK[:5]).manifest
    whole = bench.fit([OK[5]], tiles=1)
    assert (whole.manifest.tiles, whole.manifest.token_hw) == ((1, 1), (4, 4))
    assert whole.warnings[0] == "tiles: 1 × 1 here, 2 × 3 at the fit before; all images were read again"
    expected = fresh.fit(OK[:6], tiles=1).manifest
    assert whole.manifest.checksum == expected.checksum
    # An image looks sharper at another resolution.
    looks = [[(each.brightness, each.sharpness) for each in m.images] for m in (tiled, whole.manifest, expected)]
    assert looks[0] != looks[1][:5]
    assert looks[1] == looks[2]
    again = bench.fit([OK[0]], tiles="auto").manifest
    assert again.checksum == fresh.fit(OK[:1], tiles="auto").manifest.checksum
    assert tiled.checksum == Bench(tmp_path / "c").fit(OK[:5]).manifest.checksum
    bench.fit([OK[0]], tiles=1)
    roll_back(bench.store, bench.settings, KEY, again.version)
    assert bench.infer(CORNER).token_hw == GRID


def test_the_same_tiles_asked_for_again_change_nothing(bench: Bench) -> None:
    before = bench.fit(OK).manifest
    again = bench.fit(OK[:2], tiles="auto")
    assert (again.manifest.version, again.duplicates) == (before.version, 2)


def test_tiles_that_nobody_asked_for_are_told_with_their_cost(bench: Bench) -> None:
    (said,) = [warning for warning in bench.fit(OK).warnings if "tiles" in warning]
    assert said.startswith("tiles: images of 40 × 24 pixels are cut into 2 × 3 tiles, which keep 100% of their")
    assert "at least 6 times as long" in said
    assert "send tiles=1" in said


def test_the_share_that_is_told_is_that_of_the_side_that_is_shrunk(bench: Bench) -> None:
    """The strip of 2 × 60 patches is enlarged to the 4 of a tile; nine tiles have 36 of its 60 patches."""
    found = bench.fit([image(grey, grid=(2, 60)) for grey in (50, 60, 70)])
    assert (found.manifest.tiles, found.manifest.token_hw) == ((1, 9), (4, 36))
    assert any("which keep 60% of their resolution" in warning for warning in found.warnings)


def test_a_small_image_is_not_cut_unless_asked(tmp_path: Path) -> None:
    small = [image(grey, grid=(5, 5)) for grey in (50, 60, 70)]
    unasked = Bench(tmp_path / "a").fit(small)
    assert (unasked.manifest.tiles, unasked.warnings) == ((1, 1), [])
    asked = Bench(tmp_path / "b").fit(small, tiles=4)
    assert (asked.manifest.tiles, asked.manifest.token_hw) == ((2, 2), (5, 5))
    assert Bench(tmp_path / "c", max_tiles=1).fit(OK).manifest.tiles == (1, 1)


def test_more_tiles_than_the_limit_are_refused_with_the_setting(bench: Bench) -> None:
    with pytest.raises(InvalidRequestError, match="tiles: 10; the limit is 9") as caught:
        bench.fit(OK, tiles=10)
    assert "GATEWAY_MAX_TILES" in caught.value.hint
    assert not bench.store.is_fitted(KEY)


def test_the_memory_of_a_fit_counts_the_tokens_of_all_tiles(bench: Bench) -> None:
    files = [ImageFile("x.png", lambda: OK[0])] * 1000
    tiled, whole = (asyncio.run(bench.fitting.memory_needed(KEY, files, 0.1, tiles)) for tiles in (None, 1))
    per_token = 64 + 0.1 * 16 * 8
    assert tiled - whole == pytest.approx(1000 * (60 - 16) * per_token, rel=0.01)


def test_another_model_cuts_into_at_most_as_many_tiles(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "models")
    bench.fit(OK[:4], tiles=4)
    assert bench.manifest.tiles == (2, 2)
    other = Bench(tmp_path / "models")
    other.engine.model = other.engine.model.model_copy(update={"fingerprint": "another"})
    assert other.fit(OK[4:6]).manifest.tiles == (2, 2)


def test_a_version_with_tiles_has_a_format_that_older_gateways_refuse(bench: Bench) -> None:
    formats = []
    for tiles in (1, "auto"):
        version = bench.fit(OK[:3], tiles=tiles).manifest.version
        manifest = bench.store.folder(KEY) / "versions" / str(version) / "manifest.json"
        formats.append(json.loads(manifest.read_bytes())["format"])
    assert formats == [2, 4]


def test_stored_images_are_scored_on_the_stitched_grid(bench: Bench) -> None:
    bench.fit(OK)
    bench.keep("ng", [CORNER])
    bench.keep("ok", [image(75, grid=GRID)])
    calibration, _ = bench.calibrate_stored()
    scores = {each.label: each.score for each in calibration.stored_scores}
    assert scores["ng"] == pytest.approx(distance(160, 110), abs=1e-3)
    assert scores["ok"] == pytest.approx(distance(0, 5), abs=1e-3)


def test_a_version_with_other_tiles_is_exported_and_imported(bench: Bench, tmp_path: Path) -> None:
    bench.fit(OK[:3])
    bench.fit([OK[0]], tiles=1)  # the stored tokens are those of the whole images now
    roll_back(bench.store, bench.settings, KEY, 1)
    export_roi(bench.store, KEY, tmp_path / "roi.tar")
    other = Bench(tmp_path / "other", p_score=100.0)
    import_roi(other.store, other.settings, tmp_path / "roi.tar")
    assert other.infer(CORNER).score == bench.infer(CORNER).score
    assert other.fit([OK[3]]).manifest.token_hw == GRID


class CountingEngine(BrightnessEngine):
    """Notes how many tiles each call has."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[int] = []

    async def tokens(
        self, images: NDArray[np.uint8], *, model: ModelDescription, priority: Priority = Priority.INSPECT
    ) -> NDArray[np.float32]:
        self.calls.append(len(images))
        return await super().tokens(images, model=model, priority=priority)


@pytest.mark.parametrize(("most", "calls"), [(32, [19]), (13, [13, 6]), (1, [6, 1, 6, 6])])
def test_the_tiles_of_an_image_are_one_call_and_those_of_a_batch_as_few_as_the_limit_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, calls: list[int]
) -> None:
    monkeypatch.setattr("tests.gateway.fit_bench.BrightnessEngine", CountingEngine)
    bench = Bench(tmp_path / "models", max_batch_images=most)
    bench.fit(OK)
    assert max(bench.engine.calls) == 6  # a fit takes 8 tiles at a time, and whole images
    whole = replace(KEY, roi_id="whole")
    files = [ImageFile("0.png", lambda: OK[0]), ImageFile("1.png", lambda: OK[1])]
    asyncio.run(bench.fitting.fit(FitRequest(whole, files, mm_per_px=1.0, tiles=1)))
    alone = [bench.infer(CORNER), bench.infer(OK[0])]
    bench.engine.calls.clear()
    requests = [request_of(CORNER), replace(request_of(CORNER), key=whole), request_of(OK[0]), request_of(CORNER)]
    found = asyncio.run(bench.pipeline.infer_batch(requests))
    assert bench.engine.calls == calls
    first, of_whole, second, third = map(_answer, found)
    assert [first.score, second.score, third.score] == [alone[0].score, alone[1].score, alone[0].score]
    assert of_whole.token_hw == (4, 4)


def _answer(found: Inspection | GatewayError) -> Inspection:
    assert isinstance(found, Inspection)
    return found


def test_stored_tokens_of_tiles_are_used_again(bench: Bench) -> None:
    bench.fit(OK[:4])
    tokens = bench.store.ok(KEY).folder / f"{sha256(OK[0])}.npz"
    before = tokens.read_bytes()
    bench.fit([OK[4]])
    assert tokens.read_bytes() == before
