"""Programs of ours in processes that are forked after their imports: `python -m MODULE` without two seconds of imports.

``python -m tests.fork_server`` imports what a gateway needs, but for the module that reads the settings. Then it takes
requests, one line of JSON each. It has one thread and has opened nothing, so that a child is like a new process. Tests
of commands start real interpreters.
"""

import ast
import atexit
import functools
import importlib
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
_MORE = ("gateway.__main__", "uvicorn.lifespan.on", "uvicorn.loops.auto", "uvicorn.protocols.http.h11_impl", "openvino")
_asking = threading.Lock()
"""Tests start and kill processes in several threads: the next request is written when the answer has been read."""


class ForkedProcess:
    """What the tests need of `subprocess.Popen`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ends = os.pidfd_open(pid)

    def poll(self) -> int | None:
        return self._returned(0)

    def wait(self, timeout: float | None = None) -> int:
        returned = self._returned(timeout)
        if returned is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
        return returned

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _returned(self, timeout: float | None) -> int | None:
        # A process that has ended is left as it is until its parent, the server, is asked for its status.
        if self.returncode is None and select.select([self._ends], [], [], timeout)[0]:
            self.returncode = _ask(wait=self.pid)
            os.close(self._ends)
        return self.returncode


def fork(arguments: Sequence[str], environment: dict[str, str], log: Path, cwd: Path = PROJECT) -> ForkedProcess:
    """Start `python -m ARGUMENTS…`; its output is appended to `log`."""
    return ForkedProcess(_ask(arguments=arguments, environment=environment, log=str(log), cwd=str(cwd)))


def _ask(**request: Any) -> int:
    with _asking:
        server = _server()
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        return int(server.stdout.readline())


@functools.cache
def _server() -> "subprocess.Popen[str]":
    """The server of this process, which ends with it."""
    command = [sys.executable, "-m", "tests.fork_server"]
    server = subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(server.communicate)
    return server


def _serve() -> dict[str, Any]:
    """Answer requests; return, in a child, the one that it is made for."""
    for line in sys.stdin:
        request: dict[str, Any] = json.loads(line)
        if "wait" in request:
            answer = os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])
        else:
            answer = os.fork()
            if answer == 0:
                return request
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()
    sys.exit()


def _become(request: dict[str, Any]) -> None:
    for descriptor, path, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND),
    ):
        opened = os.open(path, flags, 0o666)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.dup2(1, 2)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = request["arguments"]
    sys.modules.pop(f"{sys.argv[0]}.__main__", None)  # imported for its imports, and now run
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    app = ast.parse((PROJECT / "gateway" / "app.py").read_text())
    for module in (*_MORE, *(node.module for node in app.body if isinstance(node, ast.ImportFrom))):
        importlib.import_module(module)
    _become(_serve())
