"""A gate in front of the network of a served model. While it is closed, requests are queued and not run."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_GATE = """

# --- added by tests/triton/gate.py ---
_gate = os.open({tickets!r}, os.O_RDWR)
_execute = TritonPythonModel.execute


def _execute_with_a_ticket(self, requests):
    if os.path.exists({closed!r}):
        open({waiting!r}, "w").close()
        os.read(_gate, 1)
    return _execute(self, requests)


TritonPythonModel.execute = _execute_with_a_ticket
"""


class Gate:
    """While the gate is closed, the model process needs one ticket for each execution. The network is the real one."""

    def __init__(self, folder: Path) -> None:
        self._tickets, self._closed, self._waiting = (folder / name for name in ("tickets", "closed", "waiting"))

    @property
    def has_one_waiting(self) -> bool:
        """Return whether a batch has reached the gate since it was closed."""
        return self._waiting.exists()

    def install(self, version: Path) -> None:
        """Install the gate in a version folder that Triton has not loaded yet."""
        if not self._tickets.exists():
            self._tickets.parent.mkdir(parents=True, exist_ok=True)
            os.mkfifo(self._tickets)
        with (version / "model.py").open("a") as file:
            names = {"tickets": self._tickets, "closed": self._closed, "waiting": self._waiting}
            file.write(_GATE.format(**{name: str(path) for name, path in names.items()}))

    @contextmanager
    def closed(self) -> Iterator[Callable[[int], None]]:
        """Close the gate, and open it at the end; the yielded function lets a number of executions through."""
        tickets = os.open(self._tickets, os.O_RDWR | os.O_NONBLOCK)
        try:
            self._take_back(tickets)
            self._waiting.unlink(missing_ok=True)
            self._closed.touch()
            try:
                yield lambda count: os.write(tickets, b"t" * count)
            finally:
                self._closed.unlink()
                os.write(tickets, b"t")  # for a waiting execution
        finally:
            os.close(tickets)

    def _take_back(self, tickets: int) -> None:
        try:
            while os.read(tickets, 64):
                pass
        except BlockingIOError:
            pass
