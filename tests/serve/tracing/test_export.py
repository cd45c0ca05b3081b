"""Spans on their way to a collector: one that takes them, one that refuses, and none at all."""

import socket

import pytest
from tests.serve.tracing.conftest import CALLER

from fettle.serve.tracing.export import exported, provider_of


def trace(tracing, headers=()):
    with tracing.request("GET /v2", dict(headers), {"http.request.method": "GET"}):
        pass


def test_a_collector_gets_what_was_traced(collector):
    tracing = exported(f"{collector.url}/v1/traces", 1.0)
    trace(tracing, {"traceparent": CALLER})
    tracing.close()
    (span,) = collector.spans
    assert collector.paths == [("/v1/traces", "application/x-protobuf")]
    assert (span.name, span.trace_id.hex()) == ("GET /v2", CALLER[3:35])
    assert span.parent_span_id.hex() == CALLER[36:52]
    assert collector.resource["service.name"] == "fettle"
    assert tracing.failed == 0


def test_the_server_is_called_what_the_environment_says(monkeypatch):
    monkeypatch.setenv("OTEL_SERVICE_NAME", "digits")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=staging")
    found = provider_of(1.0).resource.attributes
    assert found["service.name"] == "digits"
    assert found["deployment.environment.name"] == "staging"


def test_what_a_collector_refuses_is_counted(collector):
    collector.status = 400
    tracing = exported(f"{collector.url}/v1/traces", 1.0)
    trace(tracing)
    trace(tracing)
    tracing.close()
    assert tracing.failed == 2


@pytest.mark.slow
def test_a_collector_that_is_away_costs_spans_and_nothing_else():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    tracing = exported(f"http://127.0.0.1:{port}/v1/traces", 1.0)
    trace(tracing)
    tracing.close()
    assert tracing.failed == 1
