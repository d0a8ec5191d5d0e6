"""The scope that each endpoint needs."""

import re
from typing import get_args

from gateway.api.routes.docs import PartName
from gateway.api.security.keys import Scope

# An endpoint that is not listed needs the scope teach. A new endpoint is therefore closed until it is listed here.
_OPEN = {"/health", "/ready", "/docs", "/openapi.json", "/openapi-3.0.json"}
_OPEN |= {"/"}  # the page: it asks for the key that its requests need
_OPEN |= {f"/docs/{name}" for name in get_args(PartName)}
_INSPECT = {
    ("GET", "/rois"),
    ("GET", "/rois/{role_id}/{roi_id}"),
    ("GET", "/rois/{role_id}/{roi_id}/drift"),
    ("POST", "/infer"),
    ("POST", "/infer_batch"),
}
_PART_OF_THE_PAGE = re.compile(r"/page/[0-9a-f]+/[\w./-]+", re.ASCII)
OPEN_ON_LOOPBACK = frozenset({"/metrics"})
"""Paths that need no key from the same host, and any key from elsewhere."""
_PAGE = re.compile("/rois/[^/]+/[^/]+/report")
_INSPECT_PATHS = [
    (method, re.compile(re.sub(r"\{\w+\}", "[^/]+", template)))
    for method, template in _INSPECT | {("GET", path) for path in OPEN_ON_LOOPBACK}
]


def needed_scope(method: str, path: str) -> Scope | None:
    """Return the scope that an endpoint needs, or None if it needs no key.

    Args:
        method: HTTP method.
        path: path of a request, or path template of a route.
    """
    method = "GET" if method == "HEAD" else method
    if method == "GET" and (path in _OPEN or _PART_OF_THE_PAGE.fullmatch(path)):
        return None
    if any(method == known and pattern.fullmatch(path) for known, pattern in _INSPECT_PATHS):
        return "inspect"
    return "teach"


def is_page(method: str, path: str) -> bool:
    """Return whether people open an endpoint in a browser.

    A browser sends a key only as a password that it asked for (HTTP Basic). It then sends the password with every
    request to the gateway, also with one that a page of another site causes. So only pages that change nothing accept
    a password.
    """
    return method in ("GET", "HEAD") and _PAGE.fullmatch(path) is not None
