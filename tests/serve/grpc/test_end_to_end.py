"""A real bundle behind the real service, asked by Triton's own client over gRPC."""

import asyncio

import numpy as np
import tritonclient.grpc.aio as triton

from fettle.core.bundle import Bundle
from fettle.serve.grpc import start_grpc
from fettle.serve.protocol.datatypes import name_of
from fettle.serve.repository import Repository
from fettle.serve.service import Service
from fettle.serve.settings import Settings
from fettle.testing import sample


def asked(inputs):
    tensors = []
    for name, array in inputs.items():
        tensor = triton.InferInput(name, list(array.shape), name_of(array.dtype))
        tensors.append(tensor.set_data_from_numpy(array))
    return tensors


async def served(path, talk):
    """Serve a bundle under the name `net`, and return what `talk` returns of a client."""
    settings = Settings(grpc_port=0, threads=1)
    repository = Repository(settings)
    repository.add("net", "1", path)
    service = Service(repository, settings)
    server = await start_grpc(service, settings)
    try:
        async with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
            assert not await client.is_server_ready()
            await repository.start()
            assert await client.is_server_ready()
            return await talk(client)
    finally:
        await server.stop(1.0)
        await repository.close()
        service.close()


def test_predictions_are_those_of_the_bundle(proven):
    inputs = sample().inputs(3)
    output = proven.manifest.outputs[0].name

    async def talk(client):
        answers = await asyncio.gather(
            *(
                client.infer("net", asked({k: v[n : n + 1] for k, v in inputs.items()}))
                for n in range(3)
            )
        )
        statistics = await client.get_inference_statistics("net")
        return [each.as_numpy(output) for each in answers], statistics.model_stats[0]

    rows, statistics = asyncio.run(served(proven.path, talk))
    expected = _bare(proven.path, inputs, output)
    np.testing.assert_allclose(np.concatenate(rows), expected, rtol=1e-4, atol=1e-5)
    assert statistics.inference_stats.success.count == 3
    assert statistics.inference_count == 3


def test_a_model_is_unloaded_and_loaded_while_its_server_runs(proven):
    async def talk(client):
        metadata = await client.get_model_metadata("net")
        config = await client.get_model_config("net")
        await client.unload_model("net")
        gone = await client.is_model_ready("net")
        await client.load_model("net")
        index = await client.get_model_repository_index()
        again = await client.is_model_ready("net")
        return metadata, config.config, gone, again, index.models[0]

    metadata, config, gone, again, model = asyncio.run(served(proven.path, talk))
    assert (metadata.name, list(metadata.versions)) == ("net", ["1"])
    assert config.max_batch_size == 8
    assert (gone, again) == (False, True)
    assert (model.name, model.state) == ("net", "READY")


def _bare(path, inputs, output):
    import onnxruntime

    session = onnxruntime.InferenceSession(Bundle.open(path).model_path)
    return session.run([output], dict(inputs))[0]
