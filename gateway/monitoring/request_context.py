"""Facts of the request at hand for its line in the log.

The request's id, its client and the name of its API key are bound with `structlog.contextvars` under ``request_id``,
``client`` and ``actor``. They are in every line of the log and in the audit trail, and worker threads see them too.
"""

from contextvars import ContextVar
from typing import Any

facts: ContextVar[dict[str, Any] | None] = ContextVar("facts", default=None)
"""What the log's line of this request says beside its path and status. Worker threads add to the same dict."""


def tell(**known: Any) -> None:
    """Add facts to the log's line of the request at hand. Outside a request, do nothing."""
    told = facts.get()
    if told is not None:
        told.update(known)
