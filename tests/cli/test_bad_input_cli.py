"""Bad models and data through `fettle compress`: exit code 2, one line that says what it is."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from fettle.core.shelf import PASSES

ZOO = """
import numpy as np
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, between):
        super().__init__()
        self.a, self.b, self.head = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 10)
        self.between = between

    def forward(self, input):
        return self.head(self.between(self, self.a(input.flatten(1)).relu()))

@torch.library.custom_op("fettle_cli::halve", mutates_args=())
def halve(x: torch.Tensor) -> torch.Tensor:
    return x / 2

@halve.register_fake
def _(x):
    return torch.empty_like(x)

def custom():
    return Net(lambda net, x: halve(x))

def branch():
    return Net(lambda net, x: net.b(x) if x.sum() > 0 else x)

def spoiled():
    net = Net(lambda net, x: net.b(x))
    net.head.weight.data[0, 0] = np.nan
    return net

def tied():
    net = Net(lambda net, x: net.b(x).relu())
    net.b.weight = net.a.weight
    return net

def free():
    class Free(nn.Module):
        def forward(self, input):
            return input.flatten(1)[:, :10]
    return Free()

def embedding():
    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.head = nn.Embedding(30, 16), nn.Linear(16, 10)
        def forward(self, input_ids):
            return self.head(self.table(input_ids).mean(1))
    return Reader()

def spectrum():
    return Net(lambda net, x: torch.fft.irfft(torch.fft.rfft(x), n=64))
"""


@pytest.fixture
def zoo(tmp_path):
    path = tmp_path / "zoo.py"
    path.write_text(ZOO)
    return path


def archive(folder, **changed):
    """Write 400 images of 8×8 and their labels."""
    rng = np.random.default_rng(0)
    arrays = {"x": rng.uniform(0, 1, (400, 1, 8, 8)).astype(np.float32), "y": np.arange(400) % 10}
    np.savez(folder / "d.npz", **{k: v for k, v in {**arrays, **changed}.items() if v is not None})
    return f"npz:{folder / 'd.npz'}"


def with_first(value):
    x = np.zeros((400, 1, 8, 8), np.float32) + np.arange(400)[:, None, None, None] / 400
    x.flat[0] = value
    return x


@pytest.mark.parametrize(
    ("changed", "needles"),
    [
        ({"x": with_first(np.nan)}, ["`x` holds 1 values that are NaN", "[0, 0, 0, 0]"]),
        ({"x": with_first(np.inf)}, ["`x` holds 1 values", "infinite"]),
        ({"x": np.ones((400, 1, 8, 8), np.float32)}, ["1 distinct examples"]),
        ({"x": np.zeros((400, 8, 8), np.uint8)}, ["1 distinct examples"]),
        ({"x": with_first(0)[:1], "y": np.zeros(1, int)}, ["at least 20 examples", "got 1 of 1"]),
        ({"x": with_first(0).astype(np.complex64)}, ["complex64"]),
        ({"x": with_first(0).repeat(3, 1)}, ["can't take the task's inputs", "3, 8, 8"]),
        ({"x": None, "input_ids": np.ones((400, 6), int)}, ["distinct"]),
    ],
    ids=["nan", "inf", "constant", "black", "one", "complex", "shape", "same ids"],
)
@pytest.mark.parametrize("step", ["quantize.static", "graph.static_int8"])
def test_data(refused, zoo, tmp_path, changed, needles, step):
    data = archive(tmp_path, **changed)
    words = ["compress", "--model", f"{zoo}:tied", "--data", data, "-t", step]
    refused([*words, "--out", tmp_path / "out"], *needles)


@pytest.mark.parametrize(
    ("name", "step", "needles"),
    [
        ("custom", "quantize.static", ["halve", "ONNX lacks"]),
        ("custom", "prune.magnitude(epochs=1)", ["halve", "ONNX lacks"]),
        ("branch", "quantize.static", ["data-dependent", "branch on data"]),
        ("branch", "prune.channels(epochs=1)", ["data-dependent", "branch on data"]),
        ("spoiled", "quantize.static", ["NaN or infinite", "sound weights"]),
        ("spoiled", "graph.static_int8", ["NaN or infinite", "sound weights"]),
        ("tied", "prune.channels(epochs=1)", ["none can be removed without changing"]),
        ("free", "quantize.static", ["nothing to quantize"]),
        ("free", "graph.static_int8", ["nothing to quantize", "leave it out"]),
        ("free", "prune.magnitude(epochs=1)", ["`prune.magnitude`", "leave it out"]),
        ("embedding", "quantize.static", ["can't take the task's inputs", "float32"]),
    ],
)
def test_models(refused, zoo, tmp_path, name, step, needles):
    words = ["compress", "--model", f"{zoo}:{name}", "--data", archive(tmp_path), "-t", step]
    refused([*words, "--out", tmp_path / "out"], *needles)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tied", "spectrum", "embedding"])
def test_models_that_are_quantized_soundly(fettle, zoo, tmp_path, name):
    """Shared weights, complex numbers and token numbers: a verdict about the model, no error."""
    rng = np.random.default_rng(0)
    ids = {"x": None, "input_ids": rng.integers(0, 30, (400, 6))} if name == "embedding" else {}
    words = ["compress", "--model", f"{zoo}:{name}", "--data", archive(tmp_path, **ids)]
    how = ["--target", "onnxruntime", "--seconds", "0.3", "--max-drop", "0.5", "--json"]
    said = fettle(*words, "-t", "quantize.static", *how, "--out", tmp_path / "out")
    assert said.code in (0, 1), said.err
    assert said.json["best"]["recipe"]


def linear(path, kind=TensorProto.FLOAT, op="Identity", domain=""):
    """Write `y = op(flatten(x)) · w`, of digits."""
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    weight = np.random.default_rng(0).normal(size=(64, 10)).astype(dtype)
    nodes = [
        helper.make_node("Flatten", ["input"], ["f"]),
        helper.make_node(op, ["f"], ["g"], domain=domain),
        helper.make_node("MatMul", ["g", "w"], ["y"]),
    ]
    x = helper.make_tensor_value_info("input", kind, ["n", 1, 8, 8])
    y = helper.make_tensor_value_info("y", kind, ["n", 10])
    graph = helper.make_graph(nodes, "g", [x], [y], [numpy_helper.from_array(weight, "w")])
    opsets = [helper.make_opsetid("", 20), *([helper.make_opsetid(domain, 1)] if domain else [])]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path


@pytest.mark.parametrize(
    ("options", "needles"),
    [
        ({"op": "Mystery", "domain": "acme"}, ["Mystery"]),
        ({"kind": TensorProto.FLOAT16}, ["float16"]),
        ({"kind": TensorProto.DOUBLE}, ["float64"]),
    ],
    ids=["custom", "float16", "float64"],
)
@pytest.mark.parametrize("step", ["graph.static_int8", "graph.dynamic_int8"])
def test_onnx_files(refused, tmp_path, options, needles, step):
    path = linear(tmp_path / "m.onnx", **options)
    words = ["compress", "--model", path, "--data", "digits", "-t", step, "--seconds", "0.3"]
    refused([*words, "--out", tmp_path / "out"], *needles)


def test_an_onnx_file_that_is_quantized_already(refused, tmp_path):
    path = linear(tmp_path / "m.onnx")
    made = PASSES.make("graph.dynamic_int8")(ir.load(path))
    ir.save(made, tmp_path / "q.onnx")
    words = ["compress", "--model", tmp_path / "q.onnx", "--data", "digits", "--seconds", "0.3"]
    refused([*words, "-t", "graph.static_int8", "--out", tmp_path / "out"], "quantized already")
