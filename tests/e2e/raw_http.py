"""Requests written byte by byte."""

from collections.abc import Iterable
from typing import Any

BOUNDARY = "xBOUNDx"
FORM_TYPE = f"multipart/form-data; boundary={BOUNDARY}"


def part(name: str, content: bytes | str, file_name: str | None = None, *headers: str) -> bytes:
    """Return one part of a form, with its delimiter."""
    disposition = f'Content-Disposition: form-data; name="{name}"'
    if file_name is not None:
        disposition += f'; filename="{file_name}"'
    head = "\r\n".join([f"--{BOUNDARY}", disposition, *headers]) + "\r\n\r\n"
    return head.encode() + (content.encode() if isinstance(content, str) else content) + b"\r\n"


def form(parts: Iterable[bytes]) -> bytes:
    """Return the body of a form."""
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def fields(**values: Any) -> list[bytes]:
    """Return text parts."""
    return [part(name, str(value)) for name, value in values.items()]
