"""OpenTelemetry traces, if GATEWAY_OTLP_ENDPOINT names a collector: one span per request and one per stage.

The call to Triton carries the context of the span, so Triton continues the trace
(``--trace-config mode=opentelemetry``). Without the endpoint, OpenTelemetry is not imported.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from starlette.datastructures import Headers
from starlette.types import Scope

from gateway import __version__
from gateway.settings import Settings

_tracer: Any = None
_provider: Any = None
_propagator: Any = None


def start(settings: Settings) -> None:
    """Start sending spans. The library sends them in batches from its own thread.

    Raises:
        RuntimeError: an endpoint is set, but the `otlp` extra is not installed.
    """
    global _tracer, _provider, _propagator
    if settings.otlp_endpoint is None or _tracer is not None:
        return
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
    except ImportError as error:
        raise RuntimeError("GATEWAY_OTLP_ENDPOINT needs the otlp extra: GATEWAY_EXTRAS=otlp scripts/run") from error
    _provider = TracerProvider(
        resource=Resource.create({"service.name": "patchcore-gateway", "service.version": __version__})
    )
    insecure = not settings.otlp_endpoint.startswith("https://")
    _provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(settings.otlp_endpoint, insecure=insecure)))
    _propagator = TraceContextTextMapPropagator()  # without baggage, which a client may fill with anything
    _tracer = _provider.get_tracer("gateway", __version__)


def stop() -> None:
    """Send the remaining spans and stop."""
    global _tracer, _provider
    if _provider is not None:
        with suppress(Exception):  # an unreachable collector must not block the shutdown
            _provider.shutdown()
    _tracer = _provider = None


@contextmanager
def request(scope: Scope) -> Iterator[Any]:
    """Yield the span of a request, part of the client's trace if it sent a ``traceparent``. None if tracing is off."""
    if _tracer is None:
        yield None
        return
    from opentelemetry.trace import SpanKind

    context = _propagator.extract(dict(Headers(scope=scope)))
    with _tracer.start_as_current_span(
        f"{scope['method']} {scope['path'][:100]}", context=context, kind=SpanKind.SERVER
    ) as span:
        yield span


def describe(span: Any, name: str, attributes: dict[str, Any]) -> None:
    """Name a request's span by its path template, and add attributes that are not empty."""
    if span is not None:
        span.update_name(name)
        span.set_attributes({key: value for key, value in attributes.items() if value not in (None, "")})


def stage(name: str, seconds: float) -> None:
    """Add a span to the current request that ends now."""
    if _tracer is not None:
        end = time.time_ns()
        _tracer.start_span(name, start_time=end - int(seconds * 1e9)).end(end)


def headers() -> dict[str, str]:
    """Return the headers that carry the current span to the next service. Empty if tracing is off."""
    carried: dict[str, str] = {}
    if _tracer is not None:
        _propagator.inject(carried)
    return carried
