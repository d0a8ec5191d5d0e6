"""The frame of a multipart body: text before the first boundary is skipped, the closing boundary is required."""

import re

from starlette.types import Message, Receive

from gateway.errors import InvalidRequestError

_CRLF = b"\r\n"
# A delimiter may be followed by spaces. The parser refuses them: without this, the whole form would be a preamble.
_DELIMITER_END = re.compile(rb"--|[ \t]*\r\n")
_DELIMITER_MAY_END = re.compile(rb"-?|[ \t]{0,200}\r?")


class MultipartFrame:
    """Watches the bytes of a multipart body (RFC 2046, section 5.1) on their way to a parser.

    The parser that Starlette uses refuses a preamble, and accepts a body that ends early: it then drops the last part.
    """

    def __init__(self, boundary: bytes) -> None:
        """Start before the first byte.

        Args:
            boundary: value of the ``boundary`` parameter.
        """
        self._delimiter = b"--" + boundary
        self._started = False
        self._closed = False
        self._continued = False
        self._held = _CRLF
        """Bytes that may be the start of a delimiter. A delimiter begins a line, and so does the body."""

    def feed(self, data: bytes) -> bytes:
        """Return the bytes to pass on to the parser."""
        if not self._started:
            found = self._first_delimiter(self._held + data)
            if found is None:
                return b""
            self._started = True
            data, self._held = found, _CRLF
        seen = self._held + data
        if not self._closed:
            closing = _CRLF + self._delimiter + b"--"
            before, found, seen = seen.partition(closing)
            self._closed = bool(found)
            self._held = b"" if found else before[-len(closing) + 1 :]
        if self._closed:
            delimiter = _CRLF + self._delimiter + _CRLF
            self._continued = self._continued or delimiter in seen
            self._held = seen[-len(delimiter) + 1 :]
        return data

    def finish(self) -> None:
        """Check that the closing boundary has arrived, and no part after it.

        Raises:
            InvalidRequestError: the body is not complete, or goes on after its end.
        """
        name = self._delimiter[:70].decode("latin-1")
        if not self._started:
            raise InvalidRequestError(
                f"the multipart body does not contain its boundary {name!r}",
                "Write the boundary of the Content-Type header into the body, with CR LF line ends, or let the HTTP "
                "library write both.",
            )
        if not self._closed:
            raise InvalidRequestError(
                f"the multipart body ends without its closing boundary {name + '--'!r}: it is not complete",
                "Send the whole request again. Nothing of it was used.",
            )
        if self._continued:
            raise InvalidRequestError(
                f"the multipart body has parts after its closing boundary {name + '--'!r}",
                "Write the closing boundary once, after the last part.",
            )

    def _first_delimiter(self, seen: bytes) -> bytes | None:
        """Return the body from its first delimiter on, or None if it has not arrived yet."""
        start = 0
        line = _CRLF + self._delimiter
        while (at := seen.find(line, start)) >= 0:
            after = seen[at + len(line) :]
            if _DELIMITER_END.match(after):
                return seen[at + len(_CRLF) :]
            if _DELIMITER_MAY_END.fullmatch(after):
                self._held = seen[at:]
                return None
            start = at + 1
        self._held = seen[-len(line) + 1 :]
        return None


def framed(receive: Receive, boundary: bytes) -> Receive:
    """Return a `receive` that skips the preamble of a multipart body, and raises if the body is not complete.

    The callable raises:
        InvalidRequestError: the body ends without its closing boundary.
    """
    frame = MultipartFrame(boundary)
    is_whole = False

    async def receive_framed() -> Message:
        nonlocal is_whole
        message = await receive()
        if is_whole or message["type"] != "http.request":
            return message
        is_whole = not message.get("more_body", False)
        body = frame.feed(message.get("body", b""))
        if is_whole:
            frame.finish()
        return {**message, "body": body}

    return receive_framed
