"""Traces by OpenTelemetry, where GATEWAY_OTLP_ENDPOINT names a collector: a span a request, one a stage.

Triton continues the trace (``--trace-config mode=opentelemetry``), since the call to it carries the span's context.
Without the endpoint nothing of OpenTelemetry is imported.
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
    """Send spans from now on, in batches, from a thread of the library's own.

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
    _propagator = TraceContextTextMapPropagator()  # and no baggage: what a client writes there is not for Triton
    _tracer = _provider.get_tracer("gateway", __version__)


def stop() -> None:
    """Send what is left."""
    global _tracer, _provider
    if _provider is not None:
        with suppress(Exception):  # a collector that is gone must not keep the gateway from ending
            _provider.shutdown()
    _tracer = _provider = None


@contextmanager
def request(scope: Scope) -> Iterator[Any]:
    """The span of a request, in the client's trace where it sent a ``traceparent``; None where tracing is off."""
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
    """Name a request's span by its path template, and add what is known of it."""
    if span is not None:
        span.update_name(name)
        span.set_attributes({key: value for key, value in attributes.items() if value not in (None, "")})


def stage(name: str, seconds: float) -> None:
    """A span of the request at hand that ends now."""
    if _tracer is not None:
        end = time.time_ns()
        _tracer.start_span(name, start_time=end - int(seconds * 1e9)).end(end)


def headers() -> dict[str, str]:
    """What carries the span at hand to the next service; empty where tracing is off."""
    carried: dict[str, str] = {}
    if _tracer is not None:
        _propagator.inject(carried)
    return carried
