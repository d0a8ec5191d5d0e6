"""The id of a request, and the answer to unexpected exceptions."""

import logging
import re
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars

from gateway.api.responses import error_response
from gateway.errors import GatewayError

log = logging.getLogger(__name__)

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}", re.ASCII)


class RequestIdMiddleware:
    """Return the client's ``X-Request-ID`` if it is short and printable, else a new one.

    Unexpected exceptions are answered here as well. Starlette's own handler for them runs outside every middleware, so
    its answer would not carry the request id.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        bind_contextvars(request_id=request_id)
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception:
            if started:
                raise
            log.exception("%s %s", scope["method"], scope["path"])
            answer = error_response(GatewayError("the gateway failed to answer this request"))
            await answer(scope, receive, send_with_id)
