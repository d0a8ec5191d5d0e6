"""Requests that come from the same host."""

import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import Scope

from gateway.errors import ForbiddenError


def is_loopback(host: str) -> bool:
    """Return whether an address, or the name localhost, is reachable from this host only."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return address.is_loopback or (mapped is not None and mapped.is_loopback)


def by_loopback(scope: Scope) -> bool:
    """Return whether a request arrived at a loopback address or a UNIX socket.

    The address is that of the connection, not the configured one.
    """
    host, port = scope.get("server") or ("", 0)
    return port is None or is_loopback(host)  # a UNIX socket has no port


def require_local(scope: Scope, headers: Headers) -> None:
    """Refuse a request from another host, or with a foreign Host header.

    A page of another site can resolve its own name to this host's address (DNS rebinding). Its requests arrive at
    loopback, but their Host header holds the name of that site.

    Raises:
        ForbiddenError: the request is not local.
    """
    hint = "Set GATEWAY_API_KEYS or GATEWAY_API_KEYS_FILE, or allow everybody with GATEWAY_ALLOW_ANONYMOUS=true."
    if not by_loopback(scope):
        at, _ = scope.get("server") or ("an unknown address", 0)
        raise ForbiddenError(f"this gateway has no API keys, so it answers on loopback only, not at {at}", hint)
    name = headers.get("host", "")
    if scope["server"][1] is not None and name and not has_own_host(name):
        raise ForbiddenError(
            f"Host: {name[:100]!r}: without API keys this gateway accepts only localhost and IP addresses", hint
        )


def has_own_host(host_header: str) -> bool:
    """Return whether a Host header holds localhost or an IP address. No page of another site can have such a host."""
    try:
        host = urlsplit(f"//{host_header}").hostname or ""
        return host.removesuffix(".") == "localhost" or bool(ipaddress.ip_address(host.partition("%")[0]))
    except ValueError:
        return False
