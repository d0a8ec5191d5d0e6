"""Request targets in all forms of RFC 9112, and HEAD requests."""

from urllib.parse import unquote

from starlette.types import ASGIApp, Receive, Scope, Send

_SCHEMES = (b"http://", b"https://")


class RequestTargetMiddleware:
    """Bring the target of a request into the form that routes know: a path without a slash at its end.

    Clients that believe to talk to a proxy send an absolute URL. Its authority then replaces the Host header (RFC 9112,
    section 3.2.2), so that both cannot differ.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] == "http":
            raw: bytes = scope.get("raw_path") or scope["path"].encode()
            if raw[:8].lower().startswith(_SCHEMES):
                authority, slash, path = raw.partition(b"//")[2].partition(b"/")
                scope["raw_path"] = slash + path or b"/"
                scope["path"] = unquote(scope["raw_path"].decode("ascii", "replace"))
                others = [(name, value) for name, value in scope["headers"] if name != b"host"]
                scope["headers"] = [(b"host", authority), *others]
            if scope["path"].endswith("/") and scope["path"] != "/":
                scope["path"] = scope["path"][:-1]
        await self._app(scope, receive, send)


class HeadMiddleware:
    """Answer HEAD like GET. The server sends the headers only."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        is_head = scope["type"] == "http" and scope["method"] == "HEAD"
        await self._app({**scope, "method": "GET"} if is_head else scope, receive, send)
