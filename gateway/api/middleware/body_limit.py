"""Limits on the size and the nesting of request bodies."""

import re
from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.api.json_text import require_shallow
from gateway.api.responses import error_response
from gateway.errors import TooLargeError


class BodyLimitMiddleware:
    """Refuse a body that is too large, by its declared length or while it arrives, and JSON that is nested too deeply.

    The larger limit applies on paths that accept a form with files. They refuse a body of another type before they read
    it. On all other paths a body is read into memory as a whole, so the smaller limit applies.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, max_json_bytes: int, forms: Collection[tuple[str, str]]) -> None:
        """Wrap an application.

        Args:
            app: the next application.
            max_bytes: limit of a form with files.
            max_json_bytes: limit of any other body.
            forms: methods and path templates that accept a form with files.
        """
        self._app = app
        self._max_bytes = max_bytes
        self._max_json_bytes = max_json_bytes
        self._forms = [(method, re.compile(re.sub(r"\{\w+\}", "[^/]+", path))) for method, path in forms]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        content_type = headers.get("content-type", "").lower()
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        is_form = any(scope["method"] == method and form.fullmatch(path) for method, form in self._forms)
        limit = self._max_bytes if is_form else min(self._max_bytes, self._max_json_bytes)
        declared = headers.get("content-length", "0")
        if declared.isdecimal() and int(declared) > limit:
            return await error_response(_too_large(int(declared), limit))(scope, receive, send)
        seen = 0
        json = bytearray()

        async def receive_within_limit() -> Message:
            nonlocal seen
            message = await receive()
            body = message.get("body", b"")
            seen += len(body)
            if seen > limit:
                raise _too_large(seen, limit)
            if "json" in content_type and not is_form:
                json.extend(body)
                if not message.get("more_body"):
                    require_shallow(bytes(json), "the JSON body")
            return message

        return await self._app(scope, receive_within_limit, send)


def _too_large(n_bytes: int, limit: int) -> TooLargeError:
    return TooLargeError(f"the body has {n_bytes} bytes or more; the limit is {limit}")
