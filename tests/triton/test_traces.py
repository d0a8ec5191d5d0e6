"""One trace from the client through the gateway to Triton, from two real exporters to real collectors."""

import json
import threading
from concurrent import futures
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from tests.e2e.conftest import launch
from tests.e2e.synthetic_images import png, steel

__all__ = ["launch"]

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"


class Collector:
    """Collects spans by OTLP, over gRPC or HTTP."""

    def __init__(self) -> None:
        self.spans = []
        self._more = threading.Condition()

    def take(self, request: trace_service_pb2.ExportTraceServiceRequest) -> None:
        with self._more:
            for resource in request.resource_spans:
                for scope in resource.scope_spans:
                    self.spans += scope.spans
            self._more.notify_all()

    def of(self, trace_id: str, wanted: int):
        """Wait for that many spans of a trace, and return them."""
        with self._more:
            self._more.wait_for(lambda: len(self._found(trace_id)) >= wanted, timeout=300)
            return self._found(trace_id)

    def _found(self, trace_id: str):
        return [span for span in self.spans if span.trace_id.hex() == trace_id]


@contextmanager
def grpc_collector():
    collector = Collector()

    class Service(trace_service_pb2_grpc.TraceServiceServicer):
        def Export(self, request, context):
            collector.take(request)
            return trace_service_pb2.ExportTraceServiceResponse()

    server = grpc.server(futures.ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Service(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield collector, f"http://127.0.0.1:{port}"
    server.stop(None).wait()


def from_json(body: bytes) -> trace_service_pb2.ExportTraceServiceRequest:
    """Parse OTLP's JSON. Unlike protobuf's JSON, its ids are hexadecimal."""
    request = trace_service_pb2.ExportTraceServiceRequest()
    for resource in json.loads(body)["resourceSpans"]:
        for scope in resource["scopeSpans"]:
            spans = request.resource_spans.add().scope_spans.add().spans
            for span in scope["spans"]:
                spans.add(
                    name=span["name"],
                    trace_id=bytes.fromhex(span["traceId"]),
                    span_id=bytes.fromhex(span["spanId"]),
                    parent_span_id=bytes.fromhex(span.get("parentSpanId", "")),
                )
    return request


@contextmanager
def http_collector():
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            collector.take(from_json(body))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield collector, f"http://127.0.0.1:{server.server_port}/v1/traces"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def traced(launch_triton, launch, served_repository):
    with (
        grpc_collector() as (ours, endpoint),
        http_collector() as (theirs, url),
        launch_triton(
            "traced",
            "--",
            *("--trace-config", "mode=opentelemetry", "--trace-config", f"opentelemetry,url={url}"),
            *("--trace-config", "opentelemetry,bsp_schedule_delay=200"),
            *("--trace-config", "level=TIMESTAMPS", "--trace-config", "rate=1"),
        ) as triton,
        launch(
            "traced",
            engine="triton",
            triton_url=triton.url,
            model_repository=served_repository,
            otlp_endpoint=endpoint,
        ) as gateway,
    ):
        gateway.fit("traced", [png(steel(0)), png(steel(1))])
        yield gateway, ours, theirs


def test_one_trace_goes_from_the_client_through_the_gateway_to_triton(traced) -> None:
    gateway, ours, theirs = traced
    form = {"role_id": "steel", "roi_id": "traced", "mm_per_px": "0.2"}
    answer = gateway.client.post(
        "/infer",
        data=form,
        files={"image": ("a.png", png(steel(2)))},
        headers={"traceparent": f"00-{TRACE}-{CALLER}-01", "X-Request-ID": "traced-1"},
    )
    assert answer.status_code == 200
    spans = {span.name: span for span in ours.of(TRACE, 5)}
    assert set(spans) == {"POST /infer", "decode", "engine", "knn", "postprocess"}
    whole = spans["POST /infer"]
    assert whole.parent_span_id.hex() == CALLER
    attributes = {each.key: each.value for each in whole.attributes}
    assert attributes["request_id"].string_value == "traced-1"
    assert attributes["http.response.status_code"].int_value == 200
    for name in ("decode", "engine", "knn", "postprocess"):
        assert spans[name].parent_span_id == whole.span_id
        assert whole.start_time_unix_nano <= spans[name].start_time_unix_nano
        assert spans[name].end_time_unix_nano <= whole.end_time_unix_nano

    of_triton = theirs.of(TRACE, 1)
    assert of_triton, "Triton sent no span of this trace"
    assert whole.span_id in {span.parent_span_id for span in of_triton}
