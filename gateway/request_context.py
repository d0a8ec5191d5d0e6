"""What belongs to the request being answered, wherever in the code it is; worker threads see it too."""

from contextvars import ContextVar

request_id: ContextVar[str] = ContextVar("request_id", default="-")

actor: ContextVar[str] = ContextVar("actor", default="anonymous")
"""Who asks: the name of the API key, for the audit trail."""

client: ContextVar[str] = ContextVar("client", default="-")
"""The address that asks."""
