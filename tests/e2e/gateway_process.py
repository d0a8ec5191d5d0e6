"""A gateway in a separate process behind a real socket."""

import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.fork_server import ForkedProcess, fork

PROJECT = Path(__file__).resolve().parents[2]
_START_S = 300
_STOP_S = 60
_ANSWER_S = 600
PATIENT = {
    "max_queue_s": 600,
    "fit_lock_timeout_s": 600,
    "engine_timeout_s": 600,
    "engine_fit_timeout_s": 600,
    "triton_timeout_s": 300,
    "triton_fit_timeout_s": 600,
    "min_upload_bytes_s": 1,
    "shutdown_grace_s": 600,
}
"""Deadlines of a test gateway: a loaded machine must not miss them. A test about a deadline sets its own."""


@dataclass(frozen=True, slots=True)
class Gateway:
    process: subprocess.Popen[bytes] | ForkedProcess
    port: int
    client: httpx.Client
    models_dir: Path
    log: Path

    def fit(self, roi, images, *, role="steel", **fields) -> dict[str, Any]:
        """POST /fit_ok; images are (name, bytes) or bytes."""
        return answered(self.post("/fit_ok", roi, images, "images", role, fields))

    def infer(self, roi, image, *, role="steel", **fields) -> dict[str, Any]:
        return answered(self.post("/infer", roi, [image], "image", role, fields))

    def calibrate(self, roi, *, role="steel", **fields) -> dict[str, Any]:
        body = {"role_id": role, "roi_id": roi, "mm_per_px": 0.2, "ok_scores": [], "ng_scores": [], **fields}
        return answered(self.client.post("/calibrate_ng", json=body))

    def post(self, path, roi, images, field, role="steel", fields=()) -> httpx.Response:
        files = [(field, image if isinstance(image, tuple) else ("roi.png", image)) for image in images]
        form = {"role_id": role, "roi_id": roi, "mm_per_px": "0.2", **dict(fields)}
        return self.client.post(path, data={name: str(value) for name, value in form.items()}, files=files)


def answered(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    return response.json()


def wait_until(condition: Callable[[], Any], seconds: float = 300) -> None:
    """Wait for an event in another process, also on a loaded machine."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s"
        time.sleep(0.01)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def environment(settings: dict[str, Any]) -> dict[str, str]:
    """Return the environment of this process with these gateway settings in place of its own: models_dir=…

    Bytecode is kept, for a faster start. By default, images are not cut into tiles: the small model would cut those of
    most tests.
    """
    left_out = ("GATEWAY_", "PYTHONDONTWRITEBYTECODE")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    settings = {"max_tiles": 1, **settings}
    return {**clean, **{f"GATEWAY_{name.upper()}": str(value) for name, value in settings.items()}}


@contextmanager
def running(
    log: Path,
    settings: dict[str, Any],
    command: Sequence[str] | None = None,
    cwd: Path = PROJECT,
    tls: ssl.SSLContext | None = None,
    on_host: Sequence[str] = (),
) -> Iterator[Gateway]:
    """Start a gateway, wait until it listens, and stop it like a service manager.

    Args:
        log: file that its output is appended to.
        settings: `models_dir` at least.
        command: arguments of the interpreter; `{port}` stands for the port. `-m MODULE` is forked from a process that
            has the imports.
        cwd: its working directory.
        tls: certificates for HTTPS.
        on_host: what the command begins with, to run on another host, whose address is the setting `host`.
    """
    port = free_port()
    arguments = [part.format(port=port) for part in command or ("-m", "gateway")]
    process = _start(arguments, environment({"port": port, **settings}), log, cwd, on_host)
    try:
        url = f"{'http' if tls is None else 'https'}://{settings.get('host', '127.0.0.1')}:{port}"
        with httpx.Client(base_url=url, timeout=_ANSWER_S, trust_env=False, verify=tls or True) as client:
            _wait_for(client, process, log)
            yield Gateway(process, port, client, Path(settings["models_dir"]), log)
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _start(
    arguments: Sequence[str], given: dict[str, str], log: Path, cwd: Path, on_host: Sequence[str]
) -> "subprocess.Popen[bytes] | ForkedProcess":
    if arguments[0] == "-m" and not on_host:
        return fork(arguments[1:], given, log, cwd)
    with log.open("ab") as output:
        return subprocess.Popen(
            [*on_host, sys.executable, *arguments], cwd=cwd, env=given, stdout=output, stderr=subprocess.STDOUT
        )


def _wait_for(client: httpx.Client, process: subprocess.Popen[bytes] | ForkedProcess, log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the gateway ended with status {process.returncode}:\n{log.read_text()}")
        try:
            client.get("/health")
        except httpx.TransportError:
            time.sleep(0.02)
        else:
            return
    raise RuntimeError(f"the gateway did not listen within {_START_S} s:\n{log.read_text()}")
