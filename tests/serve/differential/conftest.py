"""Two servers of the same models: this one, and a real Triton."""

import http.client
import json
from dataclasses import dataclass

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tests.serve.conftest import BATCHES, PASS
from tests.serve.differential.server import RUNS_ONNX, running, why_not
from tests.serve.http.whole import serving

from fettle.core.bundle import Manifest, write_bundle
from fettle.core.machine import this_machine
from fettle.core.shelf import DEPLOYMENTS, RUNTIMES
from fettle.serve.deploy import deploy

LABELS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TYPES = {
    "int64": TensorProto.INT64,
    "int8": TensorProto.INT8,
    "uint16": TensorProto.UINT16,
    "bool": TensorProto.BOOL,
    "fp16": TensorProto.FLOAT16,
    "fp64": TensorProto.DOUBLE,
}


@dataclass(frozen=True)
class Side:
    """One of the two servers."""

    http: int
    grpc: int

    def ask(self, method, path, body=b"", headers=()):
        """Send one request as it is; return status, headers in lower case, body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.http, timeout=30)
        try:
            connection.request(method, path, body, dict(headers))
            response = connection.getresponse()
            found = {key.lower(): value for key, value in response.getheaders()}
            return response.status, found, response.read()
        finally:
            connection.close()

    def told(self, method, path, document=None, headers=()):
        """Send JSON; return the status and the JSON that comes."""
        body = b"" if document is None else json.dumps(document).encode()
        status, _, answer = self.ask(method, path, body, headers)
        return status, json.loads(answer) if answer else None


@dataclass(frozen=True)
class Pair:
    """Both."""

    ours: Side
    triton: Side

    def told(self, *asked, **more):
        """Return what each says to the same request."""
        return self.ours.told(*asked, **more), self.triton.told(*asked, **more)


def types_bundle(path):
    """Write a bundle that gives back what it takes: one input and one output of each type."""
    folder = path.parent / f"{path.name}-files"
    folder.mkdir(parents=True)
    inputs = [helper.make_tensor_value_info(n, t, ["n", 2]) for n, t in TYPES.items()]
    outputs = [helper.make_tensor_value_info(f"{n}_out", t, ["n", 2]) for n, t in TYPES.items()]
    nodes = [helper.make_node("Identity", [n], [f"{n}_out"]) for n in TYPES]
    graph = helper.make_graph(nodes, "types", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.save(model, folder / "model.onnx")
    session = RUNTIMES.make("onnxruntime", threads=1).build(folder / "model.onnx")
    given = {spec.name: np.ones((8, 2), spec.dtype) for spec in session.inputs}
    named = {f"input/{k}": v for k, v in given.items()}
    named |= {f"output/{k}": v for k, v in session.run(given).items()}
    for file in ("golden.npz", "reference.npz"):
        np.savez(folder / file, allow_pickle=False, **named)
    manifest = Manifest(
        inputs=session.inputs,
        outputs=session.outputs,
        recipe="@ onnxruntime",
        runtime="onnxruntime(threads=1)",
        verdict=PASS,
        checks=(BATCHES,),
        lowering={"onnxruntime": []},
        golden={"mean_difference": 0.1, "agreement": 0.9},
        machine=this_machine().to_json(),
    )
    session.close()
    return write_bundle(path, manifest, folder)


def repository(folder, bundles):
    """Write what `fettle deploy triton` writes of each, for a backend that is in the wheel."""
    for name, bundle in bundles.items():
        deploy(DEPLOYMENTS.make("triton", threads=1), bundle, name, folder / name)
        (folder / name / name).rename(folder / "models" / name)
        config = folder / "models" / name / "config.pbtxt"
        text = config.read_text().replace('backend: "onnxruntime"', 'backend: "python"')
        config.write_text(text.replace('"model.onnx"', '"model.py"'))
        (folder / "models" / name / "1" / "model.py").write_text(RUNS_ONNX)
    return folder / "models"


@pytest.fixture(scope="session")
def bundles(make_bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")
    digits = make_bundle(folder / "digits", labels=LABELS)
    return {"digits": digits, "types": types_bundle(folder / "types")}


@pytest.fixture(scope="session")
def pair(bundles, tmp_path_factory):
    """Both servers, with the same models in them."""
    if why_not():
        pytest.skip(why_not())
    folder = tmp_path_factory.mktemp("triton")
    (folder / "models").mkdir()
    named = [f"{name}={bundle.path}" for name, bundle in bundles.items()]
    with (
        running(repository(folder, bundles), folder) as triton,
        serving(named, grpc_port=0) as run,
    ):
        ours = Side(run.port, int(run.server.grpc.rpartition(":")[2]))
        yield Pair(ours, Side(triton.http, triton.grpc))
