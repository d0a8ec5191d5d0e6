"""Triton as an operator meets it: scripts/triton on a repository of its own, a real server in a process of its own."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.e2e.gateway_process import PROJECT, free_port

MODEL = "dinov2_vits14"
_START_S = 120
_STOP_S = 40


@dataclass(slots=True)
class Triton:
    repository: Path
    log: Path
    options: tuple[str, ...] = ()
    http: int = field(default_factory=free_port)
    grpc: int = field(default_factory=free_port)
    metrics: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self.grpc}"

    def start(self) -> None:
        ports = ("--http-port", self.http, "--grpc-port", self.grpc, "--metrics-port", self.metrics)
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [
                    *("scripts/triton", "--with", "wheel", "--model-repository", str(self.repository)),
                    *map(str, ports),
                    *(("--", *self.options) if self.options else ()),
                ],
                cwd=PROJECT,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_S
        while not self.is_ready():
            assert self.process.poll() is None, f"Triton ended:\n{self.log.read_text()[-3000:]}"
            assert time.monotonic() < deadline, f"Triton is not ready:\n{self.log.read_text()[-3000:]}"
            time.sleep(0.1)

    def is_ready(self) -> bool:
        try:
            return self._get(self.http, f"/v2/models/{MODEL}/ready").status_code == 200
        except httpx.TransportError:
            return False

    def stop(self) -> None:
        """As a service manager would."""
        assert self.process is not None
        self.signal(signal.SIGCONT)
        self.process.terminate()
        try:
            self.process.wait(_STOP_S)
        finally:
            self.signal(signal.SIGKILL)

    def kill(self) -> None:
        """As a crash would: the server and its backend's processes at once."""
        assert self.process is not None
        self.signal(signal.SIGKILL)
        self.process.wait()

    def signal(self, number: int) -> None:
        """Send a signal to the server and its backend's processes."""
        assert self.process is not None
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def reload(self) -> None:
        """Have it read its model's configuration again, as after a new export."""
        response = httpx.post(f"http://127.0.0.1:{self.http}/v2/repository/models/{MODEL}/load", timeout=120)
        assert response.status_code == 200, response.text

    def metric(self, name: str, **labels: str) -> float:
        """Sum of a metric over the label sets that have `labels`."""
        total = 0.0
        for line in self._get(self.metrics, "/metrics").text.splitlines():
            if line.startswith(f"{name}{{") and all(f'{key}="{value}"' in line for key, value in labels.items()):
                total += float(line.rsplit(" ", 1)[1])
        return total

    def shared_memory(self) -> list[str]:
        """Names of the regions that clients have registered."""
        regions = self._get(self.http, "/v2/systemsharedmemory/status").json()
        return [region["name"] for region in regions]

    def _get(self, port: int, path: str) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{port}{path}", timeout=5, trust_env=False)


@contextmanager
def running_triton(triton: Triton) -> Iterator[Triton]:
    """Start it; end it however the test left it."""
    triton.start()
    try:
        yield triton
    finally:
        if triton.process is not None and triton.process.poll() is None:
            triton.stop()


def copy_of(repository: Path, target: Path) -> Path:
    """A repository of the same model to write a configuration into: large files are links."""
    shutil.copytree(repository, target, copy_function=_link)
    for lock in target.rglob(".tmp-lock"):
        lock.unlink()
    return target


def _link(source: str, target: str) -> None:
    if Path(source).stat().st_size > 1 << 20:
        os.link(source, target)
    else:
        shutil.copy2(source, target)
