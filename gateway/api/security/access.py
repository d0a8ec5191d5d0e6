"""Access control, decided before the body of a request is read."""

import base64
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as ASGIScope
from structlog.contextvars import bind_contextvars

from gateway.api.responses import error_response
from gateway.api.security.keys import ANONYMOUS, Caller, KeyRing, Scope
from gateway.api.security.loopback import by_loopback, require_local
from gateway.api.security.scopes import OPEN_ON_LOOPBACK, is_page, needed_scope
from gateway.errors import ForbiddenError, GatewayError, UnauthorizedError
from gateway.monitoring.request_context import tell


class AccessMiddleware:
    """Identify the caller, and refuse a caller without the needed scope.

    Whether the caller may use an ROI is checked by the route, because the ids may be in the body.
    """

    def __init__(self, app: ASGIApp, keys: KeyRing, *, allow_anonymous: bool, origins: tuple[str, ...]) -> None:
        """Wrap an application.

        Args:
            app: the next application.
            keys: the valid keys. Without any, every request that arrives at loopback is allowed.
            allow_anonymous: without keys, allow requests at other addresses as well.
            origins: other sites whose pages may send requests.
        """
        self._app = app
        self._keys = keys
        self._allow_anonymous = allow_anonymous
        self._origins = origins

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        try:
            caller = self._caller(scope, Headers(scope=scope))
        except GatewayError as error:
            tell(reason=error.message)
            response = error_response(error)
            if isinstance(error, UnauthorizedError) and is_page(scope["method"], _path(scope)):
                # In a header of its own: some browsers ignore a second challenge in the same header.
                response.headers.append("WWW-Authenticate", 'Basic realm="API key, as the password", charset="UTF-8"')
            return await response(scope, receive, send)
        bind_contextvars(actor=caller.name)
        scope.setdefault("state", {})["caller"] = caller
        return await self._app(scope, receive, send)

    def _caller(self, scope: ASGIScope, headers: Headers) -> Caller:
        method, path = scope["method"], _path(scope)
        self._require_own_page(headers)
        needed = self._needed_scope(method, path)
        if needed is None or (path in OPEN_ON_LOOPBACK and by_loopback(scope)):
            return ANONYMOUS
        if not self._keys:
            if not self._allow_anonymous:
                require_local(scope, headers)
            return ANONYMOUS
        caller = self._known(scope, headers)
        if not caller.may(needed):
            raise ForbiddenError(f"the key {caller.name!r} has the scope {caller.scope}; this endpoint needs {needed}")
        return caller

    def _needed_scope(self, method: str, path: str) -> Scope | None:
        """Return the scope that an endpoint needs, or None if it needs no key."""
        return needed_scope(method, path)

    def _known(self, scope: ASGIScope, headers: Headers) -> Caller:
        """Return the entry of the key that a request presents."""
        caller = self._keys.find(_presented_key(headers, or_basic=is_page(scope["method"], _path(scope))))
        if caller is None:
            raise UnauthorizedError("this gateway does not know the API key")
        return caller

    def _require_own_page(self, headers: Headers) -> None:
        """Refuse a request that a page of another site makes a browser send. A form needs no permission to be sent."""
        origin = headers.get("origin")
        if origin is None or origin in self._origins or urlsplit(origin).netloc == headers.get("host"):
            return
        raise ForbiddenError(
            f"Origin: {origin[:100]!r} is another site",
            "Add it to GATEWAY_CORS_ORIGINS if its pages may send requests.",
        )


def _path(scope: ASGIScope) -> str:
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def _presented_key(headers: Headers, *, or_basic: bool) -> str:
    given = headers.getlist("authorization")
    if not given:
        raise UnauthorizedError("an API key is required, and the request has none")
    kind, _, key = given[0].partition(" ")
    if or_basic and kind.lower() == "basic":
        key = _password(key)
    elif kind.lower() != "bearer":
        key = ""
    if len(given) > 1 or not key.strip():
        raise UnauthorizedError("Authorization: expected one header of the form 'Bearer <key>'")
    return key.strip()


def _password(credentials: str) -> str:
    """Return the password of HTTP Basic credentials (RFC 7617), or an empty string if they are invalid."""
    try:
        return base64.b64decode(credentials.strip(), validate=True).decode().partition(":")[2]
    except ValueError:
        return ""
