from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.e2e.gateway_process import PATIENT, PROJECT, Gateway, running
from tests.e2e.synthetic_images import png, steel

_LOGS: list[Path] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Add the logs of the gateways to the report of a failed test."""
    report = yield
    if report.failed:
        for log in _LOGS:
            said = log.read_text(errors="replace")[-4000:] if log.exists() else ""
            if said:
                report.sections.append((f"log of {log.stem}", said))
    return report


@pytest.fixture(scope="session")
def launch(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., AbstractContextManager[Gateway]]:
    """Start a gateway with other settings: launch("name", models_dir=…, **settings), or other arguments of `running`.

    It serves the small model by default. It writes to its own folders; only compiled networks are shared. Its
    deadlines are `PATIENT`.
    """
    logs = tmp_path_factory.mktemp("logs")
    compiled = PROJECT / ".cache" / "openvino"
    compiled.mkdir(parents=True, exist_ok=True)

    def start(name, *, command=None, cwd=PROJECT, tls=None, on_host=(), **settings):
        log = logs / f"{name}.log"
        if log not in _LOGS:
            _LOGS.append(log)
        folder = tmp_path_factory.mktemp(name)
        (folder / "cache").mkdir()
        (folder / "cache" / "openvino").symlink_to(compiled)
        own = {"models_dir": folder / "site" / "models", "state_dir": folder / "state", "cache_dir": folder / "cache"}
        if "model_repository" not in settings:
            settings["model_repository"] = request.getfixturevalue("small_model_repository")
        return running(log, {**PATIENT, **own, **settings}, command, cwd, tls, on_host)

    return start


@pytest.fixture(scope="session")
def gateway(launch) -> Iterator[Gateway]:
    """The gateway of most tests: default settings, but for deadlines and folders; and it keeps inspections."""
    with launch("gateway", keep_inspections=True) as started:
        yield started
        crashes = started.log.read_text().count("Traceback")
    assert crashes == 0, "tracebacks in the gateway's log, which stands below"


@pytest.fixture(scope="session")
def small_roi(gateway) -> str:
    """An ROI of two OK images without calibration. No test changes it."""
    gateway.fit("small", [png(steel(0)), png(steel(1))])
    return "small"
