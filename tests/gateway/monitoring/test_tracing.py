"""The part of a client's trace that is passed on to Triton."""

import logging

import pytest

from gateway.monitoring import tracing
from gateway.settings import Settings

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
def tracer():
    pytest.importorskip("opentelemetry.sdk")
    tracing.start(Settings(otlp_endpoint="http://127.0.0.1:9"))
    yield
    tracing.stop()


def test_only_the_trace_context_of_a_client_is_passed_on(tracer, caplog) -> None:
    # Flags 00: the client records nothing, so nothing is sent to a collector that is not there.
    sent = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-00", "baggage": "secret=\u00e9"}
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/infer",
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in sent.items()],
    }
    with caplog.at_level(logging.WARNING), tracing.request(scope):
        carried = tracing.headers()
    assert list(carried) == ["traceparent"]
    assert TRACE in carried["traceparent"]
    assert not caplog.records
