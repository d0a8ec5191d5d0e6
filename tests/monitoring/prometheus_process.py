"""A real Prometheus with the rules of docker/prometheus, whose waiting times are shortened."""

import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.e2e.gateway_process import free_port
from tests.monitoring.expressions import DOCKER, RULES

_START_S = 60
_WAIT_S = 90
_FOR = "2s"
_FAULT_WINDOW = "5s"


@dataclass(frozen=True, slots=True)
class Sample:
    labels: dict[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Prometheus:
    client: httpx.Client

    def query(self, expression: str) -> list[Sample]:
        """Return the current instant vector of an expression."""
        answer = self.client.get("/api/v1/query", params={"query": expression})
        assert answer.status_code == 200, f"{expression}: {answer.text}"
        data = answer.json()["data"]
        assert data["resultType"] == "vector", expression
        return [Sample(each["metric"], float(each["value"][1])) for each in data["result"]]

    def value(self, expression: str) -> float:
        """Return the value of an expression with one result."""
        (sample,) = self.query(expression)
        return sample.value

    def firing(self, name: str) -> list[dict[str, str]]:
        """Return the labels of the firing alerts of a name."""
        return [each["labels"] for each in self._alerts(name) if each["state"] == "firing"]

    def active(self, name: str) -> bool:
        """Return whether an alert of a name is pending or firing."""
        return bool(self._alerts(name))

    def _alerts(self, name: str) -> list[dict[str, Any]]:
        alerts = self.client.get("/api/v1/alerts").json()["data"]["alerts"]
        return [each for each in alerts if each["labels"]["alertname"] == name]


def wait_until(condition: Callable[[], Any], what: str, seconds: float = _WAIT_S) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.2)


@contextmanager
def running_prometheus(binary: str, folder: Path, *, gateway: int, triton: int, key: str) -> Iterator[Prometheus]:
    """Start one on the configuration of docker/, and end it.

    Changes to the configuration: the targets, where the key is, and a scrape and an evaluation every second.
    Changes to the rules: an alert's `for` is 2 s, and the window of ArtifactFault 5 s, so that tests can
    wait for its end.

    Args:
        binary: Prometheus' executable.
        folder: an empty one, for configuration, data and log.
        gateway: port to scrape.
        triton: port to scrape.
        key: API key for the gateway.
    """
    (folder / "rules").mkdir(parents=True)
    for path in RULES:
        (folder / "rules" / path.name).write_text(_hurried(path.read_text()))
    (folder / "metrics_key").write_text(key)
    configuration = yaml.safe_load((DOCKER / "prometheus" / "prometheus.yml").read_text())
    configuration["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    ports = {"gateway": gateway, "triton": triton}
    for job in configuration["scrape_configs"]:
        job["static_configs"] = [{"targets": [f"127.0.0.1:{ports[job['job_name']]}"]}]
        if "authorization" in job:
            job["authorization"]["credentials_file"] = "metrics_key"
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    port = free_port()
    command = [
        binary,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as client:
            wait_until(lambda: _answers(client, process, folder / "prometheus.log"), "Prometheus ready", _START_S)
            yield Prometheus(client)
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _hurried(rules: str) -> str:
    hurried = re.sub(r"^( +for: )\w+$", rf"\g<1>{_FOR}", rules, flags=re.MULTILINE)
    return re.sub(r"(gateway_artifact_faults_total(?:\[| offset ))15m", rf"\g<1>{_FAULT_WINDOW}", hurried)


def _answers(client: httpx.Client, process: "subprocess.Popen[bytes]", log: Path) -> bool:
    assert process.poll() is None, f"Prometheus ended with status {process.returncode}:\n{log.read_text()}"
    try:
        return client.get("/-/ready").status_code == 200
    except httpx.TransportError:
        return False
