"""Who may call what, decided before anything of the body is read; and how the OpenAPI document says so."""

import base64
import ipaddress
import logging
import re
from typing import Any, get_args
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send
from structlog.contextvars import bind_contextvars

from gateway.api.responses import documented, error_response
from gateway.api.routes.docs import PartName
from gateway.api.security import keys as access
from gateway.api.security.keys import ANONYMOUS, Caller, KeyRing
from gateway.errors import ForbiddenError, GatewayError, UnauthorizedError
from gateway.monitoring.masking import masked
from gateway.monitoring.request_context import tell

# What is not listed needs teach: a new endpoint is closed until somebody says who may call it.
_OPEN = {"/health", "/ready", "/docs", "/openapi.json"}  # for balancers, and what is the same everywhere
_OPEN |= {f"/docs/{name}" for name in get_args(PartName)}
_INSPECT = {
    ("GET", "/rois"),
    ("GET", "/rois/{role_id}/{roi_id}"),
    ("GET", "/rois/{role_id}/{roi_id}/drift"),
    ("POST", "/infer"),
    ("POST", "/infer_batch"),
}
# Open to what runs on the same host, and with any key from elsewhere.
_OPEN_ON_LOOPBACK = {"/metrics"}
# What people open in a browser, which sends a key only as a password that it asked them for. It goes on to send that by
# itself, with whatever another site has it ask for: so nothing that changes anything, or is not for people, takes it.
_PAGE = re.compile("/rois/[^/]+/[^/]+/report")
_INSPECT_PATHS = [
    (method, re.compile(re.sub(r"\{\w+\}", "[^/]+", template)))
    for method, template in _INSPECT | {("GET", path) for path in _OPEN_ON_LOOPBACK}
]


def needed_scope(method: str, path: str) -> access.Scope | None:
    """The scope that an endpoint needs, or None where it is open; takes a path or its template."""
    method = "GET" if method == "HEAD" else method
    if method == "GET" and path in _OPEN:
        return None
    if any(method == known and pattern.fullmatch(path) for known, pattern in _INSPECT_PATHS):
        return "inspect"
    return "teach"


class AccessMiddleware:
    """Finds out who asks, and refuses who may not. The ROI is judged by the route: it may stand in the body."""

    def __init__(self, app: ASGIApp, keys: KeyRing, *, allow_anonymous: bool, origins: tuple[str, ...]) -> None:
        """Wrap an application.

        Args:
            app: what comes after.
            keys: valid ones; none lets everybody in who comes by loopback.
            allow_anonymous: without keys, let in who comes by another address as well.
            origins: of other sites whose pages may call.
        """
        self._app = app
        self._keys = keys
        self._allow_anonymous = allow_anonymous
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        try:
            caller = self._caller(scope, Headers(scope=scope))
        except GatewayError as error:
            tell(reason=error.message)
            response = error_response(error)
            if isinstance(error, UnauthorizedError) and _is_page(scope["method"], _path(scope)):
                # A line of its own: not every browser finds it behind another challenge.
                response.headers.append("WWW-Authenticate", 'Basic realm="API key, as the password", charset="UTF-8"')
            return await response(scope, receive, send)
        bind_contextvars(actor=caller.name)
        scope.setdefault("state", {})["caller"] = caller
        return await self._app(scope, receive, send)

    def _caller(self, scope: Scope, headers: Headers) -> Caller:
        method, path = scope["method"], _path(scope)
        self._require_own_page(headers)
        needed = needed_scope(method, path)
        if needed is None or (path in _OPEN_ON_LOOPBACK and _by_loopback(scope)):
            return ANONYMOUS
        if not self._keys:
            if not self._allow_anonymous:
                _require_local(scope, headers)
            return ANONYMOUS
        caller = self._keys.find(_presented(headers, or_basic=_is_page(method, path)))
        if caller is None:
            raise UnauthorizedError("the API key is not one of this gateway")
        if not caller.may(needed):
            raise ForbiddenError(f"the key {caller.name!r} has the scope {caller.scope}; this needs {needed}")
        return caller

    def _require_own_page(self, headers: Headers) -> None:
        """Refuse what a page of another site has its reader's browser send: a form needs nobody's leave to be sent."""
        origin = headers.get("origin")
        if origin is None or origin in self._origins or urlsplit(origin).netloc == headers.get("host"):
            return
        raise ForbiddenError(
            f"Origin: {origin[:100]!r} is another site's", "Name it in GATEWAY_CORS_ORIGINS if its pages may call."
        )


def _path(scope: Scope) -> str:
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def _is_page(method: str, path: str) -> bool:
    return method == "GET" and _PAGE.fullmatch(path) is not None


def _presented(headers: Headers, *, or_basic: bool) -> str:
    given = headers.getlist("authorization")
    if not given:
        raise UnauthorizedError("this needs an API key, and none was sent")
    kind, _, key = given[0].partition(" ")
    if or_basic and kind.lower() == "basic":
        key = _password(key)
    elif kind.lower() != "bearer":
        key = ""
    if len(given) > 1 or not key.strip():
        raise UnauthorizedError("Authorization: expected one header of the form 'Bearer <key>'")
    return key.strip()


def _password(credentials: str) -> str:
    """Of HTTP Basic authentication (RFC 7617), whoever the user; empty where these are none."""
    try:
        return base64.b64decode(credentials.strip(), validate=True).decode().partition(":")[2]
    except ValueError:
        return ""


def _require_local(scope: Scope, headers: Headers) -> None:
    """Refuse what comes from elsewhere, or from a page that gave its own name this host's address (DNS rebinding)."""
    hint = "Set GATEWAY_API_KEYS or GATEWAY_API_KEYS_FILE, or GATEWAY_ALLOW_ANONYMOUS=true to let anybody in."
    if not _by_loopback(scope):
        at, _ = scope.get("server") or ("an unknown address", 0)
        raise ForbiddenError(
            f"this gateway has no API keys, and without keys it answers on loopback only, not at {at}", hint
        )
    name = headers.get("host", "")
    if scope["server"][1] is not None and name and not _is_own(name):
        raise ForbiddenError(
            f"Host: {name[:100]!r}: without API keys this gateway answers to localhost and to addresses only", hint
        )


def _is_own(host_header: str) -> bool:
    """Whether a Host header is one that no other site's page can have: localhost, or an address instead of a name."""
    try:
        host = urlsplit(f"//{host_header}").hostname or ""
        return host == "localhost" or bool(ipaddress.ip_address(host.partition("%")[0]))
    except ValueError:
        return False


def _by_loopback(scope: Scope) -> bool:
    """Whether a request came in at an address that only this host reaches: of this connection, not as configured."""
    host, port = scope.get("server") or ("", 0)
    return port is None or is_loopback(host)  # a UNIX socket has no port


def is_loopback(host: str) -> bool:
    """Whether an address, or the name localhost, is reached from this host only."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return address.is_loopback or (mapped is not None and mapped.is_loopback)


def mask_access_log() -> None:
    """Keep keys that stand in a URL out of uvicorn's access log, which has a handler of its own."""
    logger = logging.getLogger("uvicorn.access")
    if _without_keys not in logger.filters:
        logger.addFilter(_without_keys)


def _without_keys(record: logging.LogRecord) -> bool:
    if isinstance(record.args, tuple):
        record.args = tuple(masked(arg) if isinstance(arg, str) else arg for arg in record.args)
    return True


def document_access(openapi: dict[str, Any]) -> dict[str, Any]:
    """Say in an OpenAPI document who may call what."""
    openapi.setdefault("components", {})["securitySchemes"] = {
        "key": {"type": "http", "scheme": "bearer", "description": "an API key, where the gateway has any"},
        "password": {"type": "http", "scheme": "basic", "description": "the same as the password, for a browser"},
    }
    refusals = {str(status): answer for status, answer in documented(UnauthorizedError, ForbiddenError).items()}
    for answer in refusals.values():
        del answer["model"]
        answer["content"]["application/json"]["schema"] = {"$ref": "#/components/schemas/ErrorEnvelope"}
    for path, operations in openapi["paths"].items():
        for method, operation in operations.items():
            needed = needed_scope(method.upper(), path)
            if needed is not None:
                operation["security"] = [{"key": []}]
                if _is_page(method.upper(), path):
                    operation["security"].append({"password": []})
                scope = f"Scope: `{needed}`{', and open on loopback' if path in _OPEN_ON_LOOPBACK else ''}."
                operation["description"] = f"{operation.get('description', '')}\n\n{scope}".strip()
                operation["responses"] |= refusals
    return openapi
