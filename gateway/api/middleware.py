"""Around every request: its id, headers for browsers, and the limit on its body while it streams in."""

import logging
import re
import uuid
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars

from gateway.api.json_depth import require_shallow
from gateway.api.responses import error_response
from gateway.errors import GatewayError, TooLargeError

log = logging.getLogger(__name__)

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}", re.ASCII)


_FOR_BROWSERS = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",  # what is answered belongs to whoever has the key
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class SecurityHeadersMiddleware:
    """Tells browsers to do nothing with an answer but show it; a route that needs more has said so itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _FOR_BROWSERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_headers)


class RequestIdMiddleware:
    """Echoes the client's ``X-Request-ID`` where it is a harmless one, else makes one.

    What nobody foresaw is answered here too: Starlette's own handler for it stands outside every middleware, so its
    answer would lack the id that the client is asked to send in.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        given = Headers(scope=scope).get("x-request-id", "")
        chosen = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        bind_contextvars(request_id=chosen)
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message)["X-Request-ID"] = chosen
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception:
            if started:
                raise
            log.exception("%s %s", scope["method"], scope["path"])
            answer = error_response(GatewayError("the gateway failed to answer this request"))
            await answer(scope, receive, send_with_id)


class BodyLimitMiddleware:
    """Refuses a body over its limit by its declared length, or as soon as that much has come in, and JSON too deep."""

    def __init__(self, app: ASGIApp, max_bytes: int, max_json_bytes: int, forms: Collection[str]) -> None:
        """Wrap an application.

        Args:
            app: what comes after.
            max_bytes: of a form with files.
            max_json_bytes: of any other body.
            forms: paths that take a form with files; elsewhere a body that says it is one is read whole as well.
        """
        self._app = app
        self._max_bytes = max_bytes
        self._max_json_bytes = max_json_bytes
        self._forms = frozenset(forms)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        content_type = headers.get("content-type", "").lower()
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        is_form = content_type.startswith("multipart/form-data") and path in self._forms
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
    return TooLargeError(f"the body has {n_bytes} bytes or more; at most {limit} are served")
