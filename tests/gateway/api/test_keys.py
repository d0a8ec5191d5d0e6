import json

import pytest
from pydantic import SecretStr, ValidationError

from gateway.__main__ import main
from gateway.api.security.keys import ANONYMOUS, ApiKey, KeyListError, KeyRing, entry_text, new_key, read_keys
from gateway.api.security.loopback import is_loopback
from gateway.api.security.scopes import needed_scope
from gateway.errors import ForbiddenError, InvalidRequestError
from gateway.monitoring.masking import masked
from gateway.settings import HOME, Settings
from gateway.store.roi_key import RoiKey


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch, tmp_path):
    monkeypatch.setitem(Settings.model_config, "env_file", tmp_path / ".env")


def test_only_the_exact_key_is_found():
    (key, entry), (other, _) = new_key("line1", "inspect", ["a/b"]), new_key("line2", "inspect", ["a/b"])
    ring = KeyRing([new_key("before", "teach", ["*"])[1], entry, new_key("after", "teach", ["*"])[1]])
    assert ring.find(key) == entry
    for wrong in (other, key[:-1], key + "x", key.upper(), "", entry.sha256, "ü"):
        assert ring.find(wrong) is None


def test_a_key_has_256_random_bits_and_its_entry_does_not_hold_it():
    made = [new_key("line1", "inspect", ["*"]) for _ in range(100)]
    assert len({key for key, _ in made}) == 100
    for key, entry in made:
        assert len(key.removeprefix("pcg_")) == 43  # base64 of 32 bytes
        assert key not in entry_text(entry)
        assert entry.sha256 not in repr(entry)


@pytest.mark.parametrize(
    ("allow", "seen", "not_seen"),
    [
        (["*"], ["a/b", "c/d"], []),
        (["a/*"], ["a/b", "a/c"], ["b/a", "aa/b", "A/b"]),
        (["a/b"], ["a/b"], ["a/bb", "a/B", "b/a"]),
        (["a/b", "c/*"], ["a/b", "c/x"], ["a/x"]),
        (["a/*", "a/b"], ["a/b", "default/a/b"], ["winter/a/b"]),
        (["*"], ["winter/a/b"], []),
        (["winter/a/b"], ["winter/a/b"], ["a/b", "winter/a/c", "summer/a/b", "Winter/a/b"]),
        (["winter/a/*"], ["winter/a/b"], ["a/b", "winter/b/a", "summer/a/b"]),
        (["winter/*/*"], ["winter/a/b", "winter/c/d"], ["a/b", "summer/a/b"]),
        (["*/a/*"], ["a/b", "winter/a/b"], ["b/a", "winter/b/a"]),
        (["*/a/b"], ["a/b", "winter/a/b"], ["a/c", "winter/a/c"]),
        (["default/*/*"], ["a/b"], ["winter/a/b"]),
        (["*/*/*"], ["a/b", "winter/a/b"], []),
        (["Li\u0301nea/*"], ["L\u00ednea/b", "Li\u0301nea/b"], ["Linea/b"]),
    ],
)
def test_a_key_allows_exactly_its_rois(allow, seen, not_seen):
    _, caller = new_key("line1", "teach", allow)
    for text in seen:
        key = RoiKey.parse(text)
        assert caller.roi(key.role_id, key.roi_id, key.recipe_id) == key
    for text in not_seen:
        key = RoiKey.parse(text)
        with pytest.raises(ForbiddenError, match=text):
            caller.roi(key.role_id, key.roi_id, key.recipe_id)
    with pytest.raises(InvalidRequestError):
        caller.roi("..", "b")


@pytest.mark.parametrize(
    "pattern",
    [
        *("", "a", "/", "a/", "/b", "*/b", "*/*", "a*/b", "../*", "a/**", "**"),
        *("a/b/", "/a/b", "a/*/b", "*/*/b", "a/b/c/d", "../a/b", "winter/../a"),
    ],
)
def test_an_invalid_pattern_is_refused(pattern):
    with pytest.raises(ValidationError):
        new_key("line1", "inspect", [pattern])


def test_teach_includes_inspect():
    _, inspect = new_key("line1", "inspect", ["*"])
    _, teach = new_key("engineer", "teach", ["*"])
    assert [inspect.may("inspect"), inspect.may("teach")] == [True, False]
    assert [teach.may("inspect"), teach.may("teach")] == [True, True]
    assert ANONYMOUS.may("teach")


def test_an_endpoint_that_is_not_listed_needs_teach():
    for method, path in (("GET", "/new"), ("POST", "/rois/a/b/new"), ("POST", "/health"), ("GET", "/rois/a/b/c")):
        assert needed_scope(method, path) == "teach"
    assert needed_scope("HEAD", "/health") is None
    assert needed_scope("GET", "/rois/a/b") == "inspect"


def test_routes_get_roi_keys_only_from_the_caller():
    modules = [path for path in (HOME / "gateway" / "api").rglob("*.py") if path.name != "keys.py"]
    assert len(modules) > 20
    for module in modules:
        assert "RoiKey(" not in module.read_text(), module.name


ENTRY = {"name": "line1", "sha256": "0" * 64, "scope": "inspect", "allow": ["*"]}
SECRET = "pcg_somebody-put-the-key-itself-here"


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        (SECRET, "JSON"),
        ({"name": SECRET}, "list"),
        ([], "at least 1"),
        ([SECRET], "0"),
        ([ENTRY, {**ENTRY, "name": "line2", "sha256": SECRET}], "1.sha256"),
        ([{**ENTRY, "key": SECRET}], "0.key"),
        ([{**ENTRY, "scope": "admin"}], "0.scope"),
        ([{**ENTRY, "allow": []}], "0.allow"),
        ([{**ENTRY, "allow": "*"}], "0.allow"),
        ([{**ENTRY, "name": "a b"}], "0.name"),
        ([{name: value for name, value in ENTRY.items() if name != "allow"}], "0.allow"),
        ([ENTRY, ENTRY], "line1"),
        ([{**ENTRY, "name": "anonymous"}], "anonymous"),
    ],
)
def test_an_invalid_list_of_keys_is_refused_with_the_reason_and_without_the_key(entries, says, tmp_path):
    text = entries if entries == SECRET else json.dumps(entries)
    (tmp_path / "keys.json").write_text(text)
    for given in ((SecretStr(text), None), (None, tmp_path / "keys.json")):
        with pytest.raises(KeyListError, match=says) as refusal:
            read_keys(*given)
        assert SECRET not in str(refusal.value)


def test_keys_come_from_the_setting_and_from_the_file(tmp_path):
    made = [new_key(name, "inspect", ["*"]) for name in ("one", "two")]
    (tmp_path / "keys.json").write_text(f"[{entry_text(made[1][1])}]")
    ring = read_keys(SecretStr(f"[{entry_text(made[0][1])}]"), tmp_path / "keys.json")
    assert [ring.find(key) for key, _ in made] == [entry for _, entry in made]
    assert not read_keys(None, None)
    with pytest.raises(KeyListError, match="No such file"):
        read_keys(None, tmp_path / "absent.json")


def test_a_key_file_may_begin_with_a_byte_order_mark(tmp_path):
    key, entry = new_key("one", "inspect", ["*"])
    (tmp_path / "keys.json").write_text(f"[{entry_text(entry)}]", encoding="utf-8-sig")
    assert read_keys(None, tmp_path / "keys.json").find(key) == entry
    assert read_keys(SecretStr(f"\ufeff[{entry_text(entry)}]"), None).find(key) == entry


def test_a_key_file_in_utf_16_is_refused_with_the_reason(tmp_path):
    (tmp_path / "keys.json").write_text("[]", encoding="utf-16")
    with pytest.raises(KeyListError, match="not UTF-8 text"):
        read_keys(None, tmp_path / "keys.json")


def test_no_secret_is_printed_and_shell_output_has_no_mask(monkeypatch, capsys):
    monkeypatch.setenv("GATEWAY_API_KEYS", json.dumps([ENTRY]))
    monkeypatch.setenv("GATEWAY_TRITON_TOKEN", SECRET)
    assert main(["settings"]) == 0
    printed = capsys.readouterr().out
    assert "GATEWAY_API_KEYS=*" in printed
    assert SECRET not in printed
    assert ENTRY["sha256"] not in printed
    assert main(["settings", "--shell"]) == 0
    assert {"GATEWAY_API_KEYS", "GATEWAY_TRITON_TOKEN"}.isdisjoint(
        line.partition("=")[0] for line in capsys.readouterr().out.splitlines()
    )
    assert SECRET not in repr(Settings())


def test_the_key_command_prints_the_key_and_then_its_entry(capsys):
    assert main(["key", "--name", "line1", "--scope", "inspect", "--allow", "a/*", "--allow", "b/c"]) == 0
    key, entry = capsys.readouterr().out.splitlines()
    found = KeyRing([ApiKey.model_validate_json(entry)]).find(key)
    assert found is not None
    assert (found.name, found.scope, found.allow) == ("line1", "inspect", ("a/*", "b/c"))
    assert main(["key", "--name", "line 1", "--scope", "inspect"]) == 2
    assert "line 1" in capsys.readouterr().err


def test_a_key_in_a_url_is_masked_in_the_log():
    key, _ = new_key("line1", "inspect", ["*"])
    assert masked(f"GET /rois?key={key}&x=1") == "GET /rois?key=pcg_…&x=1"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost", "::ffff:127.0.0.1"])
def test_loopback_addresses_are_recognised(host):
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "fe80::1%eth0", "localhost.example", "127.0.0.1.x", ""])
def test_other_addresses_are_not_loopback(host):
    assert not is_loopback(host)


def test_a_certificate_and_its_key_go_together(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("GATEWAY_TLS_CERT", str(tmp_path / "gateway.crt"))
    assert main([]) == 2
    assert "GATEWAY_TLS_KEY" in capsys.readouterr().err
    monkeypatch.setenv("GATEWAY_TLS_KEY", str(tmp_path / "gateway.key"))
    assert main([]) == 2
    assert "No such file" in capsys.readouterr().err


@pytest.mark.parametrize("origins", ["*", "mes.plant.example", "https://a.example/", "https://a.example https://b.c"])
def test_invalid_origins_are_refused(monkeypatch, origins):
    monkeypatch.setenv("GATEWAY_CORS_ORIGINS", origins)
    with pytest.raises(ValidationError):
        Settings()
