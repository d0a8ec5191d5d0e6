"""Logs: one line of JSON per event, or columns on a terminal. Each line has the id of its request."""

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
    """Send all logs of this process, also those of libraries, to stderr in one form."""
    console = settings.log_format == "console" or (settings.log_format == "auto" and sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=not console),
        structlog.contextvars.merge_contextvars,
    ]
    if console:
        last: list[Processor] = [_escaped, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
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
    logging.getLogger("faiss").setLevel(
        logging.WARNING
    )  # at level info it lists the builds of itself that it did not find
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


def mask_access_log() -> None:
    """Mask API keys in uvicorn's access log, which has a handler of its own."""
    logger = logging.getLogger("uvicorn.access")
    if _mask_arguments not in logger.filters:
        logger.addFilter(_mask_arguments)


def _mask_arguments(record: logging.LogRecord) -> bool:
    if isinstance(record.args, tuple):
        record.args = tuple(masked(arg) if isinstance(arg, str) else arg for arg in record.args)
    return True


def _without_keys(_: WrappedLogger, __: str, line: Any) -> str:
    """Mask API keys in a finished line. A client may put a key into a path, which is logged in several places."""
    return masked(str(line))


def _escaped(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Escape control characters, because a path from a client must not control the reader's terminal."""
    event["event"] = _CONTROL.sub(lambda found: repr(found[0])[1:-1], str(event["event"]))
    return event


def _json(event: dict[str, Any], **_: Any) -> str:
    first = {name: event.pop(name) for name in ("timestamp", "level", "logger", "event") if name in event}
    try:
        return orjson.dumps(first | event, default=str).decode()
    except TypeError:  # json also writes lone surrogates and integers of more than 64 bits, but is slower
        return json.dumps(first | event, default=str)
