"""What belongs to the request at hand and is wanted far from the route; worker threads see it too."""

from contextvars import ContextVar
from typing import Any

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""``X-Request-ID`` of the request at hand, empty outside one."""

actor: ContextVar[str] = ContextVar("actor", default="anonymous")
"""Who asks: the name of the API key, for the audit trail."""

client: ContextVar[str] = ContextVar("client", default="")
"""The address that asks, empty outside a request."""

facts: ContextVar[dict[str, Any] | None] = ContextVar("facts", default=None)
"""What the log's line of this request says beside its path and status; whoever knows something adds it."""


def tell(**known: Any) -> None:
    """Add to the log's line of the request at hand; outside one, nothing."""
    told = facts.get()
    if told is not None:
        told.update(known)
