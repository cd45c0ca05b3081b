"""Bundles to serve: small, and proven as far as their manifests say."""

from dataclasses import replace

import numpy as np
import onnx
import pytest

from fettle.core.bundle import Manifest, write_bundle
from fettle.core.machine import this_machine
from fettle.core.shelf import RUNTIMES
from fettle.testing import sample

PASS = {
    "outcome": "pass",
    "drop": {"value": 0.0, "low": 0.0, "high": 0.0, "n": 100, "test": "made for tests"},
    "budget": {"metric": "top1", "max_drop": 0.01, "confidence": 0.95},
    "needed": None,
}
BATCHES = {"name": "batches", "passed": True, "text": "", "sizes": [1, 2, 4, 8]}


@pytest.fixture(scope="session")
def make_bundle():
    """Write a bundle of the sample classifier; `changes` are fields of its manifest."""

    def make(path, **changes):
        folder = path.parent / f"{path.name}-files"
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(sample().onnx.read_bytes())
        session = RUNTIMES.make("onnxruntime", threads=1).build(folder / "model.onnx")
        inputs = sample().inputs(16)
        outputs = session.run(inputs)
        named = {f"input/{k}": v for k, v in inputs.items()}
        named |= {f"output/{k}": v for k, v in outputs.items()}
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
        return write_bundle(path, replace(manifest, **changes), folder)

    return make


@pytest.fixture(scope="session")
def proven(tmp_path_factory, make_bundle):
    """A proven bundle; tests that change it make their own."""
    return make_bundle(tmp_path_factory.mktemp("bundle") / "best")


@pytest.fixture(scope="session")
def twin(tmp_path_factory, make_bundle):
    """Another bundle of the same model."""
    return make_bundle(tmp_path_factory.mktemp("twin") / "twin", recipe="@ onnxruntime(threads=2)")


@pytest.fixture(scope="session")
def opposite(tmp_path_factory, proven):
    """A bundle whose scores are those of the other with their signs changed."""
    folder = tmp_path_factory.mktemp("opposite") / "files"
    folder.mkdir()
    model = onnx.load(proven.model_path)
    (output,) = model.graph.output
    for node in model.graph.node:
        node.output[:] = ["inner" if name == output.name else name for name in node.output]
    model.graph.node.append(onnx.helper.make_node("Neg", ["inner"], [output.name]))
    onnx.save(model, folder / "model.onnx")
    inputs, outputs = proven.golden()
    named = {f"input/{k}": v for k, v in inputs.items()}
    named |= {f"output/{k}": -v for k, v in outputs.items()}
    for file in ("golden.npz", "reference.npz"):
        np.savez(folder / file, allow_pickle=False, **named)
    return write_bundle(folder.parent / "best", replace(proven.manifest, recipe="@ neg"), folder)
