"""A span for each request over HTTP, with the queue and the engine below it."""

import asyncio
import json

import pytest
from opentelemetry.trace import SpanKind, StatusCode
from tests.serve.tracing.conftest import CALLER, UNSAMPLED, kept_of

from fettle.serve.http._body import HungUp
from fettle.serve.http.app import REFUSED
from fettle.serve.http.handlers import Handlers
from fettle.serve.http.security import Gate
from fettle.serve.repository import Repository
from fettle.serve.service import Service
from fettle.serve.settings import Settings
from fettle.serve.tracing import app_of

INFER = "/v2/models/m/infer"
NAME = "POST /v2/models/{name}/infer"


def asked(kept, path, method="GET", body=b"", bundle=None, scope=(), **headers):
    """Ask a traced application once; return its status."""
    settings = Settings(threads=1)
    repository = Repository(settings)
    if bundle is not None:
        repository.add("m", "1", bundle.path)
    service = Service(repository, settings, observers=[kept.tracing])
    app = app_of(Handlers(service), Gate(settings), None, kept.tracing)
    named = {"content-length": str(len(body)), **headers}
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "scheme": "http",
        "http_version": "1.1",
        "client": ("127.0.0.1", 4711),
        "server": ("127.0.0.1", 8000),
        "headers": [(key.encode(), value.encode()) for key, value in named.items()],
        **dict(scope),
    }
    sent = []

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        sent.append(message)

    async def main():
        await repository.start()
        try:
            await app(scope, receive, send)
        finally:
            await repository.close()

    asyncio.run(main())
    return sent[0]["status"] if sent else None


def document(bundle, rows=1, **changes):
    array = bundle.golden()[0]["input"][:rows]
    tensor = {"name": "input", "shape": list(array.shape), "datatype": "FP32",
              "data": array.ravel().tolist(), **changes}  # fmt: skip
    return json.dumps({"id": "r-1", "inputs": [tensor]}).encode()


def test_a_prediction_has_three_spans_that_lie_in_each_other(kept, proven):
    status = asked(kept, INFER, "POST", document(proven, 3), proven, traceparent=CALLER)
    assert status == 200
    assert set(kept.spans) == {NAME, "queue", "compute"}
    server, queue, compute = (kept.spans[name] for name in (NAME, "queue", "compute"))
    assert server.kind is SpanKind.SERVER
    for child in (queue, compute):
        assert child.parent.span_id == server.context.span_id
        assert server.start_time <= child.start_time <= child.end_time <= server.end_time
    assert queue.end_time == compute.start_time
    assert compute.attributes["fettle.batch.rows"] == 3


def test_it_is_the_callers_child(kept, proven):
    asked(kept, INFER, "POST", document(proven), proven, traceparent=CALLER, tracestate="a=1")
    for span in kept.spans.values():
        assert f"{span.context.trace_id:032x}" == CALLER[3:35]
    server = kept.spans[NAME]
    assert f"{server.parent.span_id:016x}" == CALLER[36:52]
    assert server.context.trace_state.get("a") == "1"


def test_its_attributes_are_those_of_the_conventions(kept, proven):
    asked(kept, INFER, "POST", document(proven), proven)
    found = dict(kept.spans[NAME].attributes)
    assert found.pop("fettle.bundle.sha")
    assert found == {
        "http.request.method": "POST",
        "http.route": "/v2/models/{name}/infer",
        "http.response.status_code": 200,
        "url.path": INFER,
        "url.scheme": "http",
        "network.protocol.name": "http",
        "network.protocol.version": "1.1",
        "client.address": "127.0.0.1",
        "client.port": 4711,
        "server.address": "127.0.0.1",
        "server.port": 8000,
        "fettle.model.name": "m",
        "fettle.model.version": "1",
        "fettle.request.id": "r-1",
        "fettle.rollout.part": "only",
    }


@pytest.mark.parametrize("wrong", ["", "00-0-0-01", "ff" + CALLER[2:], "x" * 300])
def test_a_traceparent_that_is_none_begins_a_trace(kept, wrong):
    asked(kept, "/v2", traceparent=wrong)
    assert kept.spans["GET /v2"].parent is None


def test_who_does_not_want_to_be_traced_is_not(kept, proven):
    asked(kept, INFER, "POST", document(proven), proven, traceparent=UNSAMPLED)
    assert not kept.spans


def test_only_a_share_of_those_who_say_nothing_is_traced(proven):
    none = kept_of(0.0)
    asked(none, "/v2")
    assert not none.spans
    asked(none, "/v2", traceparent=CALLER)
    assert none.spans


def test_a_callers_mistake_is_no_failure(kept, proven):
    assert asked(kept, INFER, "POST", document(proven, shape=[1, 2]), proven) == 400
    server = kept.spans[NAME]
    assert server.attributes["http.response.status_code"] == 400
    assert server.status.status_code is StatusCode.UNSET
    assert set(kept.spans) == {server.name}


def test_a_failure_of_the_server_is_one(kept):
    asked(kept, "/v2", scope={REFUSED: 503})  # the connection's guard answered itself
    server = kept.spans["GET /v2"]
    assert server.status.status_code is StatusCode.ERROR
    assert server.attributes["error.type"] == "503"


def test_one_who_hangs_up_is_told_of(kept):
    class HungUpOn(Handlers):
        async def server(self, call, name, version):
            raise HungUp

    settings = Settings(threads=1)
    handlers = HungUpOn(Service(Repository(settings), settings))
    app = app_of(handlers, Gate(settings), None, kept.tracing)
    asyncio.run(app({"type": "http", "method": "GET", "path": "/v2", "headers": []}, None, None))
    span = kept.spans["GET /v2"]
    assert "http.response.status_code" not in span.attributes
    assert span.attributes["error.type"] == "client_hung_up"


@pytest.mark.parametrize("path", ["/v2/health/live", "/v2/health/ready", "/metrics"])
def test_probes_leave_no_spans(kept, path):
    asked(kept, path)
    assert not kept.spans


def test_paths_that_are_none_make_no_names_of_their_own(kept):
    asked(kept, "/" + "x" * 1000, "BREW")
    span = kept.spans["_OTHER"]
    assert len(span.attributes["url.path"]) == 256
    assert "http.route" not in span.attributes
