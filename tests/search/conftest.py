import json
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from fettle import export
from fettle.compress._technique import Technique
from fettle.core.context import Context
from fettle.core.knobs import Range
from fettle.search import Source, Workshop
from fettle.search._store import Store
from fettle.search.journal import Journal
from fettle.testing.fakes import TinyTask

LINEAR = """
from torch import nn

def net(classes, in_channels):
    return nn.Sequential(nn.Flatten(), nn.Linear(64 * in_channels, classes))
"""


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass(frozen=True, kw_only=True)
class Scale(Technique):
    """Multiplies every parameter: cheap, and seen in the weights."""

    by: Annotated[float, Range(-10, 10), "factor"] = 1.0

    def apply(self, model, task):
        done.append(str(self))
        if self.by < 0:
            raise KeyboardInterrupt
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(self.by)
        return model


@dataclass(frozen=True, kw_only=True)
class Learn(Technique):
    """Learns from a teacher."""

    takes_teacher = True

    def apply(self, model, task):
        done.append("Learn from " + ("itself" if self.context.teacher is None else "a teacher"))
        return model


@dataclass(frozen=True, kw_only=True)
class Convert(Technique):
    """A last step, whose result is kept by the export alone; it saves its state on the way."""

    final = True

    def apply(self, model, task):
        done.append(str(self))
        self.context.checkpoints.mkdir(parents=True)
        return model


done = []  # what the techniques above did, in order


@pytest.fixture
def work(monkeypatch):
    """What was really done: steps, exports and trainings, in order."""
    from fettle import train

    done.clear()

    def export_onnx(module, task, folder, name="model.onnx"):
        done.append("export")
        folder.mkdir()
        total = sum(float(p.detach().sum()) for p in module.parameters())
        (folder / name).write_text(json.dumps(total))
        return export.Parity(0.0, 0.0, 1.0, 1)

    def fit(module, task, plan, context):
        done.append(f"train {plan.epochs}")

    monkeypatch.setattr(export, "export_onnx", export_onnx)
    monkeypatch.setattr(train, "fit", fit)
    return done


@pytest.fixture
def scale():
    return Scale


@pytest.fixture
def learn():
    return Learn


@pytest.fixture
def convert():
    return Convert


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "out", Journal(tmp_path / "out" / "journal.jsonl"))


@pytest.fixture
def linear(tmp_path):
    """The specification of a linear model in a file of its own."""
    (tmp_path / "linear.py").write_text(LINEAR)
    return f"{tmp_path / 'linear.py'}:net"


@pytest.fixture
def workshop(linear, store):
    """Build a workshop whose stages lie in one store, whatever else differs."""

    def build(spec=linear, task=None, seed=0, teacher=None, **source):
        task = task or TinyTask()
        return Workshop(Source(spec, **source), task, store, Context(seed=seed), teacher)

    return build


@pytest.fixture
def save_safely():
    """Write weights of the linear model to a file, all of one value."""

    def save(path, value):
        from safetensors.torch import save_file

        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
        state = {name: torch.full_like(p, value) for name, p in net.state_dict().items()}
        save_file(state, path)
        return str(path)

    return save


@pytest.fixture
def residual(tmp_path):
    """Write a residual network as an ONNX file, in float or with Q/DQ; return its path."""

    def build(channels=8, blocks=1, quantized=False, batch="n", name="net.onnx"):
        graph = _Graph(quantized)
        here = graph.conv("x", 3, channels, "stem")
        here = graph.add("Relu", [here])
        for i in range(blocks):
            inner = graph.add("Relu", [graph.conv(here, channels, channels, f"block{i}.a")])
            sums = graph.add("Add", [graph.conv(inner, channels, channels, f"block{i}.b"), here])
            here = graph.add("Relu", [sums])
        pooled = graph.add("Flatten", [graph.add("GlobalAveragePool", [here])])
        graph.gemm(pooled, channels, 5)
        return graph.save(tmp_path / name, batch)

    return build


class _Graph:
    def __init__(self, quantized):
        self.quantized, self.nodes, self.held = quantized, [], {}
        self.rng = np.random.default_rng(0)

    def add(self, op, read, **attributes):
        out = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, read, [out], f"{op}_{out}", **attributes))
        return out

    def conv(self, source, ins, outs, name):
        weight = self.hold(f"{name}.weight", self.rng.normal(size=(outs, ins, 3, 3)) * 0.2, outs)
        bias = self.hold(f"{name}.bias", self.rng.normal(size=outs).astype(np.float32))
        return self.add("Conv", [self.coded(source), weight, bias], pads=[1] * 4)

    def gemm(self, source, ins, outs):
        weight = self.hold("head.weight", self.rng.normal(size=(outs, ins)), outs)
        return self.add("Gemm", [self.coded(source), weight], transB=1)

    def coded(self, source):
        """Quantize what a weighted layer reads, once."""
        if not self.quantized:
            return source
        scale, zero = self.hold("s", np.float32(0.05)), self.hold("z", np.int8(0))
        found = [n for n in self.nodes if n.op_type == "QuantizeLinear" and n.input[0] == source]
        integers = (
            found[0].output[0] if found else self.add("QuantizeLinear", [source, scale, zero])
        )
        return self.add("DequantizeLinear", [integers, scale, zero])

    def hold(self, name, values, channels=None):
        values = np.asarray(values)
        if channels and self.quantized:
            scale = np.abs(values).reshape(channels, -1).max(1).astype(np.float32) / 127
            shape = (-1, *[1] * (values.ndim - 1))
            self.held[f"{name}_scale"], self.held[f"{name}_zero"] = (
                scale, np.zeros(channels, np.int8)
            )  # fmt: skip
            self.held[name] = np.rint(values / scale.reshape(shape)).astype(np.int8)
            names = [name, f"{name}_scale", f"{name}_zero"]
            return self.add("DequantizeLinear", names, axis=0)
        self.held[name] = values.astype(np.float32) if values.dtype == np.float64 else values
        return name

    def save(self, path, batch):
        given = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 8, 8])
        out = helper.make_tensor_value_info(self.nodes[-1].output[0], TensorProto.FLOAT, [batch, 5])
        held = [numpy_helper.from_array(v, k) for k, v in self.held.items()]
        graph = helper.make_graph(self.nodes, "g", [given], [out], held)
        opsets = [helper.make_opsetid("", 17)]
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
        return path
