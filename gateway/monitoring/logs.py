"""Logs: a line of JSON an event, or columns on a terminal; each with the id of the request at hand."""

import json
import logging
import re
import sys
from typing import Any

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from gateway.monitoring.masking import masked
from gateway.settings import Settings

_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def configure(settings: Settings) -> None:
    """Have everything that this process logs, by whichever library, go to stderr in one form."""
    console = settings.log_format == "console" or (settings.log_format == "auto" and sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=not console),
        structlog.contextvars.merge_contextvars,
    ]
    if console:
        last: list[Processor] = [_harmless, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    else:
        last = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=_json)]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last, _without_keys],
        )
    )
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)
    logging.getLogger("faiss").setLevel(logging.WARNING)  # tells which builds of itself it did not find
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def _without_keys(_: WrappedLogger, __: str, line: Any) -> str:
    """The last of all: a key that somebody put into a path stands in whatever tells of it."""
    return masked(str(line))


def _harmless(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """What a client put into a path must not steer the terminal of whoever reads the log."""
    event["event"] = _CONTROL.sub(lambda found: repr(found[0])[1:-1], str(event["event"]))
    return event


def _json(event: dict[str, Any], **_: Any) -> str:
    first = {name: event.pop(name) for name in ("timestamp", "level", "logger", "event") if name in event}
    try:
        return orjson.dumps(first | event, default=str).decode()
    except TypeError:  # half a surrogate pair, or a number of more than 64 bits: the slower one writes them all
        return json.dumps(first | event, default=str)
