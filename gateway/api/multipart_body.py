"""The frame of a multipart body: text before the first boundary is skipped, the closing boundary is required."""

from starlette.types import Message, Receive

from gateway.errors import InvalidRequestError

_CRLF = b"\r\n"


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
        if not self._closed:
            seen = self._held + data
            closing = _CRLF + self._delimiter + b"--"
            self._closed = closing in seen
            self._held = seen[-len(closing) + 1 :]
        return data

    def finish(self) -> None:
        """Check that the closing boundary has arrived.

        Raises:
            InvalidRequestError: it has not.
        """
        name = self._delimiter[:70].decode("latin-1")
        if not self._started:
            raise InvalidRequestError(
                f"the multipart body does not contain its boundary {name!r}",
                "Send the boundary of the Content-Type header in the body, or let the HTTP library write both.",
            )
        if not self._closed:
            raise InvalidRequestError(
                f"the multipart body ends without its closing boundary {name + '--'!r}: it is not complete",
                "Send the whole request again. Nothing of it was used.",
            )

    def _first_delimiter(self, seen: bytes) -> bytes | None:
        """Return the body from its first delimiter on, or None if it has not arrived yet."""
        start = 0
        line = _CRLF + self._delimiter
        while (at := seen.find(line, start)) >= 0:
            after = seen[at + len(line) : at + len(line) + 2]
            if after in (_CRLF, b"--"):
                return seen[at + len(_CRLF) :]
            if len(after) < 2:
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
