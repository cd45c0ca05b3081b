"""Who may ask, where it listens, and how it stops."""

import asyncio
import shutil
import subprocess

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tritonclient.grpc import aio, service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from fettle.core.errors import InputError
from fettle.serve.grpc import start_grpc
from fettle.serve.settings import Settings

TOKEN, CONTROL = "t" * 32, "c" * 32


def ask(client, **options):
    tensor = triton.InferInput("fp32", [1, 4], "FP32")
    tensor.set_data_from_numpy(np.zeros((1, 4), np.float32))
    return client.infer("one", [tensor], **options)


def bearer(token):
    return {"authorization": f"Bearer {token}"}


def test_tokens_open_what_they_are_for(start):
    port, _ = start(tokens=(TOKEN,), control_tokens=(CONTROL,))
    with triton.InferenceServerClient(f"127.0.0.1:{port}") as client:
        assert client.is_server_live()
        for headers in (None, bearer("x" * 32)):
            with pytest.raises(InferenceServerException, match="UNAUTHENTICATED"):
                ask(client, headers=headers)
            with pytest.raises(InferenceServerException, match="UNAUTHENTICATED"):
                client.get_model_repository_index(headers=headers)
        ask(client, headers=bearer(TOKEN))
        ask(client, headers=bearer(CONTROL))
        with pytest.raises(InferenceServerException, match="UNAUTHENTICATED"):
            client.load_model("one", headers=bearer(TOKEN))
        client.load_model("one", headers=bearer(CONTROL))


def test_streams_expect_tokens_too(start):
    port, service = start(tokens=(TOKEN,))
    asked = service_pb2.ModelInferRequest(model_name="one")
    channel = grpc.insecure_channel(f"127.0.0.1:{port}")
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    with channel, pytest.raises(grpc.RpcError) as caught:
        next(stub.ModelStreamInfer(iter([asked])))
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert not service.seen


def test_reflection_describes_the_protocol(port):
    asked = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(
            file_containing_symbol="inference.GRPCInferenceService"
        ),
    ]
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        services, file = stub.ServerReflectionInfo(iter(asked))
    names = {each.name for each in services.list_services_response.service}
    assert {"inference.GRPCInferenceService", "grpc.health.v1.Health"} <= names
    described = FileDescriptorProto.FromString(
        file.file_descriptor_response.file_descriptor_proto[0]
    )
    assert described.package == "inference"
    assert "ModelInferRequest" in [each.name for each in described.message_type]


def test_an_address_that_is_taken_is_told(port, service):
    settings = Settings(grpc_port=port)
    with pytest.raises(InputError, match=f"can't listen on 127.0.0.1:{port}"):
        asyncio.run(start_grpc(service, settings))


def test_beyond_loopback_it_stays_shut_without_tokens(service):
    with pytest.raises(InputError, match="beyond this machine"):
        asyncio.run(start_grpc(service, Settings(host="0.0.0.0", grpc_port=0)))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for localhost that signs itself."""
    if shutil.which("openssl") is None:
        pytest.skip("`openssl`, which makes the certificate, is not on this machine")
    folder = tmp_path_factory.mktemp("tls")
    words = "req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj"
    names = ["/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run(["openssl", *words.split(), *names], cwd=folder, check=True, capture_output=True)
    return folder


def test_tls_is_spoken_with_a_certificate(start, certificate):
    port, _ = start(certificate=certificate / "cert.pem", key=certificate / "key.pem")
    root = str(certificate / "cert.pem")
    with triton.InferenceServerClient(
        f"localhost:{port}", ssl=True, root_certificates=root
    ) as client:
        assert ask(client).get_response().model_name == "one"
    plain = triton.InferenceServerClient(f"localhost:{port}")
    with plain, pytest.raises(InferenceServerException, match="UNAVAILABLE"):
        plain.is_server_live()


def test_what_was_let_in_is_answered_before_it_stops(service):
    async def talk():
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def slow(*args):
            begun.set()
            await go_on.wait()
            return await type(service).infer(service, *args)

        server = await start_grpc(Changed(service, infer=slow), service.settings)
        async with aio.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
            asked = asyncio.create_task(ask(client))
            await begun.wait()
            stopping = asyncio.create_task(server.stop(10))
            await asyncio.sleep(0.05)
            assert not stopping.done()
            go_on.set()
            found = await asked
            await stopping
        return found.get_response().model_name

    assert asyncio.run(talk()) == "one"


class Changed:
    """A service with some methods of its own."""

    def __init__(self, service, **own):
        self.__dict__.update(own, _service=service)

    def __getattr__(self, name):
        return getattr(self._service, name)


def test_a_certificate_that_is_none_is_told(service, tmp_path):
    for name in ("cert", "key"):
        (tmp_path / name).write_text("no certificate")
    for key in ("key", "missing"):
        settings = Settings(grpc_port=0, certificate=tmp_path / "cert", key=tmp_path / key)
        with pytest.raises(InputError, match="certificate and its key"):
            asyncio.run(start_grpc(service, settings))
