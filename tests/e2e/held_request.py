"""A request that a gateway has admitted and cannot finish, since the last byte of its body is missing."""

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPResponse
from typing import Any

import httpx

from tests.e2e.dotnet_multipart import Reply
from tests.e2e.gateway_process import Gateway, wait_until

_ANSWER_S = 600


@dataclass(frozen=True, slots=True)
class HeldRequest:
    connection: socket.socket
    last_byte: bytes

    def answer(self) -> Reply:
        """Send the last byte, and wait for the answer."""
        self.connection.sendall(self.last_byte)
        return self.reply()

    def reply(self) -> Reply:
        """Read the answer without the last byte."""
        with HTTPResponse(self.connection) as response:
            response.begin()
            return Reply(response.status, dict(response.getheaders()), response.read())


@contextmanager
def held(gateway: Gateway, path: str, work: str, data: dict[str, str], files: list[Any]) -> Iterator[HeldRequest]:
    """Post a form without its last byte, and wait until the gateway counts it as `work` in flight."""
    request = httpx.Request("POST", f"http://127.0.0.1:{gateway.port}{path}", data=data, files=files)
    body = request.read()
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=_ANSWER_S) as connection:
        connection.sendall(f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body[:-1])
        wait_until(lambda: in_flight(gateway, work) > 0)
        yield HeldRequest(connection, body[-1:])


def in_flight(gateway: Gateway, work: str) -> float:
    """Return the number of requests to `inspect` or `fit` in flight."""
    return metric(gateway, f'gateway_in_flight{{work="{work}"}}')


def metric(gateway: Gateway, series: str) -> float:
    """Return the value of a series of a gateway, read on a separate connection; 0 before it exists."""
    text = httpx.get(f"http://127.0.0.1:{gateway.port}/metrics", timeout=_ANSWER_S).text
    found = re.search(rf"^{re.escape(series)} (\S+)$", text, re.MULTILINE)
    return 0.0 if found is None else float(found[1])
