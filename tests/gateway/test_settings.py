from pathlib import Path

import pytest
from pydantic import ValidationError

from gateway.__main__ import main
from gateway.settings import HOME, Settings


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(Settings.model_config, "env_file", tmp_path / ".env")


def test_defaults_are_those_of_the_specification() -> None:
    settings = Settings()
    assert (settings.engine, settings.triton_url, settings.host, settings.port) == (
        "embedded",
        "localhost:8001",
        "127.0.0.1",
        8080,
    )
    assert (settings.coreset_rate, settings.k, settings.p_score, settings.blur_sigma, settings.area_mm2_thr) == (
        0.02,
        1,
        99.0,
        1.0,
        1.0,
    )
    assert settings.models_dir == HOME / "models"


def test_the_environment_overrides_the_env_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("GATEWAY_PORT=1111\nGATEWAY_SEED=7\n")
    monkeypatch.setenv("GATEWAY_PORT", "2222")
    settings = Settings()
    assert (settings.port, settings.seed) == (2222, 7)


def test_relative_folders_start_from_the_project_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GATEWAY_MODELS_DIR", "elsewhere")
    monkeypatch.setenv("GATEWAY_CACHE_DIR", "/absolute")
    settings = Settings()
    assert settings.models_dir == HOME / "elsewhere"
    assert settings.cache_dir == Path("/absolute")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CORESET_RATE", "0"),
        ("CORESET_RATE", "1.5"),
        ("P_SCORE", "90"),
        ("K", "0"),
        ("ENGINE", "torch"),
        ("DEVICE", "tpu"),
        ("PORT", "70000"),
        ("MODEL_NAME", "../x"),
    ],
)
def test_a_setting_out_of_range_stops_the_start(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"GATEWAY_{name}", value)
    with pytest.raises(ValidationError):
        Settings()


def test_fewer_than_four_contour_points_per_region_stop_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_MAX_REGIONS", "5001")
    with pytest.raises(ValidationError, match="20004"):
        Settings()
    monkeypatch.setenv("GATEWAY_MAX_CONTOUR_POINTS", "20004")
    assert Settings().max_regions == 5001


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().port = 1


def test_the_settings_command_prints_the_effective_values(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GATEWAY_SEED", "42")
    assert main(["settings"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "GATEWAY_SEED=42" in lines
    assert {line.partition("=")[0] for line in lines} == {f"GATEWAY_{name.upper()}" for name in Settings.model_fields}


def test_a_wrong_setting_is_named_with_its_value(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GATEWAY_PORT", "eighty")
    assert main(["settings"]) == 2
    assert "GATEWAY_PORT='eighty'" in capsys.readouterr().err
