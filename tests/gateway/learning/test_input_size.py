"""An ROI keeps the input size that a fit asked for, until a fit asks for another."""

from pathlib import Path

import pytest

from gateway.errors import InvalidRequestError, ModelMismatchError
from gateway.store.rollback import roll_back
from tests.export.tiny_model import write_version
from tests.gateway.brightness_engine import SIDE, image
from tests.gateway.fit_bench import EVEN, KEY, Bench

OTHER = "dinov2_vits14_56"


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Services whose configured model has 16 pixels and 4 × 4 tokens, with another one of 56 pixels and as many."""
    write_version(tmp_path / "repository" / OTHER / "1", factor=1 / 256, grid=4)
    return Bench(tmp_path / "models", model_repository=tmp_path / "repository", precision="f32")


def test_the_input_size_is_kept_with_the_roi(bench: Bench) -> None:
    first = bench.fit(EVEN[:3], input_size=56).manifest
    assert (first.input_size, first.dim) == (56, 3)
    assert first.model_fingerprint != bench.engine.model.fingerprint
    more = bench.fit(EVEN[3:5])
    assert (more.manifest.input_size, more.manifest.model_fingerprint) == (56, first.model_fingerprint)
    assert not any("input_size" in warning for warning in more.warnings)
    assert bench.remove(EVEN[4]).manifest.input_size == 56
    assert bench.infer(EVEN[0]).score == pytest.approx(0, abs=1e-3)


def test_another_input_size_reads_all_images_again(bench: Bench) -> None:
    before = bench.fit(EVEN[:3]).manifest
    result = bench.fit([EVEN[3]], input_size=56)
    assert "input_size: 56 here, the configured model at the fit before; all images were read again" in result.warnings
    assert (len(result.manifest.images), result.manifest.n_tokens_total) == (4, 4 * 16)
    # Drift is measured against the looks of the network's input, so they are those of the new size.
    assert result.manifest.images[0].sharpness != before.images[0].sharpness
    alone = Bench(bench.settings.models_dir.with_name("alone"), model_repository=bench.settings.model_repository)
    assert result.manifest.images[0].sharpness == alone.fit([EVEN[0]], input_size=56).manifest.images[0].sharpness


def test_a_rollback_returns_to_the_model_of_the_version(bench: Bench) -> None:
    bench.fit(EVEN[:3])
    bench.fit([EVEN[3]], input_size=56)
    bench.keep("ng", [image(200)])
    roll_back(bench.store, bench.settings, KEY, 1)
    assert bench.infer(EVEN[1]).score == pytest.approx(0, abs=1e-3)
    assert bench.calibrate_stored()[0].n_ng == 1, "stored images are scored by the model of the version"
    assert bench.fit([EVEN[4]]).manifest.input_size is None


def test_an_unknown_input_size_is_refused_and_nothing_is_learned(bench: Bench) -> None:
    with pytest.raises(InvalidRequestError, match=rf"^input_size: no token model of input size 112.*there are {SIDE}"):
        bench.fit(EVEN[:3], input_size=112)
    assert not bench.store.is_fitted(KEY)


def test_a_size_that_is_no_longer_served_is_a_mismatch_and_a_fit_with_another_one_helps(bench: Bench) -> None:
    bench.fit(EVEN[:3], input_size=56)
    moved = Bench(bench.settings.models_dir, model_repository=bench.settings.models_dir.with_name("none"))
    for work in (lambda: moved.infer(EVEN[0]), lambda: moved.fit([EVEN[3]])):
        with pytest.raises(ModelMismatchError, match="no token model of input size 56 is served"):
            work()
    assert moved.fit([EVEN[3]], input_size=SIDE).manifest.token_hw == (4, 4)
    assert moved.infer(EVEN[0]).score == pytest.approx(0, abs=1e-3)
