"""A sheet: kernels side by side in one graph, timed in one session by the engine's own timers.

A kernel that is timed alone, end to end, would pay for what it doesn't pay in its network: the call
and the change of its input from the caller's layout into the engine's. So each kernel reads what
makeshift layers made (its *edges*: a convolution with a rectifier for images, QuantizeLinear for
integers), in the layout and type that the engine likes best, and only the engine's rows of the
kernel itself count. Weights are as cold as in a network, for many kernels run in turn.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fettle.core.errors import ModelError
from fettle.measure.profile import Timed, joined
from fettle.runtimes import Runtime
from fettle.search._kernels import Kernel, Tensor

_SPELLS = 3
_SECONDS = 0.3  # of runs for a sheet in each spell
_LEAST_RUNS, _MOST_RUNS = 10, 100
_THIN = 4  # channels of what an edge's convolution reads
_OWNER = re.compile(r"^k(\d+)\.(edge)?")


def measured(kernels: Sequence[Kernel], runtime: Runtime) -> list[float]:
    """Return the milliseconds that each kernel takes, timed side by side.

    Raises:
        ModelError: the engine refuses a kernel, or doesn't tell the time of its layers.
    """
    sheet = _Sheet()
    for number, kernel in enumerate(kernels):
        sheet.add(kernel, number)
    spells = sheet.times(runtime)
    if not all(spells):
        raise ModelError(
            f"`{runtime.name()}` doesn't tell the time of its layers, so no latency can be"
            " predicted from them: time the whole model"
        )
    # what interferes only ever adds
    return list(np.min([charged(timed, len(kernels)) for timed in spells], axis=0))


def charged(timed: Iterable[Timed], count: int) -> list[float]:
    """Return the time of each kernel's own rows, without those of edges.

    A row of the engine's own making, such as a change of layout, goes to whoever made what it
    reads: the row before it. So it does in a network.
    """
    spent = [0.0] * count
    own: set[int] = set()
    for layer, ms in timed:
        marks = [m for name in (layer.name, *layer.origins) if (m := _OWNER.match(name))]
        if marks:
            own = {int(mark[1]) for mark in marks if not mark[2]}
        for number in own:
            spent[number] += (ms or 0.0) / len(own)
    return spent


@dataclass
class _Sheet:
    """A graph under construction, and what to feed it."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[TensorProto] = field(default_factory=list)
    outputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    feeds: dict[str, np.ndarray] = field(default_factory=dict)
    opsets: tuple[tuple[str, int], ...] = ()
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def add(self, kernel: Kernel, number: int) -> None:
        """Add a kernel whose names begin with its number."""
        mark = f"k{number}."
        self.opsets = kernel.opsets
        names = {tensor.name: self._entry(tensor, mark) for tensor in kernel.inputs}
        for name, tensor in kernel.weights.items():
            self._hold(tensor, mark + name)
            if kernel.loose:
                told = helper.make_tensor_value_info(mark + name, tensor.data_type, tensor.dims)
                self.inputs.append(told)
        for node in kernel.nodes:
            self.nodes.append(_renamed(node, mark, names))
        for output in kernel.outputs:
            self._exit(output, mark)

    def times(self, runtime: Runtime) -> list[list[Timed]]:
        """Return the engine's rows of each spell, with their median times."""
        with tempfile.TemporaryDirectory(prefix="fettle-kernels-") as folder:
            path = Path(folder) / "sheet.onnx"
            onnx.save(self.model(), path)
            session = runtime.build(path)
            try:
                started = perf_counter()
                session.run(self.feeds)
                runs = _runs(perf_counter() - started)
                layers = session.layers()
                spells = (session.layer_times(self.feeds, runs) for _ in range(_SPELLS))
                return [joined(layers, times) for times in spells]
            finally:
                session.close()

    def model(self) -> onnx.ModelProto:
        """Return the graph of all kernels."""
        graph = helper.make_graph(self.nodes, "sheet", self.inputs, self.outputs, self.weights)
        opsets = [helper.make_opsetid(*opset) for opset in self.opsets]
        model = helper.make_model(graph, opset_imports=opsets)
        model.ir_version = 10
        return model

    def _entry(self, tensor: Tensor, mark: str) -> str:
        """Return the name under which a kernel reads what an edge made."""
        stem = f"{mark}edge.{tensor.name}"
        if tensor.coding:
            real = self._real(f"{stem}.real", tensor)
            coding = [mark + name for name in tensor.coding]
            return self._node("QuantizeLinear", [real, *coding], stem)
        if tensor.kind == TensorProto.FLOAT:
            return self._real(stem, tensor)
        self._feed(stem, tensor.kind, tensor.shape)
        return stem

    def _real(self, name: str, tensor: Tensor) -> str:
        """Return a float tensor of the wanted shape, in the layout that the engine keeps it in."""
        if tensor.given or len(tensor.shape) != 4:
            self._feed(name, TensorProto.FLOAT, tensor.shape)
            return name
        batch, channels, *place = tensor.shape
        self._feed(f"{name}.thin", TensorProto.FLOAT, (batch, _THIN, *place))
        spread = self.rng.normal(size=(channels, _THIN, 1, 1)).astype(np.float32)
        self._hold(numpy_helper.from_array(spread), f"{name}.weight")
        wide = self._node("Conv", [f"{name}.thin", f"{name}.weight"], f"{name}.wide")
        return self._node("Relu", [wide], name)

    def _feed(self, name: str, kind: int, shape: Sequence[int]) -> None:
        dtype = helper.tensor_dtype_to_np_dtype(kind)
        floats = np.issubdtype(dtype, np.floating)
        self.feeds[name] = (
            self.rng.normal(size=shape).astype(dtype) if floats else np.ones(shape, dtype)
        )
        self.inputs.append(helper.make_tensor_value_info(name, kind, list(shape)))

    def _hold(self, tensor: TensorProto, name: str) -> None:
        held = TensorProto()
        held.CopyFrom(tensor)
        held.name = name
        self.weights.append(held)

    def _exit(self, tensor: Tensor, mark: str) -> None:
        """Let an output be read as in a network: integers by a product of integers.

        A convolution that hardly computes reads images in the layout they were written in, where a
        caller would have them turned around, at many times the cost.
        """
        name, stem = mark + tensor.name, f"{mark}edge.{tensor.name}"
        spatial = len(tensor.shape) == 4 and (tensor.coding or tensor.kind == TensorProto.FLOAT)
        if tensor.coding:
            coding = [mark + coded for coded in tensor.coding]
            name = self._node("DequantizeLinear", [name, *coding], f"{stem}.out")
        if spatial or (tensor.coding and tensor.shape):
            name = self._sink(name, tensor, stem)
        kind = TensorProto.FLOAT if tensor.coding else tensor.kind
        self.outputs.append(helper.make_tensor_value_info(name, kind, None))

    def _sink(self, source: str, tensor: Tensor, stem: str) -> str:
        """Return a few numbers of each position."""
        spatial = len(tensor.shape) == 4
        width = tensor.shape[1 if spatial else -1]
        shape = (_THIN, width, 1, 1) if spatial else (width, _THIN)
        weight = self._weight(shape, tensor, stem)
        return self._node("Conv" if spatial else "MatMul", [source, weight], f"{stem}.sink")

    def _weight(self, shape: Sequence[int], tensor: Tensor, stem: str) -> str:
        """Return the weight of a sink: integers for integers."""
        name = f"{stem}.weight"
        values = self.rng.integers(-99, 99, shape)
        if not tensor.coding:
            self._hold(numpy_helper.from_array(values.astype(np.float32)), name)
            return name
        self._hold(numpy_helper.from_array(values.astype(np.int8)), f"{name}.integers")
        self._hold(numpy_helper.from_array(np.asarray(0.01, np.float32)), f"{name}.scale")
        return self._node("DequantizeLinear", [f"{name}.integers", f"{name}.scale"], name)

    def _node(self, op: str, read: Sequence[str], out: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, read, [out], out, **attributes))
        return out


def _renamed(node: onnx.NodeProto, mark: str, names: dict[str, str]) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.name = mark + (node.name or node.output[0])
    copy.input[:] = [names.get(name, mark + name) if name else "" for name in node.input]
    copy.output[:] = [mark + name if name else "" for name in node.output]
    for attribute in copy.attribute:
        if attribute.HasField("g") or attribute.graphs:
            raise ModelError(f"`{node.name}` holds a graph of its own, so it can't be timed alone")
    return copy


def reference(opsets: tuple[tuple[str, int], ...]) -> Kernel:
    """Return the kernel by which drifts of the machine are told: 3x3, 32 channels, 28x28 pixels."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(32, 32, 3, 3)).astype(np.float32)
    nodes = (
        helper.make_node("Conv", ["x", "w"], ["c"], "reference", pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["y"], "rectifier"),
    )
    held = {"w": numpy_helper.from_array(weight, "w")}
    x, y = (Tensor(name, TensorProto.FLOAT, (1, 32, 28, 28)) for name in "xy")
    return Kernel("reference", "Conv", nodes, held, (x,), (y,), opsets)


def _runs(seconds: float) -> int:
    return int(min(max(_SECONDS / max(seconds, 1e-6), _LEAST_RUNS), _MOST_RUNS))


def footprint(kernel: Kernel) -> int:
    """Return how many bytes a kernel takes on a sheet: what it reads, at 4 bytes a number."""
    return kernel.bytes + sum(4 * prod(tensor.shape) for tensor in kernel.inputs)
