"""`patchcore doctor` on a machine whose gateway keeps its models in a bucket."""

import json

import pytest
from typer.testing import CliRunner

from command_line.app import app
from tests.bucket.server import SECRET


@pytest.fixture
def checked(url, tmp_path, monkeypatch):
    """What `patchcore doctor` finds about the bucket."""
    settings = {"models_dir": url, "cache_dir": tmp_path, "model_repository": tmp_path}  # no model: no engine starts
    for name, value in settings.items():
        monkeypatch.setenv(f"GATEWAY_{name.upper()}", str(value))

    def check() -> dict[str, str]:
        result = CliRunner().invoke(app, ["doctor", "--json"])
        assert SECRET not in result.output
        (found,) = [each for each in json.loads(result.stdout)["checks"] if each["about"] == "bucket"]
        return found

    return check


def test_the_doctor_says_what_is_wrong_with_a_bucket(checked, proxy, url, monkeypatch):
    found = checked()
    assert (found["state"], found["found"]) == ("ok", f"{url}: its conditional writes hold")

    proxy.refuse()
    found = checked()
    assert (found["state"], found["found"]) == ("problem", f"{url} does not answer")
    assert "Check the network" in found["remedy"]

    proxy.heal()
    proxy.be_full(b"507 Insufficient Storage")
    found = checked()
    assert (found["state"], found["found"]) == ("problem", f"{url} accepts no writes (status 507)")

    proxy.heal()
    with monkeypatch.context() as patched:
        patched.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        found = checked()
    assert (found["state"], "accepts no writes" in found["found"]) == ("problem", True)
    assert "credentials" in found["remedy"]

    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    proxy.rewrite(b"if-match:", b"x-match-:")
    found = checked()
    assert (found["state"], "cannot be used" in found["found"]) == ("problem", True)
    assert found["remedy"] == "Correct GATEWAY_MODELS_DIR."
