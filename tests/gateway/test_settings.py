from pathlib import Path

import pytest
from pydantic import ValidationError

from gateway.__main__ import main
from gateway.setting_names import SettingsError, environment_warnings
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


@pytest.mark.parametrize("url", ["s3://bucket", "s3://bucket/prefix/", "gs://bucket/a", "az://container/a"])
def test_the_models_may_be_in_a_bucket(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("GATEWAY_MODELS_DIR", url)
    assert Settings(_env_file=None).models_dir == url.rstrip("/")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://host/models", "expected a folder, or s3://…, gs://…, az://…"),
        ("s3://", "expected a folder, or s3://…"),
        ("s3://key:secret@bucket/a", "a URL without credentials"),
        ("az://container/a?sig=secret", "a URL without credentials"),
    ],
)
def test_a_url_of_something_else_is_refused_and_credentials_are_not_repeated(url: str, said: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Settings(_env_file=None, models_dir=url)
    message = refused.value.errors()[0]["msg"]
    assert said in message
    assert "secret" not in message


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


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("GATEWAY_MODEL_DIR=x", "GATEWAY_MODELS_DIR"),
        ("gateway_coreset=0.1", "GATEWAY_CORESET_RATE"),
        ("GATWAY_PORT=1", "GATEWAY_PORT"),
        ("MASK_MIN_WIEGHT=1", "MASK_MIN_WEIGHT"),
    ],
)
def test_an_unknown_name_in_the_env_file_stops_the_start_with_the_nearest_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, meant: str
) -> None:
    (tmp_path / ".env").write_text(f"GATEWAY_SEED=7\n{line}\n")
    with pytest.raises(SettingsError, match=meant):
        Settings()
    assert main(["settings"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert meant in said


def test_names_of_other_programs_may_stand_in_the_env_file(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("TRITON_ADMIN_KEY=x\nDINOV2_WEIGHTS=y\nGATEWAY_EXTRAS=otlp\nMASK_MIN_WEIGHT=0.2\n")
    assert Settings().mask_min_weight == 0.2


def test_the_env_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"\xef\xbb\xbfGATEWAY_SEED=7\r\n")
    assert Settings().seed == 7


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "latin-1"])
def test_an_env_file_in_another_encoding_is_an_error_of_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], encoding: str
) -> None:
    (tmp_path / ".env").write_bytes("# für die Linie\nGATEWAY_SEED=7\n".encode(encoding))
    assert main(["settings"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "not UTF-8" in said


def test_the_variables_of_kubernetes_for_a_service_named_gateway_are_ignored_with_one_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("GATEWAY_PORT=9000\n")
    links = {
        "GATEWAY_PORT": "tcp://10.0.0.1:8080",
        "GATEWAY_SERVICE_HOST": "10.0.0.1",
        "GATEWAY_SERVICE_PORT": "8080",
        "GATEWAY_SERVICE_PORT_HTTP": "8080",
        "GATEWAY_PORT_8080_TCP": "tcp://10.0.0.1:8080",
        "GATEWAY_PORT_8080_TCP_PROTO": "tcp",
        "GATEWAY_PORT_8080_TCP_PORT": "8080",
        "GATEWAY_PORT_8080_TCP_ADDR": "10.0.0.1",
        "GATEWAY_B_SERVICE_HOST": "10.0.0.2",
    }
    for name, value in links.items():
        monkeypatch.setenv(name, value)
    assert Settings().port == 9000
    (warning,) = environment_warnings(links, Settings.names())
    assert "9 environment variables" in warning
    assert "Kubernetes" in warning
    assert "enableServiceLinks" in warning


def test_a_wrong_port_that_is_no_service_link_still_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_PORT", "http://10.0.0.1:8080")
    with pytest.raises(ValidationError):
        Settings()


def test_an_unknown_variable_of_the_environment_gives_a_warning_with_the_nearest_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GATEWAY_MODEL_DIR", "x")
    monkeypatch.setenv("GATEWAY_SEED", "7")
    assert main(["settings"]) == 0
    said = capsys.readouterr()
    assert "GATEWAY_SEED=7" in said.out
    assert [line for line in said.err.splitlines() if "MODEL_DIR" in line] == [
        "warning: ignored the environment variable GATEWAY_MODEL_DIR: no setting has this name; "
        "did you mean GATEWAY_MODELS_DIR?"
    ]


def test_the_settings_of_the_environment_give_no_warning() -> None:
    environment = dict.fromkeys([*Settings.names(), "GATEWAY_EXTRAS", "HOME", "PATH"], "1")
    assert environment_warnings(environment, Settings.names()) == []


def test_a_setting_of_an_earlier_release_gives_a_warning_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / ".env").write_text("GATEWAY_BANK_CACHE_ENTRIES=64\nGATEWAY_SEED=7\n")
    assert Settings().seed == 7
    assert "GATEWAY_BANK_CACHE_ENTRIES: an earlier release had this setting" in caplog.text
    (warning,) = environment_warnings({"GATEWAY_BANK_CACHE_ENTRIES": "64"}, Settings.names())
    assert "an earlier release had this setting" in warning


@pytest.mark.parametrize(
    "url",
    ["localhost:8001", "triton:1", "10.0.0.1:65535", "[::1]:8001", "triton-1.plant.example:8001", "unix:/run/t.sock",
     "dns:///triton:8001"],
)  # fmt: skip
def test_an_address_of_triton_is_taken_as_it_is(url: str) -> None:
    settings = Settings(_env_file=None, triton_url=url)
    assert (settings.triton_url, settings.triton_targets) == (url, (url,))


def test_several_addresses_of_triton_are_separated_by_commas() -> None:
    settings = Settings(_env_file=None, triton_url="gpu-a:8001, 10.0.0.2:8001,unix:/run/t.sock")
    assert settings.triton_targets == ("gpu-a:8001", "10.0.0.2:8001", "unix:/run/t.sock")


def test_the_same_address_of_triton_twice_stops_the_start() -> None:
    with pytest.raises(ValueError, match="'gpu-a:8001' is there twice"):
        Settings(_env_file=None, triton_url="gpu-a:8001,gpu-b:8001,gpu-a:8001")


@pytest.mark.parametrize("url", ["localhost:8001,localhost:8011", "dns:///localhost:8001"])
def test_shared_memory_with_several_servers_stops_the_start(url: str) -> None:
    with pytest.raises(ValueError, match="shared memory needs one server"):
        Settings(_env_file=None, triton_url=url, triton_shared_memory="on")
    assert Settings(_env_file=None, triton_url=url).triton_shared_memory == "auto"


@pytest.mark.parametrize(
    "url",
    ["", "localhost", ":8001", "http://localhost:8001", "localhost:0", "localhost:99999", "local host:8001", "[::1",
     "localhost:8001/", "a:1,,b:1", "a:1,b", "dns:triton:8001", "dns://1.1.1.1/triton:8001", "dns:///triton"],
)  # fmt: skip
def test_an_address_of_triton_that_grpc_would_misread_stops_the_start(url: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT without http://"):
        Settings(_env_file=None, triton_url=url)


@pytest.mark.parametrize("token", ["pä", "a b", "a\nb", "\t"])
def test_a_token_that_grpc_cannot_send_stops_the_start_and_is_not_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], token: str
) -> None:
    monkeypatch.setenv("GATEWAY_TRITON_TOKEN", token)
    assert main(["settings"]) == 2
    said = capsys.readouterr().err
    assert "GATEWAY_TRITON_TOKEN=(secret)" in said
    assert "printable ASCII" in said
    assert repr(token) not in said


@pytest.mark.parametrize(
    ("name", "value"),
    [("triton_keepalive_s", float("inf")), ("triton_keepalive_s", 1e9), ("model_name", ".."), ("model_name", ".git")],
)
def test_a_setting_that_the_engine_cannot_use_stops_the_start(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name):
        Settings(_env_file=None, **{name: value})
