"""A span for each call over gRPC, asked by Triton's own client."""

import asyncio
from types import SimpleNamespace

import grpc
import pytest
import tritonclient.grpc.aio as triton
from opentelemetry.trace import SpanKind, StatusCode
from tests.serve.tracing.conftest import CALLER

from fettle.serve.grpc import start_grpc
from fettle.serve.repository import Repository
from fettle.serve.service import Service
from fettle.serve.settings import Settings
from fettle.serve.tracing.grpc import Interceptor

INFER = "inference.GRPCInferenceService/ModelInfer"
STREAM = "inference.GRPCInferenceService/ModelStreamInfer"


def asked(kept, bundle, talk):
    """Return what `talk` returns of a client of a traced server."""

    async def main():
        settings = Settings(grpc_port=0, threads=1)
        repository = Repository(settings)
        repository.add("m", "1", bundle.path)
        service = Service(repository, settings, observers=[kept.tracing])
        server = await start_grpc(service, settings, tracing=kept.tracing)
        await repository.start()
        try:
            async with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
                return await talk(client)
        finally:
            await server.stop(1.0)
            await repository.close()

    return asyncio.run(main())


def tensor(bundle, rows=1):
    array = bundle.golden()[0]["input"][:rows]
    return [triton.InferInput("input", list(array.shape), "FP32").set_data_from_numpy(array)]


def test_a_prediction_has_three_spans(kept, proven):
    async def talk(client):
        await client.infer(
            "m", tensor(proven, 2), request_id="r-2", headers={"traceparent": CALLER}
        )

    asked(kept, proven, talk)
    assert set(kept.spans) == {INFER, "queue", "compute"}
    server = kept.spans[INFER]
    assert server.kind is SpanKind.SERVER
    assert f"{server.parent.span_id:016x}" == CALLER[36:52]
    assert kept.spans["compute"].parent.span_id == server.context.span_id
    assert kept.spans["compute"].attributes["fettle.batch.rows"] == 2
    found = dict(server.attributes)
    assert found["rpc.system.name"] == "grpc"
    assert found["rpc.method"] == INFER
    assert found["rpc.response.status_code"] == "OK"
    assert found["fettle.request.id"] == "r-2"


def test_a_callers_mistake_is_no_failure(kept, proven):
    async def talk(client):
        with pytest.raises(triton.InferenceServerException):
            await client.get_model_metadata("other")

    asked(kept, proven, talk)
    (span,) = kept.spans.values()
    assert span.attributes["rpc.response.status_code"] == "NOT_FOUND"
    assert span.status.status_code is StatusCode.UNSET


def test_a_failure_of_the_server_is_one(kept, proven):
    async def talk(client):
        await client.unload_model("m")
        with pytest.raises(triton.InferenceServerException):
            await client.infer("m", tensor(proven))

    asked(kept, proven, talk)
    span = kept.spans[INFER]
    assert span.attributes["rpc.response.status_code"] == "UNAVAILABLE"
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes["error.type"] == "UNAVAILABLE"


def test_a_stream_is_one_span_with_its_requests_below(kept, proven):
    async def talk(client):
        async def requests():
            for _ in range(2):
                yield {"model_name": "m", "inputs": tensor(proven)}

        return [result async for result, _ in client.stream_infer(requests())]

    assert len(asked(kept, proven, talk)) == 2
    names = [span.name for span in kept.exporter.get_finished_spans()]
    assert sorted(names) == sorted([STREAM, *(2 * ["queue", "compute"])])


def test_probes_leave_no_spans(kept, proven):
    async def talk(client):
        return await client.is_server_live(), await client.is_model_ready("m")

    assert asked(kept, proven, talk) == (True, True)
    assert not kept.spans


def test_one_who_gives_up_is_told_of(kept):
    class Context:
        def code(self):
            return None

        def cancelled(self):
            return True

        def peer(self):
            return "ipv4:127.0.0.1:4711"

    async def hangs(asked, context):
        raise asyncio.CancelledError

    async def found(details):
        return grpc.unary_unary_rpc_method_handler(hangs)

    async def main():
        details = SimpleNamespace(method=f"/{INFER}", invocation_metadata=None)
        handler = await Interceptor(kept.tracing).intercept_service(found, details)
        with pytest.raises(asyncio.CancelledError):
            await handler.unary_unary(None, Context())

    asyncio.run(main())
    assert kept.spans[INFER].attributes["rpc.response.status_code"] == "CANCELLED"
