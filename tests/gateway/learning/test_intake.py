"""What counts as one image, what a fit refuses, and what it says about the samples of its files."""

import io
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from gateway.errors import InvalidRequestError
from tests.gateway.brightness_engine import SIDE, distance, image, sha256
from tests.gateway.fit_bench import EVEN, KEY, STRAY, Bench
from tests.gateway.inspection.test_pictures import NOTHING


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "models")


def pixels_of(data: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)


def written(pixels: np.ndarray, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def forms_of(data: bytes) -> dict[str, bytes]:
    """The same picture in other bytes."""
    grey = pixels_of(data)
    return {
        "BMP": written(grey, "BMP"),
        "TIFF": written(grey, "TIFF", compression="tiff_lzw"),
        "PNG of another compression": written(grey, "PNG", compress_level=0),
        "colour of equal channels": written(np.dstack([grey] * 3), "PNG"),
        "opaque alpha": written(np.dstack([grey] * 3 + [np.full_like(grey, 255)]), "PNG"),
        "16 bits": cv2.imencode(".png", grey.astype(np.uint16) * 257)[1].tobytes(),
    }


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# --- identity --------------------------------------------------------------------------------------------------------


def test_the_same_picture_in_other_bytes_counts_once_in_a_request(bench: Bench) -> None:
    forms = forms_of(EVEN[3])
    result = bench.fit([*EVEN, *forms.values()])
    assert (result.n_added, result.duplicates, len(result.manifest.images)) == (12, len(forms), 12)
    # No twin takes part in the leave-one-out score of an image.
    assert result.manifest.ok_scores == pytest.approx([distance(0, 10)] * 12, abs=2e-3)


@pytest.mark.parametrize("form", forms_of(EVEN[3]))
def test_the_same_picture_in_other_bytes_is_known_at_a_later_fit_and_at_an_inspection(bench: Bench, form: str) -> None:
    before = bench.fit(EVEN).manifest
    again = forms_of(EVEN[3])[form]
    result = bench.fit([again])
    assert (result.n_added, result.duplicates, result.manifest.version) == (0, 1, before.version)
    assert "learned OK images" in " ".join(bench.infer(again).warnings)
    assert "learned OK images" not in " ".join(bench.infer(image(63)).warnings)


def test_an_excluded_image_stays_excluded_in_other_bytes(bench: Bench) -> None:
    bench.fit([*EVEN, STRAY], exclude_suspects=True)
    again = bench.fit([forms_of(STRAY)["BMP"]])
    assert (again.n_added, again.duplicates) == (0, 1)
    assert f"DELETE /rois/part/face/ok/{sha256(STRAY)}" in " ".join(again.warnings)


def without_identities(bench: Bench) -> None:
    """Turn the version into one of before pictures were identified."""
    folder = bench.store.storage.root / "part/face/versions/1"
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["format"] = 1
    del manifest["sha256"]
    for entry in manifest["images"]:
        del entry["pixels_sha256"], entry["bits"]
    text = json.dumps(manifest)
    (folder / "manifest.json").write_text(text)
    (bench.store.storage.root / "part/face/current").write_text(f"1 {sha256(text.encode())}\n")


def test_images_of_a_version_without_identities_are_identified_at_the_next_fit(bench: Bench) -> None:
    bench.fit(EVEN)
    without_identities(bench)
    assert bench.fit([forms_of(EVEN[3])["BMP"]]).duplicates == 1
    result = bench.fit([forms_of(EVEN[3])["TIFF"], image(140)])
    assert (result.n_added, result.duplicates, len(result.manifest.images)) == (1, 1, 13)
    assert all(entry.pixels_sha256 and entry.bits == 8 for entry in result.manifest.images)


def test_a_stored_image_that_cannot_be_read_does_not_end_the_fit(bench: Bench) -> None:
    bench.fit(EVEN)
    without_identities(bench)
    (bench.store.storage.root / f"part/face/ok/{sha256(EVEN[3])}.png").write_bytes(b"damaged")
    result = bench.fit([image(140)])
    assert [entry.pixels_sha256 is None for entry in result.manifest.images] == [i == 3 for i in range(13)]
    # The same file mends it.
    result = bench.fit([EVEN[3]])
    assert (result.n_added, len(result.manifest.images)) == (0, 13)
    assert all(entry.pixels_sha256 for entry in result.manifest.images)


def test_a_damaged_image_is_replaced_by_the_same_picture_in_other_bytes(bench: Bench) -> None:
    before = bench.fit(EVEN).manifest
    stored = bench.store.storage.root / f"part/face/ok/{sha256(EVEN[3])}.png"
    stored.write_bytes(b"damaged")
    again = forms_of(EVEN[3])["BMP"]
    result = bench.fit([again])
    assert (result.n_added, result.duplicates) == (0, 1)
    entry = result.manifest.images[3]
    assert (entry.sha256, entry.extension, entry.added_in) == (sha256(again), "bmp", 1)
    assert bench.store.ok(KEY).image(entry) == again
    assert result.manifest.checksum == before.checksum


# --- pictures that show nothing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [pytest.param(data, id=name) for name, data in NOTHING.items()])
def test_a_picture_that_shows_nothing_is_refused_by_name_and_nothing_of_its_request_is_learned(
    bench: Bench, data: bytes
) -> None:
    # The last of twelve: the first ones are decoded and tokenised by then.
    with pytest.raises(InvalidRequestError, match=r"images: 11\.png shows nothing: every pixel") as caught:
        bench.fit([*EVEN[:11], data])
    assert "without this image" in caught.value.hint
    assert not bench.store.is_fitted(KEY)
    assert files_in(bench.store.storage.root) == []
    bench.fit(EVEN[:2])
    before = files_in(bench.store.storage.root)
    with pytest.raises(InvalidRequestError, match="shows nothing"):
        bench.fit([data, image(200)])
    assert (files_in(bench.store.storage.root), len(bench.manifest.images)) == (before, 2)


# --- samples ---------------------------------------------------------------------------------------------------------


def camera(grey: int, depth: int, low: int = 0) -> bytes:
    """16-bit PNG of a camera of fewer bits: `image(grey)` scaled from 255 to the camera's range, from `low` on."""
    scaled = np.round(pixels_of(image(grey)) / 255 * (2**depth - 1 - low)) + low
    return cv2.imencode(".png", scaled.astype(np.uint16))[1].tobytes()


def test_a_sliver_of_the_range_causes_one_warning_with_the_values_found(bench: Bench) -> None:
    result = bench.fit([camera(grey, 12) for grey in (60, 110, 160)])
    (warning,) = [warning for warning in result.warnings if "values from" in warning]
    low, high = (int(v) for v in np.round(np.array([43, 77]) / 255 * 4095))
    assert warning.startswith(f"0.png: values from {low} to {high} of 0 to 65535")
    assert "send bit_depth=12" in warning
    assert warning.endswith("(and 2 more images alike)")
    flat = pixels_of(image(60)) // 8 + 100
    assert "less than 1/8 of the range" in " ".join(bench.fit([written(flat, "PNG")]).warnings)


def test_with_the_bit_depth_of_the_camera_the_bank_is_that_of_8_bit_images(tmp_path: Path) -> None:
    greys = (60, 110, 160)
    deep, plain = Bench(tmp_path / "deep"), Bench(tmp_path / "plain")
    result = deep.fit([camera(grey, 12) for grey in greys], bit_depth=12)
    assert not any("values from" in warning for warning in result.warnings)
    assert result.manifest.ok_scores == pytest.approx(plain.fit([image(grey) for grey in greys]).manifest.ok_scores)
    assert deep.infer(camera(60, 12)).score == pytest.approx(0, abs=2e-3)


def test_the_bit_depth_is_kept_with_the_roi(bench: Bench) -> None:
    bench.fit([camera(grey, 12) for grey in (60, 110)], bit_depth=12)
    result = bench.fit([camera(160, 12)])
    assert (result.manifest.bit_depth, result.n_added) == (12, 1)
    assert result.manifest.ok_scores == pytest.approx([distance(0, 50)] * 3, abs=3e-3)
    assert not any("bit_depth" in warning or "values from" in warning for warning in result.warnings)
    assert bench.remove(camera(160, 12)).manifest.bit_depth == 12


def test_another_bit_depth_reads_all_images_again(bench: Bench) -> None:
    first = [camera(grey, 12) for grey in (60, 110, 160)]
    bench.fit(first)
    result = bench.fit([camera(210, 12)], bit_depth=12)
    assert "bit_depth: 12 here, none at the fit before; all images were read again" in result.warnings
    assert result.manifest.ok_scores == pytest.approx([distance(0, 50)] * 4, abs=3e-3)
    # Known by its pixels as they are scaled now.
    assert bench.fit([first[0]]).duplicates == 1
    back = bench.fit([first[0]], bit_depth=16)
    assert max(back.manifest.ok_scores) < distance(0, 5)


def test_values_beyond_the_bit_depth_are_refused_and_nothing_is_learned(bench: Bench) -> None:
    with pytest.raises(InvalidRequestError, match=r"images: 1\.png: values up to \d+ are more than the 4095"):
        bench.fit([camera(60, 12), camera(160, 16)], bit_depth=12)
    assert not bench.store.is_fitted(KEY)


def test_images_of_another_depth_than_those_learned_cause_a_warning(bench: Bench) -> None:
    bench.fit(EVEN)
    result = bench.fit([camera(140, 16)])
    assert "bits a sample: 16 bits (0.png) here, 8 bits in the images learned before" in result.warnings
    mixed = bench.fit([image(150), camera(160, 16)])
    assert "bits a sample: the images of this request have 8 bits (0.png) and 16 bits (1.png)" in mixed.warnings
    assert not any("bits a sample" in warning for warning in bench.fit([image(170)]).warnings)


def test_files_of_8_bits_beside_a_bit_depth_cause_a_warning(bench: Bench) -> None:
    result = bench.fit([camera(60, 12), image(110), image(160)], bit_depth=12)
    assert "bit_depth: 12 bits, but 2 images have 8 bits a sample" in " ".join(result.warnings)
    assert result.manifest.images[1].width == SIDE


# --- parameters of the fit before ------------------------------------------------------------------------------------


def test_a_fit_keeps_the_parameters_of_the_fit_before_that_it_does_not_name(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "models", coreset_rate=0.5)
    bench.fit(EVEN[:6], coreset_rate=1.0, seed=7, spatial_weights="variance")
    for change in (lambda: bench.fit(EVEN[6:]), lambda: bench.remove(EVEN[0])):
        result = change()
        manifest = result.manifest
        assert (manifest.coreset_rate, manifest.seed, manifest.spatial_weights.kind) == (1.0, 7, "variance")
        assert not any("at the fit before" in warning for warning in result.warnings)


def test_a_parameter_that_a_fit_names_replaces_the_one_kept_and_a_warning_says_so(bench: Bench) -> None:
    bench.fit(EVEN[:6], coreset_rate=1.0, seed=7, spatial_weights="variance")
    result = bench.fit(EVEN[6:], coreset_rate=0.5, seed=0, spatial_weights="none")
    manifest = result.manifest
    assert (manifest.coreset_rate, manifest.seed, manifest.spatial_weights.kind) == (0.5, 0, "none")
    for text in ("coreset_rate: 0.5 here, 1 at", "seed: 0 here, 7 at", "spatial_weights: none here, variance at"):
        assert text in " ".join(result.warnings)
    assert bench.fit(EVEN[:1]).manifest == manifest


def test_new_defaults_do_not_change_what_an_roi_has(tmp_path: Path) -> None:
    Bench(tmp_path / "models", coreset_rate=0.5).fit(EVEN[:6])
    later = Bench(tmp_path / "models", coreset_rate=1.0, seed=3, spatial_weights="variance")
    manifest = later.fit(EVEN[6:]).manifest
    assert (manifest.coreset_rate, manifest.seed, manifest.spatial_weights.kind) == (0.5, 0, "none")
