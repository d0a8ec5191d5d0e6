"""What belongs to the request at hand and is wanted far from the route."""

from contextvars import ContextVar

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""``X-Request-ID`` of the request at hand, empty outside one."""
