"""A real tritonserver for tests. scripts/triton starts it on free ports, with a separate repository."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from export.triton_config import write_serving_files
from export.triton_options import ServingOptions
from tests.triton.gate import Gate

PROJECT = Path(__file__).resolve().parents[2]
SCRIPT = PROJECT / "scripts" / "triton"
MODEL = "dinov2_vits14"
START_TIMEOUT_S = 300


def serving_repository(
    folder: Path, versions: Mapping[int, Path], options: ServingOptions, *, serve: int | None = None
) -> Path:
    """Make a model repository in `folder` with these version folders under these numbers, configured by `options`."""
    for number, source in versions.items():
        add_version(folder, number, source)
    write_serving_files(folder / MODEL, options, version=serve)
    for model in folder.glob(f"{MODEL}/*/model.py"):
        gate_of(folder).install(model.parent)
    return folder


def gate_of(repository: Path) -> Gate:
    """Return the gate of a repository made by `serving_repository`."""
    return Gate(repository.with_name("gate"))


def add_version(repository: Path, number: int, source: Path) -> None:
    """Copy the version folder `source` into `repository`, without loading it."""
    target = repository / MODEL / str(number)
    target.mkdir(parents=True)
    for name in ("model.json", "model.onnx"):
        # A graph is never changed, so a link saves the copy of its 87 MB.
        try:
            os.link(source / name, target / name)
        except OSError:
            shutil.copy(source / name, target / name)


def free_ports(count: int) -> list[int]:
    """Return different free ports. All are bound before the first is closed."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@dataclass
class TritonServer:
    """One server, running or not. It restarts on the same ports."""

    repository: Path
    log: Path
    http: int
    grpc: int
    metrics_port: int
    arguments: tuple[str, ...] = ()
    model: str = MODEL
    process: "subprocess.Popen[bytes] | None" = field(default=None, repr=False)
    starts: int = 0
    sessions: list[int] = field(default_factory=list, repr=False)
    """Process groups of all starts."""

    @property
    def url(self) -> str:
        """Address of the gRPC endpoint, for tritonclient."""
        return f"127.0.0.1:{self.grpc}"

    @property
    def model_folder(self) -> Path:
        return self.repository / self.model

    @property
    def pid(self) -> int:
        """Process id of tritonserver. scripts/triton becomes this process."""
        assert self.process is not None
        return self.process.pid

    @contextlib.contextmanager
    def held(self) -> Iterator[Callable[[int], None]]:
        """Queue requests without running them; the yielded function lets a number of executions through."""
        with gate_of(self.repository).closed() as let:
            yield let

    def wait_queued(self, count: int = 0, timeout_s: float = 120) -> None:
        """While held, wait until one batch is executing and at least so many requests are queued."""
        deadline = time.monotonic() + timeout_s
        while not gate_of(self.repository).has_one_waiting or self._queued() < count:
            assert time.monotonic() < deadline, f"{self._queued():g} requests are in the queue, not {count}"
            time.sleep(0.01)

    def _queued(self) -> float:
        return self.metrics().get("nv_inference_pending_request_count", 0)

    def start(self) -> None:
        """Start the server and wait until the model answers."""
        self.launch()
        self.wait_ready()

    def launch(self) -> None:
        """Start the server without waiting."""
        self.starts += 1
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    SCRIPT,
                    *("--with", "wheel"),
                    *("--name", self.model),
                    *("--model-repository", self.repository),
                    *("--http-port", str(self.http)),
                    *("--grpc-port", str(self.grpc)),
                    *("--metrics-port", str(self.metrics_port)),
                    *self.arguments,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # In a separate session, leftover processes can be found, and Ctrl-C does not reach it.
                start_new_session=True,
            )
        self.sessions.append(self.process.pid)

    def wait_ready(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait until the server says that the model is ready, or fail with its log."""
        deadline = time.monotonic() + timeout_s
        while self.said().count("==> ready: ") < self.starts or not self.ready():
            assert self.running(), f"Triton ended before it was ready:\n{self.said()}"
            assert time.monotonic() < deadline, f"Triton was not ready in {timeout_s} s:\n{self.said()}"
            time.sleep(0.1)

    def ready(self) -> bool:
        """Return whether the model is served."""
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.http}/v2/models/{self.model}/ready", timeout=5
            ) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def running(self) -> bool:
        """Return whether the process exists."""
        return self.process is not None and self.process.poll() is None

    def settled_metrics(self) -> dict[str, float]:
        """Return `metrics` after they stop changing, since Triton counts a request shortly after its answer."""
        before: dict[str, float] = {}
        now = self.metrics()
        deadline = time.monotonic() + 60
        while before != now and time.monotonic() < deadline:
            time.sleep(0.3)
            before, now = now, self.metrics()
        return now

    def metrics(self) -> dict[str, float]:
        """Return Triton's own counters of the model, by name and `reason`, summed over versions."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
        found: dict[str, float] = {}
        for name, labels, value in re.findall(r"^(nv_inference\w+)\{(.*)\} (\S+)$", text, re.MULTILINE):
            reason = re.search(r'reason="(\w+)"', labels)
            key = f"{name}:{reason[1]}" if reason else name
            found[key] = found.get(key, 0) + float(value)
        return found

    def stop(self, number: int = signal.SIGTERM, timeout_s: float = 40) -> int:
        """Send a signal, wait for the end, and return the exit status."""
        assert self.process is not None
        if self.running():
            self.process.send_signal(number)
        return self.process.wait(timeout_s)

    def kill(self) -> None:
        """Kill the server, as a crash does. The processes of the Python backend end by themselves."""
        shared = self._shared_memory()
        self.stop(signal.SIGKILL)
        for path in shared:
            path.unlink(missing_ok=True)

    def end(self) -> None:
        """Kill all processes. A clean stop takes Triton seconds, and most tests do not need it."""
        if self.process is not None:
            shared = self._shared_memory()
            # Regions of all starts: a stub of a killed server may hang on a lock in shared memory forever.
            for group in self.sessions:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(group, signal.SIGKILL)
            self.process.wait()
            for path in shared:
                path.unlink(missing_ok=True)

    def _shared_memory(self) -> set[Path]:
        """Return the regions of the Python backend, which a killed server leaves behind."""
        found = set()
        for pid in self.processes():
            with contextlib.suppress(OSError):
                maps = Path(f"/proc/{pid}/maps").read_text()
                found |= {Path(name) for name in re.findall(r"/dev/shm/triton_python_backend\S+", maps)}
        return found

    def stall(self) -> None:
        """Suspend the server: it accepts connections and requests, but does not answer. `resume` wakes it."""
        for pid in self.processes():
            os.kill(pid, signal.SIGSTOP)

    def resume(self) -> None:
        for pid in self.processes():
            os.kill(pid, signal.SIGCONT)

    def processes(self) -> list[int]:
        """Return the live processes of its session: tritonserver and the processes of the Python backend."""
        assert self.process is not None
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                # pid (name) state ppid pgrp session …, where a name may hold spaces and brackets
                after_name = stat.read_text().rpartition(")")[2].split()
                if int(after_name[3]) == self.process.pid and after_name[0] != "Z":
                    found.append(int(stat.parent.name))
        return sorted(found)

    def said(self) -> str:
        """Return the log of all starts."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""


@contextlib.contextmanager
def running_triton(
    repository: Path, log: Path, *arguments: str, start: bool = True, model: str = MODEL
) -> Iterator[TritonServer]:
    """Run a server on free ports. It is killed afterwards in any case."""
    http, grpc, metrics = free_ports(3)
    server = TritonServer(repository, log, http, grpc, metrics, arguments, model)
    try:
        if start:
            server.start()
        yield server
    finally:
        server.end()
