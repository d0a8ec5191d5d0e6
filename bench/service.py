"""Start a gateway, and Triton on request, in separate processes for benchmarks, and send timed requests."""

import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import cv2

from bench.tokens import Tokens
from gateway.settings import HOME

_START_S = 180


@dataclass(frozen=True, slots=True)
class Answer:
    """One timed request."""

    seconds: float
    status: int
    body: bytes
    stages: dict[str, float]
    """Milliseconds by stage, as the gateway's Server-Timing says."""
    retry_after_s: float = 0.0


class Client:
    """One connection to the gateway, kept open, with little cost of its own."""

    def __init__(self, port: int, source: str = "127.0.0.1") -> None:
        """Connect to the port with the first request, from an address of this host, such as 127.0.0.2."""
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600, source_address=(source, 0))

    def post(self, path: str, body: bytes, content_type: str) -> Answer:
        """Send a prepared request, and time it until the last byte of the answer."""
        start = time.perf_counter()
        self._connection.request("POST", path, body, {"Content-Type": content_type})
        response = self._connection.getresponse()
        answer = response.read()
        seconds = time.perf_counter() - start
        stages = dict(
            part.strip().split(";dur=") for part in response.getheader("Server-Timing", "").split(",") if part
        )
        retry_after_s = float(response.getheader("Retry-After", "0"))
        return Answer(seconds, response.status, answer, {name: float(ms) for name, ms in stages.items()}, retry_after_s)


def multipart(fields: dict[str, str], files: Sequence[tuple[str, bytes]]) -> tuple[bytes, str]:
    """Return body and content type of a form."""
    boundary = "patchcore-bench"
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n'.encode() for k, v in fields.items()
    ]
    for i, (field, data) in enumerate(files):
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; filename="{i}.png"\r\n\r\n'
        parts.append(head.encode() + data + b"\r\n")
    return b"".join(parts) + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def roi_png(tokens: Tokens, index: int) -> bytes:
    """Return an image as the GUI sends it: a grey 384 × 384 PNG."""
    grey = cv2.cvtColor(tokens.image(index), cv2.COLOR_RGB2GRAY)
    return bytes(cv2.imencode(".png", cv2.resize(grey, (384, 384), interpolation=cv2.INTER_AREA))[1])


@contextmanager
def gateway(
    repository: Path, models_dir: Path, *, module: str = "gateway", **settings: object
) -> Iterator[tuple[int, int]]:
    """Start a gateway; yield its port and process id."""
    port = free_port()
    named = {"port": port, "models_dir": models_dir, "model_repository": repository, **settings}
    environment = {**os.environ, **{f"GATEWAY_{name.upper()}": str(value) for name, value in named.items()}}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen([sys.executable, "-m", module], cwd=HOME, env=environment, stdout=log, stderr=log)
        try:
            _wait(process, f"http://127.0.0.1:{port}/ready")
            yield port, process.pid
        finally:
            process.terminate()
            process.wait(60)


@contextmanager
def triton(repository: Path) -> Iterator[str]:
    """Start Triton by scripts/triton; yield the address of its gRPC endpoint."""
    http_port, grpc_port, metrics_port = (free_port() for _ in range(3))
    command = [str(HOME / "scripts" / "triton"), "--model-repository", str(repository), "--with", "wheel"]
    command += ["--http-port", str(http_port), "--grpc-port", str(grpc_port), "--metrics-port", str(metrics_port)]
    with ExitStack() as stack:
        log = stack.enter_context(tempfile.TemporaryFile())
        process = subprocess.Popen(command, stdout=log, stderr=log)
        stack.callback(process.wait, 60)
        stack.callback(process.terminate)
        _wait(process, f"http://127.0.0.1:{http_port}/v2/models/dinov2_vits14/ready", seconds=1800)
        yield f"127.0.0.1:{grpc_port}"


def peak_memory_mb(pid: int) -> float:
    """Return the peak memory of a process in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def free_port() -> int:
    """Return a free port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def body_of(answer: Answer) -> dict[str, object]:
    """Return the body of the gateway's answer.

    Raises:
        RuntimeError: the gateway answered with an error.
    """
    if answer.status != 200:
        raise RuntimeError(f"{answer.status}: {answer.body[:500]!r}")
    body: dict[str, object] = json.loads(answer.body)
    return body


def _wait(process: "subprocess.Popen[bytes]", url: str, seconds: float = _START_S) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with status {process.returncode}")
        try:
            urlopen(url, timeout=5).close()
        except (URLError, OSError):
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"{url} did not answer within {seconds:g} s")
