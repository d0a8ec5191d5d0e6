"""Access to the dialect. The GUI sends no API key: where the gateway has keys, its address stands for one."""

import ipaddress
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp
from starlette.types import Scope as ASGIScope

from gateway.api.security.access import AccessMiddleware
from gateway.api.security.keys import ApiKey, Caller, KeyListError, KeyRing, Scope
from gateway.api.security.loopback import has_own_host
from gateway.errors import ForbiddenError, UnauthorizedError

ClientKeys = Sequence[tuple[IPv4Network | IPv6Network, str]]
"""Networks, each with the name of the key that its hosts have."""

# An endpoint that is not listed needs the scope teach.
_OPEN = {("GET", "/health")}
_INSPECT = {("GET", "/state"), ("GET", "/manifest"), ("POST", "/infer")}


_OF_PROXIES = ("x-forwarded-for", "forwarded")
"""Headers of proxies. The server believes the first one where it comes from this host, and a proxy may have passed on
what its client wrote there."""


def gui_scope(method: str, path: str) -> Scope | None:
    """Return the scope that an endpoint of the dialect needs, or None if it needs no key.

    Args:
        method: HTTP method. OPTIONS is open: the GUI asks with it whether an endpoint exists.
        path: path in the dialect.
    """
    method = "GET" if method == "HEAD" else method
    if method == "OPTIONS" or (method, path) in _OPEN:
        return None
    return "inspect" if (method, path) in _INSPECT else "teach"


class GuiAccessMiddleware(AccessMiddleware):
    """Identify the caller by the key that it sends or, if it sends none, by its address."""

    def __init__(self, app: ASGIApp, keys: KeyRing, *, allow_anonymous: bool, clients: ClientKeys) -> None:
        """Wrap an application.

        Args:
            app: the next application.
            keys: as in `AccessMiddleware`.
            allow_anonymous: as in `AccessMiddleware`.
            clients: networks with names of keys. The narrowest network of an address counts.

        Raises:
            KeyListError: a name is not that of a key.
        """
        super().__init__(app, keys, allow_anonymous=allow_anonymous, origins=())
        self._clients: list[tuple[IPv4Network | IPv6Network, ApiKey]] = []
        for network, name in sorted(clients, key=lambda each: each[0].prefixlen, reverse=True):
            key = keys.named(name)
            if key is None:
                raise KeyListError(f"GATEWAY_GUI_CLIENTS: {network}={name}: no API key has the name {name!r}")
            self._clients.append((network, key))

    def _needed_scope(self, method: str, path: str) -> Scope | None:
        return gui_scope(method, path)

    def _known(self, scope: ASGIScope, headers: Headers) -> Caller:
        if "authorization" in headers:
            return super()._known(scope, headers)
        if proxied := next((name for name in _OF_PROXIES if name in headers), None):
            raise UnauthorizedError(
                f"the request came through a proxy ({proxied}), so that its address stands for no API key",
                "Connect without the proxy, or let the proxy send 'Authorization: Bearer <key>'.",
            )
        host = scope["client"][0] if scope.get("client") else ""
        found = next((key for network, key in self._clients if _is_in(host, network)), None)
        if found is None:
            raise UnauthorizedError(
                f"the address {host!r} has no API key, and the request sends none",
                "Name the address and a key in GATEWAY_GUI_CLIENTS, or send 'Authorization: Bearer <key>'.",
            )
        if not _is_plain(headers):
            raise ForbiddenError(
                f"Host: {headers.get('host', '')[:100]!r}: a client without a key of its own calls the gateway by an "
                "address, by localhost or by a name without a dot",
                "Use the address of the gateway in the base URL. A page on the web can have any name with a dot.",
            )
        return found


def _is_in(host: str, network: IPv4Network | IPv6Network) -> bool:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address) in network


def _is_plain(headers: Headers) -> bool:
    """Return whether the Host header has a name that no page of another site can have (see DNS rebinding)."""
    name = headers.get("host", "")
    return has_own_host(name) or "." not in (urlsplit(f"//{name}").hostname or ".")
