"""Requests byte for byte as .NET's HttpClient sends a MultipartFormDataContent.

Checked against what Mono's System.Net.Http writes (`test_dotnet.py` holds the bytes) and against dotnet/runtime:
parameters are quoted only if they are not tokens, the boundary always, `filename*` follows `filename`, a name
outside ASCII is a quoted MIME word, and headers keep the order in which they were set, the type first.
"""

import base64
import json
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPResponse
from urllib.parse import quote

BOUNDARY = "13e67239-c940-464c-88c2-bc334acf6583"
TEXT = "text/plain; charset=utf-8"
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_ATTRIBUTE_CHARACTERS = "!#$&+-.^_`|~"


@dataclass(frozen=True, slots=True)
class Part:
    name: str
    content: bytes
    file_name: str | None = None
    content_type: str | None = None

    @classmethod
    def text(cls, name: str, value: object) -> "Part":
        """StringContent."""
        return cls(name, str(value).encode(), None, TEXT)

    @classmethod
    def file(cls, name: str, file_name: str, content: bytes, content_type: str | None = None) -> "Part":
        """ByteArrayContent or StreamContent. The content type is optional."""
        return cls(name, content, file_name, content_type)

    def headers(self) -> str:
        disposition = f"form-data; name={_parameter(self.name)}"
        if self.file_name is not None:
            star = quote(self.file_name, safe=_ATTRIBUTE_CHARACTERS)
            disposition += f"; filename={_parameter(self.file_name)}; filename*=utf-8''{star}"
        lines = [f"Content-Disposition: {disposition}"]
        if self.content_type is not None:
            lines.insert(0, f"Content-Type: {self.content_type}")
        return "\r\n".join(lines)


def _parameter(value: str) -> str:
    if not value.isascii():
        return f'"=?utf-8?B?{base64.b64encode(value.encode()).decode()}?="'
    return value if _TOKEN.fullmatch(value) else f'"{value}"'


def body(parts: list[Part]) -> bytes:
    divider = f"\r\n--{BOUNDARY}\r\n".encode()
    written = [part.headers().encode("latin-1") + b"\r\n\r\n" + part.content for part in parts]
    return f"--{BOUNDARY}\r\n".encode() + divider.join(written) + f"\r\n--{BOUNDARY}--\r\n".encode()


def request(
    path: str, port: int, parts: list[Part], *, expect_continue: bool = False, headers: Mapping[str, str] | None = None
) -> tuple[bytes, bytes]:
    """Return head and body. .NET Framework sends `Expect: 100-continue`, .NET Core does not."""
    content = body(parts)
    lines = [
        f"POST {path} HTTP/1.1",
        *(f"{name}: {value}" for name, value in (headers or {}).items()),
        f'Content-Type: multipart/form-data; boundary="{BOUNDARY}"',
        f"Host: 127.0.0.1:{port}",
        f"Content-Length: {len(content)}",
        *(["Expect: 100-continue"] if expect_continue else []),
        "Connection: Keep-Alive",
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"), content


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    headers: dict[str, str]
    content: bytes

    def json(self) -> dict:
        return json.loads(self.content)


def exchange(port: int, head: bytes, content: bytes = b"", *, await_continue: bool = False) -> Reply:
    """Send bytes over a new connection and read one answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=120) as connection:
        connection.sendall(head)
        if await_continue:
            assert connection.recv(1024) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(content)
        with HTTPResponse(connection) as response:
            response.begin()
            headers = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, headers, response.read())
