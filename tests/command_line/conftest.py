"""The command line against a real gateway."""

import os
from collections.abc import Callable

import pytest
from typer.testing import CliRunner, Result

from command_line.app import app
from tests.clients.conftest import gateway, launch, pytest_runtest_makereport
from tests.e2e.synthetic_images import png, steel, with_blob

__all__ = ["gateway", "launch", "pytest_runtest_makereport"]


@pytest.fixture(scope="session")
def url(gateway) -> str:
    return f"http://127.0.0.1:{gateway.port}"


@pytest.fixture
def run(url, monkeypatch) -> Callable[..., Result]:
    """Run a command in this process, at the gateway: run("roi", "list")."""
    for name in [each for each in os.environ if each.startswith(("GATEWAY_", "PATCHCORE_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATCHCORE_URL", url)

    def command(*arguments: object, status: int = 0, **options) -> Result:
        result = CliRunner().invoke(app, [str(each) for each in arguments], **options)
        assert result.exit_code == status, f"{result.exit_code}: {result.output}{result.exception}"
        return result

    return command


@pytest.fixture(scope="session")
def parts(tmp_path_factory):
    """A folder of parts: `good` with six images, `test` with an OK part, an NG part and a damaged file below it."""
    folder = tmp_path_factory.mktemp("parts")
    spoiled = png(with_blob(steel(9), (190, 200), 30, 1.0)[0])
    files = {f"good/{seed}.png": png(steel(seed)) for seed in range(6)}
    files |= {"test/ok.png": png(steel(0)), "test/ng/hole.png": spoiled, "test/ng/cut.png": spoiled[:2000]}
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture(scope="session")
def taught(gateway, parts):
    """An ROI that has learned the good parts and is calibrated. No test changes it."""
    gateway.fit("taught", [path.read_bytes() for path in sorted((parts / "good").iterdir())], role="cli")
    gateway.calibrate("taught", role="cli")
    return "cli/taught"
