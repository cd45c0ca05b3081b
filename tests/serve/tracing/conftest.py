"""Spans that are kept, and a collector that takes them over the network."""

import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as otlp
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from fettle.serve.tracing.export import provider_of
from fettle.serve.tracing.spans import Tracing

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = CALLER[:-1] + "0"


@dataclass
class Kept:
    """Tracing whose spans stay in memory, each at its end."""

    tracing: Tracing
    exporter: InMemorySpanExporter

    @property
    def spans(self):
        return {span.name: span for span in self.exporter.get_finished_spans()}


@pytest.fixture
def kept():
    return kept_of(1.0)


def kept_of(sample):
    exporter = InMemorySpanExporter()
    provider = provider_of(sample)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return Kept(Tracing(provider), exporter)


@dataclass
class Collector:
    """Takes OTLP over HTTP, as a collector does, and decodes it."""

    status: int = 200
    requests: list = field(default_factory=list)
    paths: list = field(default_factory=list)
    url: str = ""

    @property
    def spans(self):
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    @property
    def resource(self):
        attributes = self.requests[0].resource_spans[0].resource.attributes
        return {each.key: each.value.string_value for each in attributes}


@pytest.fixture
def collector():
    found = Collector()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            if found.status == 200:
                found.paths.append((self.path, self.headers["content-type"]))
                found.requests.append(otlp.ExportTraceServiceRequest.FromString(body))
            answer = otlp.ExportTraceServiceResponse().SerializeToString()
            self.send_response(found.status)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *words):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    found.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield found
    server.shutdown()
    server.server_close()
    thread.join(5)
