"""The models that are served: one ONNX file each, the same for every server, random weights."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from _rivals import by_onnxruntime
from onnx import TensorProto, helper, numpy_helper

from fettle.core.bundle import Manifest, write_bundle
from fettle.core.machine import this_machine
from fettle.core.shelf import RUNTIMES

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Subject:
    """A model to serve: its file, its bundle, and one request with its answer."""

    name: str
    onnx: Path
    bundle: Path
    input: str
    x: np.ndarray  # [1, …]
    y: np.ndarray  # flat


def subject(name: str, folder: Path) -> Subject:
    """Return a model, which is made in `folder` where it isn't there."""
    path = folder / name / "model.onnx"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        MAKERS[name](path)
    session = RUNTIMES.make("onnxruntime").build(path)
    spec = session.inputs[0]
    x = _inputs(spec.shape[1:], 1)
    y = next(iter(session.run({spec.name: x}).values()))
    session.close()
    bundle = folder / name / "bundle"
    if not bundle.is_dir():
        write(path, bundle)
    return Subject(name, path, bundle, spec.name, x, y.ravel())


def write(path: Path, bundle: Path) -> None:
    """Write the bundle of an ONNX file: golden outputs, and no verdict on random weights."""
    session = RUNTIMES.make("onnxruntime").build(path)
    inputs = {spec.name: _inputs(spec.shape[1:], 8) for spec in session.inputs}
    arrays = {f"input/{name}": array for name, array in inputs.items()}
    arrays |= {f"output/{name}": array for name, array in session.run(inputs).items()}
    manifest = Manifest(
        inputs=session.inputs,
        outputs=session.outputs,
        recipe="@ onnxruntime",
        runtime="onnxruntime",
        lowering={"onnxruntime": []},  # every server runs the same file
        golden={"mean_difference": 0.1, "agreement": 0.9},
        machine=this_machine().to_json(),
    )
    session.close()
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "model.onnx").write_bytes(path.read_bytes())
        for name in ("golden.npz", "reference.npz"):
            np.savez(Path(scratch) / name, allow_pickle=False, **arrays)
        write_bundle(bundle, manifest, Path(scratch))


def small(path: Path) -> None:
    """Write a perceptron of 16 inputs (64 bytes), 64 hidden units and 10 classes."""
    generator = np.random.default_rng(0)

    def layer(name: str, inputs: int, outputs: int) -> list[onnx.TensorProto]:
        weight = generator.normal(0, inputs**-0.5, (inputs, outputs)).astype(np.float32)
        bias = np.zeros(outputs, np.float32)
        return [numpy_helper.from_array(a, f"{name}{k}") for k, a in (("w", weight), ("b", bias))]

    nodes = [
        helper.make_node("Gemm", ["x", "aw", "ab"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "bw", "bb"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size])
            for name, size in (("x", 16), ("y", 10))]  # fmt: skip
    weights = [*layer("a", 16, 64), *layer("b", 64, 10)]
    graph = helper.make_graph(nodes, "small", ends[:1], ends[1:], weights)
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)


def resnet18(path: Path) -> None:
    """Write torchvision's ResNet-18 in float32."""
    from fettle import models, tasks
    from fettle.export import export_onnx

    task = tasks.load("noise:3x224x224")
    network = models.load(f"{HERE}/_networks.py:resnet18", signature=task.signature)
    export_onnx(network, task, path.parent)


def resnet18_int8(path: Path) -> None:
    """Write it in INT8, as onnxruntime's own quantizer makes it (u8s8, by channel)."""
    with tempfile.TemporaryDirectory() as scratch:
        plain = Path(scratch) / "model.onnx"
        resnet18(plain)
        batches = [_inputs((3, 224, 224), 1, seed) for seed in range(16)]
        by_onnxruntime(plain, batches, path)
    path.with_suffix(".prepared.onnx").unlink(missing_ok=True)


def _inputs(shape: tuple, n: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.uniform(-1, 1, (n, *shape)).astype(np.float32)


MAKERS: dict[str, Callable[[Path], None]] = {
    "small": small,
    "resnet18": resnet18,
    "resnet18-int8": resnet18_int8,
}
