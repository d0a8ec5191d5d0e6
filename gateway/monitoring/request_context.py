"""Facts about the current request for its log line.

The request's id, its client and the name of its API key are bound with `structlog.contextvars` under ``request_id``,
``client`` and ``actor``. They appear in every log line of the request and in the audit trail, also from worker
threads.
"""

from contextvars import ContextVar
from typing import Any

facts: ContextVar[dict[str, Any] | None] = ContextVar("facts", default=None)
"""What the request's log line contains beside path and status. Worker threads add to the same dict."""


def tell(**known: Any) -> None:
    """Add facts to the log line of the current request. Outside a request, do nothing."""
    told = facts.get()
    if told is not None:
        told.update(known)
