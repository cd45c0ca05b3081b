"""The kernels of a graph: what an engine runs at one go, each as a small graph of its own.

A kernel opens with an operator that must see its whole input (a convolution, a product, a recurrent
layer, a pool, a normalization) and holds what follows it and can be computed on the way: a bias, an
activation, the sum with a shortcut, QuantizeLinear. The second product of an attention stays with
the first. What an integer graph reads through DequantizeLinear is cut before that node, and each
reader gets a copy of it, so that a kernel can be fused as it is in the whole.

Two kernels are alike, and take the same time, when their `key` is the same: operators, attributes,
shapes at this batch and types; not names, nor what numbers the weights hold.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

from fettle.core.errors import ModelError
from fettle.core.hashing import fingerprint
from fettle.measure import for_one_example

PRODUCTS = frozenset(
    (
        *("Conv", "ConvTranspose", "FusedConv", "QLinearConv", "ConvInteger"),
        *("Gemm", "FusedGemm", "QGemm", "MatMul", "FusedMatMul", "QLinearMatMul", "MatMulInteger"),
        *("DynamicQuantizeMatMul", "MatMulIntegerToFloat", "MatMulNBits"),
        *("LSTM", "GRU", "RNN", "DynamicQuantizeLSTM", "Attention", "MultiHeadAttention"),
    )
)
_MOVERS = frozenset(
    (
        *("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LpPool", "Resize"),
        *("QLinearAveragePool", "QLinearGlobalAveragePool", "LRN", "InstanceNormalization"),
        *("LayerNormalization", "SkipLayerNormalization", "GroupNormalization"),
        *("RMSNormalization", "If", "Loop", "Scan"),
    )
)
_SHOWN_NUMBERS = 64  # of int64 constants: shapes, axes and pads, which do change the time


@dataclass(frozen=True)
class Tensor:
    """What comes into a kernel or leaves it; `kind` is ONNX's number of its type.

    `coding` names scale, and zero point if any, by which integers stand for real numbers; `given`
    says that it is an input of the whole model.
    """

    name: str
    kind: int
    shape: tuple[int, ...]
    coding: tuple[str, ...] = ()
    given: bool = False


@dataclass(frozen=True, eq=False)
class Kernel:
    """A piece of a graph, whole in itself.

    `name` is that of the node that opened it; `weights` holds the constants by name, `outputs` what
    others read; `opsets` are those of the model. `loose` weights are inputs too, as in old files:
    no engine may fold what a caller could replace.
    """

    name: str
    op: str
    nodes: tuple[onnx.NodeProto, ...]
    weights: Mapping[str, TensorProto]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    opsets: tuple[tuple[str, int], ...]
    loose: bool = False

    @cached_property
    def key(self) -> str:
        """Return what tells it from kernels that take another time."""
        return fingerprint(self._description())

    @property
    def bytes(self) -> int:
        """Return what its weights take, in bytes."""
        return sum(len(tensor.raw_data) or 8 * _size(tensor) for tensor in self.weights.values())

    def __str__(self) -> str:
        shapes = " ".join("x".join(map(str, tensor.shape)) for tensor in self.inputs)
        fused = "+".join(dict.fromkeys(n.op_type for n in self.nodes))
        return f"{self.name}: {fused} on {shapes}"

    def _description(self) -> list[Any]:
        known: dict[str, Any] = {t.name: f"input {i}" for i, t in enumerate(self.inputs)}
        known |= {name: _told(tensor) for name, tensor in self.weights.items()}
        rows: list[Any] = [[t.kind, t.shape, len(t.coding), t.given] for t in self.inputs]
        for place, node in enumerate(self.nodes):
            read = [known.get(name, "") for name in node.input]
            attributes = sorted(_attribute(a) for a in node.attribute)
            rows.append([node.domain, node.op_type, attributes, read])
            known |= {name: f"{place}.{i}" for i, name in enumerate(node.output)}
        return [*rows, [known[tensor.name] for tensor in self.outputs], self.opsets, self.loose]


def kernels_of(model: onnx.ModelProto, shapes: Mapping[str, Sequence[int]]) -> list[Kernel]:
    """Return the kernels of a graph in order, for inputs of these shapes.

    Raises:
        ModelError: a shape that can't be known.
    """
    graph, known = for_one_example(model, shapes)
    split = _Split(graph, known, tuple((o.domain, o.version) for o in model.opset_import))
    for node in graph.node:
        split.take(node)
    return split.kernels()


class _Split:
    """Gives every node to a kernel; the first, number 0, holds what precedes all others."""

    def __init__(
        self,
        graph: onnx.GraphProto,
        shapes: Mapping[str, tuple[int, ...]],
        opsets: tuple[tuple[str, int], ...],
    ) -> None:
        self.graph, self.shapes, self.opsets = graph, shapes, opsets
        self.held = {tensor.name: tensor for tensor in graph.initializer}
        inputs = {value.name for value in graph.input}
        self.given, self.loose = inputs - self.held.keys(), bool(inputs & self.held.keys())
        self.kinds = _kinds(graph, opsets)
        self.makers: dict[str, onnx.NodeProto] = {}  # of constants, and of what is dequantized
        self.constant = set(self.held)
        self.decoded: dict[str, str] = {}  # output of a DequantizeLinear -> the integers
        self.home: dict[str, int] = {}
        self.groups: list[list[onnx.NodeProto]] = [[]]
        self.paired = [False]  # whether a kernel opened with a product of two activations

    def take(self, node: onnx.NodeProto) -> None:
        """Give the node to a kernel, in the graph's order."""
        read = [name for name in _read_by(node) if name not in self.constant]
        if node.op_type == "Constant" and node.attribute[0].HasField("t"):
            self.held[node.output[0]] = node.attribute[0].t
            self.constant.add(node.output[0])
        elif node.op_type == "Shape" and node.input[0] in self.shapes:
            self._hold_shape(node)
        elif not read:
            self.constant.update(node.output)
            self.makers.update(dict.fromkeys(node.output, node))
        elif node.op_type == "DequantizeLinear":
            self.makers[node.output[0]] = node
            self.decoded[node.output[0]] = node.input[0]
            self.home[node.output[0]] = self.home.get(node.input[0], 0)
        else:
            group = self._group_of(node, read)
            self.groups[group].append(node)
            self.home.update(dict.fromkeys(node.output, group))

    def kernels(self) -> list[Kernel]:
        """Return what has an effect, in order."""
        wanted = self._read_elsewhere()
        found = (self._kernel(group, wanted) for group in range(len(self.groups)))
        return [kernel for kernel in found if kernel is not None]

    def _hold_shape(self, node: onnx.NodeProto) -> None:
        """Make a constant of a shape, for it follows from the shapes of the inputs."""
        bounds = {a.name: a.i for a in node.attribute}
        dims = self.shapes[node.input[0]][bounds.get("start", 0) : bounds.get("end")]
        name = node.output[0]
        self.held[name] = helper.make_tensor(name, TensorProto.INT64, [len(dims)], dims)
        self.constant.add(name)

    def _group_of(self, node: onnx.NodeProto, read: Sequence[str]) -> int:
        latest = max(self.home.get(name, 0) for name in read)
        pair = "MatMul" in node.op_type and len(read) > 1
        if node.op_type not in PRODUCTS | _MOVERS or (pair and self.paired[latest]):
            return latest
        self.groups.append([])
        self.paired.append(pair)
        return len(self.groups) - 1

    def _read_elsewhere(self) -> set[str]:
        """Return the tensors that leave the kernel that made them."""
        wanted = {self._root(value.name) for value in self.graph.output}
        for number, group in enumerate(self.groups):
            for node in group:
                roots = {self._root(name) for name in _read_by(node)}
                wanted |= {root for root in roots if self.home.get(root, number) != number}
        return wanted

    def _root(self, name: str) -> str:
        return self.decoded.get(name, name)

    def _kernel(self, number: int, wanted: Collection[str]) -> Kernel | None:
        group = self.groups[number]
        made = [name for node in group for name in node.output if name]
        coding = {n.output[0]: tuple(n.input[1:]) for n in group if n.op_type == "QuantizeLinear"}
        outputs = tuple(self.tensor(n, coding.get(n, ())) for n in made if n in wanted)
        if not outputs:
            return None
        piece = _Piece(self, set(made))
        for node in group:
            piece.add(node)
        first = group[0]
        return Kernel(
            first.name or first.output[0],
            first.op_type,
            tuple(piece.nodes),
            piece.weights,
            tuple(piece.inputs.values()),
            outputs,
            self.opsets,
            self.loose,
        )

    def tensor(self, name: str, coding: tuple[str, ...] = ()) -> Tensor:
        """Describe a tensor that crosses between kernels."""
        if name not in self.shapes:
            raise ModelError(f"the shape of `{name}` is not known, so its reader can't be timed")
        kind = self.kinds.get(name, TensorProto.FLOAT)
        return Tensor(name, kind, self.shapes[name], coding, name in self.given)


class _Piece:
    """Gathers the nodes of one kernel and all that they read."""

    def __init__(self, split: _Split, made: set[str]) -> None:
        self.split, self.known = split, made
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, TensorProto] = {}
        self.inputs: dict[str, Tensor] = {}

    def add(self, node: onnx.NodeProto) -> None:
        """Add a node after whatever it reads."""
        for name in _read_by(node):
            if name not in self.known:
                self.known.add(name)
                self._need(name)
        self.nodes.append(node)

    def _need(self, name: str) -> None:
        split = self.split
        if name in split.held:
            self.weights[name] = split.held[name]
        elif name in split.decoded:
            node = split.makers[name]
            coding, root = tuple(node.input[1:]), node.input[0]
            if root not in self.known:
                self.known.add(root)
                self.inputs[root] = split.tensor(root, coding)
            self.add(node)
        elif name in split.makers:
            self.add(split.makers[name])
        else:
            self.inputs[name] = split.tensor(name)


def _kinds(graph: onnx.GraphProto, opsets: Sequence[tuple[str, int]]) -> dict[str, int]:
    """Return the type of each tensor that ONNX's inference, or a zero point, tells."""
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid(*opset) for opset in opsets]
    )
    typed = shape_inference.infer_shapes(model).graph
    found = {tensor.name: tensor.data_type for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "QuantizeLinear":
            zero = node.input[2] if len(node.input) > 2 else ""
            found[node.output[0]] = found.get(zero, TensorProto.UINT8)
    values = (*typed.input, *typed.value_info, *typed.output)
    told = {value.name: value.type.tensor_type.elem_type for value in values}
    return found | {name: kind for name, kind in told.items() if kind}


def _read_by(node: onnx.NodeProto) -> Iterator[str]:
    """Yield what a node reads, and what its branches read from outside of them."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for inner in (attribute.g, *attribute.graphs):
            own = {name for each in inner.node for name in each.output}
            own |= {value.name for value in (*inner.input, *inner.initializer)}
            yield from (name for each in inner.node for name in _read_by(each) if name not in own)


def _attribute(attribute: onnx.AttributeProto) -> list[str]:
    value = helper.get_attribute_value(attribute)
    if isinstance(value, TensorProto):
        return [attribute.name, repr(_told(value))]
    if isinstance(value, onnx.GraphProto):
        return [attribute.name, "+".join(node.op_type for node in value.node)]
    return [attribute.name, repr(list(value) if isinstance(value, Sequence) else value)]


def _told(tensor: TensorProto) -> list[Any]:
    """Describe a constant: its numbers too, where they say what is done and not with what."""
    told: list[Any] = [tensor.data_type, list(tensor.dims)]
    if tensor.data_type == TensorProto.INT64 and _size(tensor) <= _SHOWN_NUMBERS:
        told.append(numpy_helper.to_array(tensor).tolist())
    elif tensor.data_type in (TensorProto.INT8, TensorProto.UINT8) and _size(tensor) == 1:
        told.append(bool(numpy_helper.to_array(tensor).any()))  # a zero point of 0 costs less
    return told


def _size(tensor: TensorProto) -> int:
    size = 1
    for dim in tensor.dims:
        size *= dim
    return size
