"""Faults between a gateway and its bucket: a proxy that breaks what passes through it."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

_ANSWER = b"HTTP/1.1 %b\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class FaultyProxy:
    """Passes bytes on to a server. Each fault holds until `heal`."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._is_closed = False
        self.heal()
        threading.Thread(target=self._accept, daemon=True).start()

    def heal(self) -> None:
        """Pass everything on, at once."""
        self._delay_s = 0.0
        self._refuses = False
        self._answers: tuple[bytes, bytes] | None = None
        self._breaks: Callable[[bytes], bool] = lambda _: False
        self._rewritten = (b"", b"")

    def delay(self, seconds: float) -> None:
        """Pass each answer on after a time."""
        self._delay_s = seconds

    def refuse(self) -> None:
        """Reset all connections, and every new one."""
        self._refuses = True
        with self._lock:
            for each in self._open:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def be_busy(self) -> None:
        """Answer everything with 503 Slow Down."""
        self._answers = b"", b"503 Slow Down"

    def be_full(self, status: bytes) -> None:
        """Answer everything that is to be written with a status."""
        self._answers = b"PUT ", status

    def lose_answer_of(self, breaks: Callable[[bytes], bool]) -> None:
        """Pass requests on, and cut the connection in the place of the answer to those that `breaks` names."""
        self._breaks = breaks

    def rewrite(self, header: bytes, other: bytes) -> None:
        """Give a header of requests another name of the same length, so that the server does not see it."""
        self._rewritten = (header, other)

    def close(self) -> None:
        self._is_closed = True
        self._listener.close()
        self.refuse()

    def _accept(self) -> None:
        while not self._is_closed:
            with suppress(OSError):
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            if self._refuses:
                return
            with socket.create_connection(("127.0.0.1", self._target)) as server:
                with self._lock:
                    self._open |= {client, server}
                lost = threading.Event()
                answers = threading.Thread(target=self._answer, args=(server, client, lost), daemon=True)
                answers.start()
                while data := client.recv(1 << 16):
                    if self._answers is not None and data.startswith(self._answers[0]):
                        client.sendall(_ANSWER % self._answers[1])
                        break
                    if self._breaks(data):
                        lost.set()
                    server.sendall(data.replace(*self._rewritten) if self._rewritten[0] else data)
                with suppress(OSError):
                    server.shutdown(socket.SHUT_RDWR)
                answers.join()
                with self._lock:
                    self._open -= {client, server}

    def _answer(self, server: socket.socket, client: socket.socket, lost: threading.Event) -> None:
        with suppress(OSError):
            while data := server.recv(1 << 16):
                if lost.is_set():
                    break
                time.sleep(self._delay_s)
                client.sendall(data)
        with suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)


@contextmanager
def faulty(target: int) -> Iterator[FaultyProxy]:
    proxy = FaultyProxy(target)
    try:
        yield proxy
    finally:
        proxy.close()
