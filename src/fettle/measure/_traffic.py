"""What each layer of a graph has to compute and to move, at the least.

The model of traffic. A *step* is an operator that must see its whole input (a convolution, a
product, a recurrent layer, a pool, a layer norm) together with all that follows it and can be
computed on the way: element-wise operators, views, quantization, softmax, reductions. A step reads
each tensor that it needs once, reads its weights once, and writes each tensor that another step
needs once. Nothing else moves. So:

- element-wise operators cost nothing beside the further tensors that they read (a residual);
- a tensor counts in the type in which it crosses: in int8 where a QuantizeLinear follows, which is
  then written, and the float isn't; floats take `float_bytes` each;
- weights count in the type of the file; of an embedding, only the rows that are looked up;
- concatenations and slices are views; a strided convolution reads only what it multiplies;
- products with padding aren't computed; the scores between the two products of an attention stay
  inside of the processor.

Every choice is on the side of less, so that what is made of it is a bound. An engine could undercut
it only by an algorithm with fewer products (Winograd's, Strassen's).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from fettle.measure._graph import constants, read
from fettle.measure._padding import products_inside
from fettle.measure._shapes import Shapes, for_one_example
from fettle.measure.macs import macs_of_node

_MOVERS = {"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LpPool", "Resize",
           "LayerNormalization", "InstanceNormalization", "GroupNormalization", "LRN",
           "RMSNormalization", "SkipLayerNormalization"}  # fmt: skip
_SAME = {"QuantizeLinear", "DequantizeLinear", "Reshape", "Flatten", "Squeeze", "Unsqueeze",
         "Identity", "Transpose", "Dropout"}  # fmt: skip
_PARTS = {"Slice", "Split", "Gather", "DepthToSpace", "SpaceToDepth", "Pad", "Expand"}
_FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE}
_HALVES = {TensorProto.FLOAT16, TensorProto.BFLOAT16}
_BITS = {TensorProto.INT4: 4, TensorProto.UINT4: 4, TensorProto.INT2: 2, TensorProto.UINT2: 2}


@dataclass(frozen=True)
class Amount:
    """So many bytes in a fixed type, and so many floats in whatever type the engine keeps them."""

    fixed: float = 0.0
    floats: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.fixed + other.fixed, self.floats + other.floats)

    def in_bytes(self, float_bytes: int) -> int:
        """Return bytes, at `float_bytes` a float."""
        return round(self.fixed) + self.floats * float_bytes


@dataclass
class Step:
    """A layer of the graph and the nodes that can be fused into it.

    `products` are the multiply-adds without those of padding; `quantized` says whether it reads
    its activations out of integers, `of_two` whether both factors are activations; `shape` is that
    of its own output.
    """

    name: str
    op: str
    macs: int = 0
    products: int = 0
    nodes: list[str] = field(default_factory=list)
    weights: Amount = Amount()
    activations: Amount = Amount()
    quantized: bool = False
    of_two: bool = False
    shape: tuple[int, ...] = ()

    def bytes_at(self, float_bytes: int) -> int:
        """Return all bytes that the step moves."""
        return (self.weights + self.activations).in_bytes(float_bytes)


@dataclass(frozen=True)
class Traffic:
    """The steps of a graph in order, and the step's number of each node by its name.

    `names` gives the node that a name means: its own, an output's, or a weight's that only it
    reads (`layer1.0.conv1` for `layer1.0.conv1.weight`).
    """

    steps: list[Step]
    step_of: dict[str, int]
    names: dict[str, str]


def traffic_of(path: str | Path, shapes: Mapping[str, Sequence[int]] | None = None) -> Traffic:
    """Return what each layer of an ONNX file computes and moves.

    `shapes` gives the whole shape of each input, the batch included; without it, one example.

    Raises:
        ModelError: no readable ONNX, or a shape that can't be known.
    """
    graph, known = for_one_example(read(path, with_data=True), shapes)
    walk = _Walk(graph, known)
    for node in graph.node:
        walk.take(node)
    walk.close()
    return Traffic(walk.steps, walk.step_of, walk.names)


def name_of(node: onnx.NodeProto) -> str:
    """Return the node's name, or its first output's where it has none."""
    return str(node.name or node.output[0])


class _Walk:
    """Gives every node to a step, then counts what crosses between steps."""

    def __init__(self, graph: onnx.GraphProto, shapes: Shapes) -> None:
        self.graph, self.shapes = graph, shapes
        self.held = {name: tensor.data_type for name, tensor in constants(graph)}
        self.kinds = {v.name: v.type.tensor_type.elem_type for v in graph.input} | self.held
        self.constant = set(self.held)
        self.steps: list[Step] = []
        self.step_of: dict[str, int] = {}
        self.born: dict[str, int] = {}  # tensor -> step
        self.roots: dict[str, dict[str, int]] = {}  # tensor -> what it is a view of, and how much
        self.given = {value.name for value in graph.input}
        self.integers: set[str] = set()  # tensors that were integers before they were dequantized
        self.names: dict[str, str] = {}
        self.reads: list[dict[str, int]] = []

    def take(self, node: onnx.NodeProto) -> None:
        inputs = [name for name in node.input if name]
        if all(name in self.constant for name in inputs):
            self.constant.update(node.output)
            self._alias(node)
            self.kinds.update(dict.fromkeys(node.output, self._kind_after(node)))
            return
        macs = macs_of_node(node, self.shapes)
        if macs or node.op_type in _MOVERS:
            self._open(node, macs)
            self._join(node, len(self.steps) - 1)
        else:
            self._join(node, max((self._home(name) for name in inputs), default=-1))

    def close(self) -> None:
        """Count writes: what another step or the caller reads."""
        wanted = {root: most for value in self.graph.output
                  for root, most in self._root(value.name).items()}  # fmt: skip
        for index, reads in enumerate(self.reads):
            for name, most in reads.items():
                if name in self.constant:
                    self.steps[index].weights += self._amount(name, most)
                elif not self._stays_inside(name, index):
                    self.steps[index].activations += self._amount(name, most)
                    wanted[name] = self._size(name)
        for name in wanted:
            if name in self.born:
                self.steps[self.born[name]].activations += self._amount(name, self._size(name))

    def _open(self, node: onnx.NodeProto, macs: int) -> None:
        inside = products_inside(node, self.shapes, macs)
        step = Step(name_of(node), node.op_type, macs, inside)
        factors = node.input[::3][:2] if node.op_type.startswith("QLinear") else node.input[:2]
        step.of_two = "MatMul" in node.op_type and not any(
            root in self.constant for name in factors for root in self._root(name)
        )
        step.shape = self.shapes.get(node.output[0], ())
        self.steps.append(step)
        self.reads.append({})

    def _join(self, node: onnx.NodeProto, index: int) -> None:
        """Fuse the node into the step, which then reads what the node reads from elsewhere."""
        for name in node.output:
            self.kinds[name] = self._kind_after(node)
        self._alias(node)
        self.names.update({name: name_of(node) for name in (*node.output, name_of(node))})
        if index < 0:
            return  # before the first step: part of the input
        self.step_of[name_of(node)] = index
        self.steps[index].nodes.append(name_of(node))
        for name in node.output:
            self.born.setdefault(name, index)
        if node.op_type not in _SAME:
            self._read(node, index)

    def _read(self, node: onnx.NodeProto, index: int) -> None:
        anchor = self.steps[index].name == name_of(node)
        kept = self.reads[index]
        if anchor:
            self._name_by_weight(node)
            self.steps[index].quantized = node.input[0] in self.integers or "Q" in node.op_type
        for place, name in enumerate(node.input):
            if not name or (self._is_index(name) and not anchor):
                continue
            for root, size in self._root(name).items():
                if self.born.get(root) != index:
                    most = self._needed(node, place, size)
                    kept[root] = max(kept.get(root, 0), most)

    def _is_index(self, name: str) -> bool:
        return name in self.held and self.kinds[name] not in _FLOATS

    def _name_by_weight(self, node: onnx.NodeProto) -> None:
        """Let the path of torch's module mean the node that reads its weight."""
        for name in node.input[1:4]:
            for root in self._root(name) if name else ():
                module = re.sub(r"\.weight(_quantized|_q)?$", "", root)
                if root in self.constant and module != root:
                    self.names.setdefault(module, name_of(node))

    def _alias(self, node: onnx.NodeProto) -> None:
        """Remember what the outputs are views of."""
        op = node.op_type
        if op in _SAME:
            sources = self._root(node.input[0])
            if op == "QuantizeLinear":
                for root in sources.keys() - self.given:
                    self.kinds[root] = self._kind_after(node)
            if op == "DequantizeLinear" or node.input[0] in self.integers:
                self.integers.update(node.output)
        elif op in _PARTS and node.input[0] not in self.constant:
            sources = self._root(node.input[0])
        elif op == "Concat":
            sources = {k: v for name in node.input for k, v in self._root(name).items()}
        else:
            return
        for name in node.output:
            most = prod(self.shapes.get(name, (1,)))
            self.roots[name] = {root: min(size, most) for root, size in sources.items()}

    def _root(self, name: str) -> dict[str, int]:
        return self.roots.get(name) or {name: self._size(name)}

    def _size(self, name: str) -> int:
        return prod(self.shapes.get(name, (0,)))

    def _home(self, name: str) -> int:
        return max((self.born.get(root, -1) for root in self._root(name)), default=-1)

    def _kind_after(self, node: onnx.NodeProto) -> int:
        """Return the type of what the node makes, where it matters: integers that are stored."""
        if node.op_type == "QuantizeLinear":
            zero = node.input[2] if len(node.input) > 2 else ""
            return int(self.kinds.get(zero, TensorProto.UINT8))
        if node.op_type == "DynamicQuantizeLinear" or node.op_type.startswith("QLinear"):
            return TensorProto.UINT8
        return TensorProto.FLOAT

    def _amount(self, name: str, size: int) -> Amount:
        kind = self.kinds.get(name, TensorProto.FLOAT)
        if kind in _FLOATS and (kind not in _HALVES or name not in self.held):
            return Amount(floats=size)
        if kind in _BITS:
            return Amount(size * _BITS[kind] / 8)
        if kind in _HALVES:
            return Amount(2.0 * size)
        return Amount(float(size * helper.tensor_dtype_to_np_dtype(kind).itemsize))

    def _needed(self, node: onnx.NodeProto, place: int, size: int) -> int:
        """Return how many numbers of an input are read: of a table, or between strides, not all."""
        if place > 0:
            return size
        if node.op_type in ("Gather", "GatherElements", "GatherND", "Slice"):
            return min(size, self._size(node.output[0]))
        if node.op_type not in ("Conv", "QLinearConv"):
            return size
        weight = self.shapes[node.input[1 if node.op_type == "Conv" else 3]]
        out, channels = self.shapes[node.output[0]], self.shapes[node.input[0]][1]
        return min(size, out[0] * channels * prod(out[2:]) * prod(weight[2:]))

    def _stays_inside(self, name: str, reader: int) -> bool:
        """Say whether a tensor goes from one product of two activations into another."""
        maker = self.born.get(name, -1)
        return maker >= 0 and self.steps[maker].of_two and self.steps[reader].of_two
