"""An HTTP server with scripted replies: refusals and failures that a healthy gateway does not show."""

import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_READY = {"engine": "", "storage": "", "process": "", "networks": [], "input_sizes": [], "degraded": []}
OK = (200, {}, {"ready": True, **_READY})
DROP = "drop"
"""Close the connection without an answer."""
HANG = "hang"
"""Answer only when the test ends."""


def refusal(status: int, code: str, **headers: str) -> tuple[int, dict[str, str], object]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return status, named, {"error": {"code": code, "message": "as told", "hint": "none"}}


@dataclass
class Scripted:
    url: str
    requests: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    """Method, path, headers and body of each request."""
    times: list[float] = field(default_factory=list)


@contextmanager
def scripted(*replies: object) -> Iterator[Scripted]:
    """Serve replies in their order, the last one from then on: (status, headers, JSON or text), DROP or HANG."""
    ended = threading.Event()
    waiting = list(replies)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            server.requests.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            server.times.append(time.monotonic())
            reply = waiting.pop(0) if len(waiting) > 1 else waiting[0]
            if reply == HANG:
                ended.wait(60)
            if isinstance(reply, str):
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            assert isinstance(reply, Sequence)
            status, headers, content = reply
            data = content.encode() if isinstance(content, str) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            self.answer()

        def do_POST(self) -> None:
            self.answer()

        def do_DELETE(self) -> None:
            self.answer()

        def log_message(self, *arguments: object) -> None:
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server = Scripted(f"http://127.0.0.1:{listener.server_address[1]}")
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        ended.set()
        listener.shutdown()
        thread.join()
        listener.server_close()
