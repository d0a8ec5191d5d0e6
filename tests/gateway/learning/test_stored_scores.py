"""Stored images that are not learned are scored with each version, and a calibration that rests on them follows."""

from pathlib import Path

import pytest

from gateway.errors import ModelMismatchError
from gateway.store.manifest import Calibration
from postprocess.roi_mask import parse_shape
from tests.gateway.brightness_engine import BrightnessEngine, distance, image
from tests.gateway.fit_bench import EVEN, KEY, Bench
from tests.gateway.learning.test_stored_images import id_of

NG = [image(200), image(230)]
UNSEEN = [image(135), image(144)]  # 25 and 34 beyond the brightest of EVEN


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "models")


def score_of(bench: Bench, data: bytes) -> float | None:
    return next(found.score for found in bench.images.all(KEY).images if found.record.id == id_of(data))


def unbound(calibration: Calibration) -> dict[str, object]:
    """A calibration without what names its version."""
    return calibration.model_dump(
        exclude={"version", "bank_checksum", "created_at", "kept_with", "weights_checksum", "stored_scores"}
    )


def test_stored_images_are_scored_anew_by_each_fit(bench: Bench) -> None:
    bench.keep("ng", NG)
    assert score_of(bench, NG[0]) is None
    bench.fit(EVEN)
    assert score_of(bench, NG[0]) == pytest.approx(distance(110, 200), abs=2e-3)
    bench.fit([image(180)])
    assert score_of(bench, NG[0]) == pytest.approx(distance(180, 200), abs=2e-3)
    assert bench.infer(NG[0]).score == pytest.approx(distance(180, 200), abs=2e-3)
    # NG images are not in the bank, and a rollback has the scores of its own version.
    assert len(bench.manifest.images) == 13
    assert [stored.label for stored in bench.manifest.stored_scores] == ["ng", "ng"]


def test_a_calibration_without_scores_uses_the_stored_images_of_both_labels(bench: Bench) -> None:
    bench.fit(EVEN)
    alone, _ = bench.calibrate_stored(false_alarm_rate=0.2)
    assert (alone.n_ok, alone.n_ng, alone.n_ok_unseen, alone.stored_images) == (12, 0, 0, True)
    assert unbound(alone) == unbound(bench.calibrate(false_alarm_rate=0.2)) | {"stored_images": True}
    bench.keep("ok", UNSEEN)
    bench.keep("ng", NG)
    used, _ = bench.calibrate_stored(false_alarm_rate=0.2)
    assert (used.n_ok, used.n_ng, used.n_ok_unseen, used.ok_source) == (14, 2, 2, "leave-one-out")
    assert used.ng_scores == pytest.approx((distance(110, 200), distance(110, 230)), abs=2e-3)
    # Rank ⌈15 · 0.8⌉ = 12 of 12 leave-one-out peaks of 0.1 and the two of the unseen images.
    assert used.pixel_threshold == pytest.approx(distance(0, 10), abs=2e-3)
    tighter, _ = bench.calibrate_stored(false_alarm_rate=0.1)  # rank 14: the farthest unseen one
    assert tighter.pixel_threshold == pytest.approx(distance(110, 144), abs=2e-3)
    assert score_of(bench, UNSEEN[1]) == pytest.approx(distance(110, 144), abs=2e-3)


def test_a_calibration_that_rests_on_stored_images_is_redone_by_a_fit_and_never_stale(bench: Bench) -> None:
    bench.fit(EVEN)
    bench.keep("ok", UNSEEN)
    bench.keep("ng", NG[:1])
    before, _ = bench.calibrate_stored(false_alarm_rate=0.1)
    bench.keep("ng", NG[1:])
    result = bench.fit_stored()
    assert result.calibration == "redone"
    after = bench.calibration
    assert not after.is_stale(bench.manifest)
    assert (after.n_ok, after.n_ok_unseen, after.n_ng) == (14, 0, 2)
    # The unseen images are learned now: each lies 9 from the other.
    assert after.ng_scores == pytest.approx((distance(144, 200), distance(144, 230)), abs=2e-3)
    assert after.ng_scores[0] < before.ng_scores[0]
    assert unbound(after) == unbound(bench.calibrate_stored(false_alarm_rate=0.1)[0])


def test_with_given_scores_stored_images_do_not_count_and_the_calibration_becomes_stale(bench: Bench) -> None:
    bench.fit(EVEN)
    bench.keep("ng", NG)
    given = bench.calibrate(ng_scores=[0.9])
    assert (given.n_ng, given.stored_images) == (1, False)
    assert bench.fit([image(180)]).calibration == "stale"


def test_a_relabelled_image_counts_by_its_label_at_the_next_calibration(bench: Bench) -> None:
    bench.fit(EVEN)
    bench.keep("ng", NG)
    bench.images.change(KEY, id_of(NG[0]), "ok")
    assert [e.label for e in bench.calibrate_stored()[0].stored_scores] == ["ok", "ng"]
    bench.images.delete(KEY, id_of(NG[1]))
    calibration, _ = bench.calibrate_stored()
    assert (calibration.n_ng, calibration.n_ok_unseen) == (0, 1)


def test_a_learned_image_that_was_relabelled_counts_as_ng_as_soon_as_the_bank_left_it(bench: Bench) -> None:
    bench.fit(EVEN)
    bench.images.change(KEY, id_of(EVEN[-1]), "ng")
    calibration, warnings = bench.calibrate_stored()
    assert calibration.n_ng == 0  # the bank still knows it
    assert "1 images that were relabelled NG are still in the memory bank" in " ".join(warnings)
    bench.fit_stored()
    assert bench.calibration.ng_scores == pytest.approx((distance(100, 110),), abs=2e-3)


def test_a_suspect_that_a_fit_excluded_is_not_an_unseen_ok_image(bench: Bench) -> None:
    bench.keep("ok", [*EVEN, image(250)])
    bench.fit_stored(exclude_suspects=True)
    calibration, _ = bench.calibrate_stored()
    assert (calibration.n_ok, calibration.n_ok_unseen) == (12, 0)


def test_tokens_of_stored_images_are_computed_once(bench: Bench) -> None:
    bench.keep("ng", NG)
    bench.fit(EVEN)
    tokens, seen = bench.engine.tokens, []

    async def counting(images, **kwargs):
        seen.append(len(images))
        return await tokens(images, **kwargs)

    bench.engine.tokens = counting  # type: ignore[method-assign]
    bench.fit([image(180)])
    bench.calibrate_stored()
    assert seen == [1]  # of the new OK image


def test_a_damaged_stored_image_is_left_out_and_told(bench: Bench) -> None:
    bench.keep("ng", NG)
    path = bench.store.images(KEY).folder / f"{id_of(NG[0])}.png"
    path.write_bytes(path.read_bytes()[:-3])
    assert f"stored image {id_of(NG[0])} (0.png) is damaged; the image does not count" in " ".join(
        bench.fit(EVEN).warnings
    )
    assert [each.id for each in bench.manifest.stored_scores] == [id_of(NG[1])]


def test_stored_images_are_not_scored_with_another_model(bench: Bench) -> None:
    bench.fit(EVEN)
    bench.keep("ng", NG)
    bench.engines.token_engine = BrightnessEngine("another")
    with pytest.raises(ModelMismatchError, match="its stored images cannot be scored"):
        bench.calibrate_stored()


def test_a_shape_masks_stored_images_too(bench: Bench) -> None:
    corner = image(50, {(0, 0): 250})
    bench.fit(EVEN)
    bench.keep("ng", [corner], shape_json='{"kind": "rect", "cx": 8, "cy": 12, "w": 16, "h": 6}')
    assert bench.calibrate_stored()[0].ng_scores == pytest.approx((0,), abs=2e-3)
    everything = '{"kind": "rect", "cx": 8, "cy": 8, "w": 16, "h": 16}'
    whole, _ = bench.calibrate_stored(shape=parse_shape(everything)[0], shape_json=everything)
    assert whole.ng_scores[0] > 0.5
