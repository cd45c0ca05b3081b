"""gRPC's own health client asks."""

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

STATUS = health_pb2.HealthCheckResponse


@pytest.fixture
def health(port):
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield health_pb2_grpc.HealthStub(channel)


def asked(name=""):
    return health_pb2.HealthCheckRequest(service=name)


@pytest.mark.parametrize("name", ["", "inference.GRPCInferenceService"])
def test_it_follows_the_servers_readiness(health, service, name):
    assert health.Check(asked(name)).status == STATUS.SERVING
    service.up = False
    assert health.Check(asked(name)).status == STATUS.NOT_SERVING


def test_another_service_is_unknown(health):
    with pytest.raises(grpc.RpcError) as caught:
        health.Check(asked("other"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    watched = health.Watch(asked("other"))
    assert next(watched).status == STATUS.SERVICE_UNKNOWN
    watched.cancel()


def test_who_watches_is_told_of_changes_only(health, service):
    watched = health.Watch(asked(), timeout=20)
    assert next(watched).status == STATUS.SERVING
    service.up = False
    assert next(watched).status == STATUS.NOT_SERVING
    watched.cancel()
