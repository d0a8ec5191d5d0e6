import json
import logging
from pathlib import Path
from typing import Any

import pytest

from gateway.detectors.spatial_weighting import RoiConfigError, SpatialWeighting, read_roi_config
from gateway.settings import Settings
from gateway.store.manifest import WeightsRecipe
from gateway.store.roi_key import RoiKey


@pytest.fixture
def roi_file(tmp_path: Path) -> Path:
    return tmp_path / "roi.json"


def weighting(**settings: Any) -> SpatialWeighting:
    return SpatialWeighting.from_settings(Settings(_env_file=None, **settings))


def manual(*box: float, space: int = 128) -> WeightsRecipe:
    return WeightsRecipe(kind="manual", box=box, box_space=space, min_weight=0.1, max_weight=2.0)


def test_a_box_is_found_by_role_and_roi_else_by_roi(roi_file: Path) -> None:
    roi_file.write_text(json.dumps({"conn1": [8, 64, 0, 128], "line2/conn1": [0, 16, 2.5, 32]}))
    found = weighting(roi_config=roi_file)
    assert found.recipe(RoiKey("line1", "conn1")) == manual(8, 64, 0, 128)
    assert found.recipe(RoiKey("line2", "conn1")) == manual(0, 16, 2.5, 32)
    assert found.recipe(RoiKey("line2", "conn2")) == WeightsRecipe(kind="none")
    assert weighting(roi_config=roi_file, roi_config_size=256).recipe(RoiKey("line1", "conn1")).box_space == 256


def test_a_box_of_a_role_and_roi_is_for_the_default_recipe_unless_it_names_another(roi_file: Path) -> None:
    boxes = {"conn1": [8, 64, 0, 128], "line2/conn1": [0, 16, 2, 32], "winter/line2/conn1": [0, 8, 0, 8]}
    roi_file.write_text(json.dumps(boxes))
    found = weighting(roi_config=roi_file)
    assert found.recipe(RoiKey("line2", "conn1")) == manual(0, 16, 2, 32)
    assert found.recipe(RoiKey("line2", "conn1", "winter")) == manual(0, 8, 0, 8)
    assert found.recipe(RoiKey("line2", "conn1", "summer")) == manual(8, 64, 0, 128)
    roi_file.write_text('{"winter/a/Li\u0301nea": [0, 8, 0, 8], "winter/a/L\u00ednea": [0, 8, 0, 8]}')
    with pytest.raises(RoiConfigError, match="occurs twice"):
        weighting(roi_config=roi_file)


def test_a_box_precedes_the_requested_mode_and_that_precedes_the_setting(roi_file: Path) -> None:
    roi_file.write_text('{"conn1": [8, 64, 0, 128]}')
    with_box, without = RoiKey("line", "conn1"), RoiKey("line", "conn2")
    found = weighting(roi_config=roi_file, spatial_weights="variance")
    for mode in (None, "none", "variance"):
        assert found.recipe(with_box, mode).kind == "manual"
    assert [found.recipe(without, mode).kind for mode in (None, "none", "variance")] == ["variance", "none", "variance"]


def test_a_missing_file_that_the_settings_name_causes_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = weighting(roi_config=tmp_path / "none.json")
    assert found.recipe(RoiKey("line", "conn1")).kind == "none"
    (record,) = caplog.records
    assert (record.levelno, "none.json" in record.message) == (logging.WARNING, True)


def test_the_default_file_may_be_missing(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.delenv("GATEWAY_ROI_CONFIG", raising=False)
    with caplog.at_level(logging.WARNING):
        weighting()
    assert caplog.records == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[[0, 1, 0, 1]]", "expected an object"),
        ('{"conn1": [0, 1, 0]}', r"'conn1': \[0.0, 1.0, 0.0\]; expected four numbers"),
        ('{"conn1": [0, 1, 0, "1"]}', "'conn1'.*four numbers"),
        ('{"conn1": [0, 1, 0, true]}', "'conn1'.*four numbers"),
        ('{"conn1": [0, 1, 0, NaN]}', "'conn1'.*four numbers"),
        (f'{{"conn1": [0, 1, 0, 1{"0" * 400}]}}', "'conn1'.*four numbers"),
        ('{"conn1": {"y1": 0}}', "'conn1'.*four numbers"),
        ('{"conn1": null}', "'conn1'.*four numbers"),
        ('{"ok": [0, 9, 0, 9], "conn1": [64, 8, 0, 128]}', r"'conn1': \[64, 8, 0, 128\] is empty in a 128×128 image"),
        ('{"conn1": [128, 200, 0, 128]}', "'conn1'.*is empty"),
        ('{"a/b/c/conn1": [0, 1, 0, 1]}', "'a/b/c/conn1': expected a roi_id, role_id/roi_id"),
        ('{"../conn1": [0, 1, 0, 1]}', "'../conn1'"),
        ('{"": [0, 1, 0, 1]}', "''"),
        ('{"conn1": [0, 1, 0, 1], "conn1": [0, 2, 0, 2]}', "the entry 'conn1' occurs twice"),
    ],
)
def test_a_malformed_file_stops_the_start_and_the_error_names_the_entry(
    roi_file: Path, text: str, message: str
) -> None:
    roi_file.write_text(text)
    with pytest.raises(RoiConfigError, match=message) as caught:
        weighting(roi_config=roi_file)
    assert str(roi_file) in str(caught.value)


def test_a_file_with_a_byte_order_mark_and_crlf_is_read(roi_file: Path) -> None:
    roi_file.write_bytes(b'\xef\xbb\xbf{"conn1": [0, 64, 0, 64]}\r\n')
    assert read_roi_config(roi_file, 128) == {"conn1": (0, 64, 0, 64)}


def test_a_file_that_is_not_utf8_is_refused(roi_file: Path) -> None:
    roi_file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RoiConfigError, match="not JSON"):
        read_roi_config(roi_file, 128)


@pytest.mark.parametrize("name", ["MASK_MIN_WEIGHT", "GATEWAY_MASK_MIN_WEIGHT"])
def test_the_weights_have_a_short_name_too(monkeypatch: pytest.MonkeyPatch, roi_file: Path, name: str) -> None:
    roi_file.write_text('{"conn1": [0, 64, 0, 64]}')
    monkeypatch.setenv(name, "0.5")
    assert weighting(roi_config=roi_file).recipe(RoiKey("line", "conn1")).min_weight == 0.5


def test_a_largest_weight_below_the_smallest_is_refused() -> None:
    with pytest.raises(ValueError, match=r"below GATEWAY_MASK_MIN_WEIGHT, 0\.5"):
        Settings(_env_file=None, mask_min_weight=0.5, mask_max_weight=0.4)
