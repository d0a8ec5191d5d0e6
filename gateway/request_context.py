"""What belongs to the request at hand and is wanted far from the route; worker threads see it too."""

from contextvars import ContextVar

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""``X-Request-ID`` of the request at hand, empty outside one."""

actor: ContextVar[str] = ContextVar("actor", default="anonymous")
"""Who asks: the name of the API key, for the audit trail."""

client: ContextVar[str] = ContextVar("client", default="")
"""The address that asks, empty outside a request."""
