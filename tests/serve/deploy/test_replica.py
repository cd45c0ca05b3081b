"""The application behind another server: uvicorn here, with its own lifespan and a root path."""

import asyncio
import contextlib
from importlib.util import find_spec

import numpy as np
import pytest
import tritonclient.http.aio as triton
import uvicorn

from fettle.core.errors import BundleError, InputError, MissingError
from fettle.serve.deploy.replica import Replica
from fettle.serve.errors import NotReady
from fettle.serve.settings import Settings

ELSEWHERE = Settings(host="0.0.0.0", insecure=True, threads=1)


@contextlib.asynccontextmanager
async def served(replica, root=""):
    """Run it under uvicorn alone, which puts `root` before each path; yield its port."""
    config = uvicorn.Config(
        replica, host="127.0.0.1", port=0, lifespan="on", root_path=root, log_config=None
    )
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext
    task = asyncio.create_task(server.serve())
    while not server.started and not task.done():
        await asyncio.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await asyncio.wait([task])


def asked(replica, talk, root=""):
    async def main():
        async with (
            served(replica, root) as port,
            triton.InferenceServerClient(f"127.0.0.1:{port}") as client,
        ):
            return await talk(client)

    return asyncio.run(main())


def tensor(array):
    found = triton.InferInput("input", list(array.shape), "FP32")
    found.set_data_from_numpy(array)
    return found


@pytest.mark.parametrize("root", ["", "/digits"])
def test_its_models_answer_from_the_first_request_on(proven, root):
    inputs, outputs = proven.golden()

    async def talk(client):
        assert await client.is_server_ready()
        answer = await client.infer("m", [tensor(inputs["input"][:3])])
        return answer.as_numpy("logits")

    replica = Replica([f"m={proven.path}"], ELSEWHERE)
    found = asked(replica, talk, root)
    np.testing.assert_allclose(found, outputs["logits"][:3], atol=1e-5)


def test_after_its_lifespan_no_model_answers(proven):
    replica = Replica([f"m={proven.path}"], ELSEWHERE)

    async def talk(client):
        replica.check()

    asked(replica, talk)
    with pytest.raises(NotReady):
        replica.check()


def test_control_is_closed_to_callers_of_elsewhere(proven):
    async def talk(client):
        with pytest.raises(triton.InferenceServerException, match="switched off"):
            await client.unload_model("m")
        return await client.is_model_ready("m")

    assert asked(Replica([f"m={proven.path}"], ELSEWHERE), talk)


def test_a_server_does_not_start_with_a_bundle_that_is_not_proven(make_bundle, tmp_path):
    bundle = make_bundle(tmp_path / "best", verdict=None)
    sent = []

    async def receive():
        return {"type": "lifespan.startup"}

    async def send(message):
        sent.append(message)

    replica = Replica([f"m={bundle.path}"], ELSEWHERE)
    asyncio.run(replica({"type": "lifespan"}, receive, send))
    (said,) = sent
    assert said["type"] == "lifespan.startup.failed"
    assert "--allow-unproven" in said["message"]


def test_a_folder_without_a_bundle_is_refused(tmp_path):
    with pytest.raises(BundleError, match="expected at"):
        Replica([f"m={tmp_path}"], ELSEWHERE)


def test_settings_that_leave_it_open_are_refused(proven):
    with pytest.raises(InputError, match="token"):
        Replica([f"m={proven.path}"], Settings(host="0.0.0.0"))


def test_websockets_are_closed(proven):
    sent = []

    async def send(message):
        sent.append(message)

    replica = Replica([f"m={proven.path}"], ELSEWHERE)
    asyncio.run(replica({"type": "websocket"}, None, send))
    assert sent == [{"type": "websocket.close", "code": 1003}]


@pytest.mark.skipif(find_spec("starlette") is not None, reason="Ray Serve is here")
def test_without_ray_serve_it_says_what_to_install():
    from fettle.serve.deploy.on_ray import application

    with pytest.raises(MissingError, match=r"fettle\[ray-serve\]"):
        application({"bundle": "b", "name": "m"})
