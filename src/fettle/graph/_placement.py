"""Where the symmetric int8 master is quantized, read from an ONNX graph.

The rules are those of `fettle.compress.quantize._quantizer`, by demand: an operator that an engine
can run in integers asks for quantized inputs, and a tensor is quantized, once, when somebody asks.

- layers (Conv, ConvTranspose, Gemm, MatMul with a constant weight) ask for input and weight;
- additions, products, pools and the like ask when all of their inputs descend from a convolution,
  so that the residual sums and layer norms of transformers stay in float;
- what only moves values asks when its result is asked for, and all its tensors share one scale;
- the output of a convolution, with the rectifier behind it, is always quantized, since
  onnxruntime fuses a convolution only between two quantized tensors; but a model's output never
  is, nor what goes into a layer norm or becomes a transformer's tokens (OpenVINO computes a Swin
  and a ViT wrongly behind such a one).

What a convolution or a combination makes is quantized for all of its readers; any other tensor
only for those that ask, so that a shortcut around them stays in float.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import onnx_ir as ir

from fettle.graph._quantized import constant_of
from fettle.graph.fold_batch_norm import attribute_int

CONVOLUTIONS = {"Conv", "ConvTranspose"}
RECTIFIERS = {"Relu", "Clip"}
# Integer arithmetic in at least one engine, when every tensor input is quantized.
COMBINERS = {
    "Add",
    "Mul",
    "Sum",
    "AveragePool",
    "GlobalAveragePool",
    "ReduceMean",
    "HardSwish",
    "HardSigmoid",
    "LeakyRelu",
}
# These only move or select values: what comes out has the scale of what went in.
MOVERS = {
    "MaxPool",
    "GlobalMaxPool",
    "ReduceMax",
    "Concat",
    "Split",
    "Slice",
    "Gather",
    "Pad",
    "Resize",
    "Reshape",
    "Flatten",
    "Transpose",
    "Squeeze",
    "Unsqueeze",
    "Identity",
    "Dropout",
    "DepthToSpace",
    "SpaceToDepth",
}
_VIEWS = {"Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze"}
_JOINS = {"Concat", "Add", "Sum"}
LAYER_NORMS = {"LayerNormalization", "RMSNormalization", "MeanVarianceNormalization"}
_ALL_INPUTS = {"Add", "Mul", "Sum", "Concat"}  # any other acts on its first input
_DESCENDING = RECTIFIERS | COMBINERS | MOVERS | {"BatchNormalization"}

Edge = tuple[ir.Node, int]


@dataclass
class Placement:
    """What is to be quantized.

    Attributes:
        layers: layers whose weight is quantized, each with the axis of its output channels.
        edges: for each quantized tensor, who reads it quantized (node and number of the input).
        moved: tensors that an integer mover makes: they have the scale of what it moves.
    """

    layers: dict[ir.Node, int] = field(default_factory=dict)
    edges: dict[ir.Value, set[Edge]] = field(default_factory=dict)
    moved: set[ir.Value] = field(default_factory=set)
    _parents: dict[ir.Value, ir.Value] = field(default_factory=dict)

    def group(self, value: ir.Value) -> ir.Value:
        """Return the tensor that stands for all those that share a scale with `value`."""
        while (parent := self._parents.get(value, value)) is not value:
            value = parent
        return value

    def observed(self) -> dict[ir.Value, list[ir.Value]]:
        """Return for each group the tensors whose values make its range."""
        found: dict[ir.Value, list[ir.Value]] = {}
        for value in self.edges:
            if value not in self.moved:
                found.setdefault(self.group(value), []).append(value)
        return found

    def ask(self, node: ir.Node, *indices: int) -> None:
        """Let `node` read these inputs quantized."""
        for index in indices:
            value = node.inputs[index]
            assert value is not None
            self.edges.setdefault(value, set()).add((node, index))

    def ask_for_all(self, value: ir.Value, graph: ir.Graph) -> None:
        """Let every reader in the graph itself read `value` quantized."""
        if not value.is_graph_output():
            readers = {(u.node, u.idx) for u in value.uses() if u.node.graph is graph}
            if readers:
                self.edges.setdefault(value, set()).update(readers)

    def share(self, values: Iterable[ir.Value]) -> None:
        """Give all `values` one scale."""
        roots = [self.group(value) for value in values]
        for root in roots[1:]:
            self._parents[root] = roots[0]


def place(
    graph: ir.Graph, leave: Callable[[ir.Node], bool], between_activations: bool = False
) -> Placement:
    """Return what to quantize in `graph`.

    Args:
        graph: prepared (see `_prepare`), in topological order.
        leave: says which nodes stay in float.
        between_activations: whether a MatMul of two activations is quantized too.
    """
    placement = Placement(_layers(graph, leave))
    region = _integer_region(graph, placement, leave)
    for node in reversed(list(graph)):
        if node in placement.layers:
            placement.ask(node, 0)
            if node.op_type in CONVOLUTIONS and not _leaves_integers(_tail(node), region):
                placement.ask_for_all(_tail(node), graph)
        elif between_activations and _multiplies_activations(node) and not leave(node):
            placement.ask(node, 0, 1)
        elif node.outputs and node.outputs[0] in region:
            _place_in_region(node, placement, graph)
    return placement


def _layers(graph: ir.Graph, leave: Callable[[ir.Node], bool]) -> dict[ir.Node, int]:
    axes = ((node, weight_axis(node)) for node in graph if not leave(node))
    return {node: axis for node, axis in axes if axis is not None}


def weight_axis(node: ir.Node) -> int | None:
    """Return the axis of output channels in the float32 weight of a layer, None for no layer."""
    if node.domain or node.op_type not in (*CONVOLUTIONS, "Gemm", "MatMul"):
        return None
    weight = constant_of(node.inputs[1])
    if weight is None or weight.dtype != "float32" or constant_of(node.inputs[0]) is not None:
        return None
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1
    if weight.ndim != 2 or attribute_int(node, "transA", 0):
        return None
    return 0 if attribute_int(node, "transB", 0) else 1


def _integer_region(
    graph: ir.Graph, placement: Placement, leave: Callable[[ir.Node], bool]
) -> set[ir.Value]:
    """Return the tensors that descend from convolutions through integer operators alone."""
    region: set[ir.Value] = set()
    for node in graph:
        if node in placement.layers and node.op_type in CONVOLUTIONS:
            region.add(node.outputs[0])
        elif _descends(node, region) and not leave(node):
            region.update(node.outputs)
    return region


def _descends(node: ir.Node, region: set[ir.Value]) -> bool:
    if node.op_type not in _DESCENDING or node.domain or not node.inputs:
        return False
    return all(node.inputs[i] in region for i in _activations(node)) and _keeps_range(node)


def _activations(node: ir.Node) -> range:
    """Return the numbers of the inputs that are activations."""
    return range(len(node.inputs) if node.op_type in _ALL_INPUTS else 1)


def _keeps_range(node: ir.Node) -> bool:
    """Refuse the forms of a mover that make values of their own."""
    if node.op_type == "Pad":
        fill = constant_of(node.inputs[2]) if len(node.inputs) > 2 else None
        return node.inputs[2:3] in ((), (None,)) or (fill is not None and not fill.any())
    if node.op_type == "Resize":
        return "mode" not in node.attributes or node.attributes["mode"].as_string() != "cubic"
    if node.op_type == "ReduceMean":
        given = node.inputs[0]
        return given is None or not any(_centres(reader, given) for reader in given.consumers())
    if node.op_type == "Split":
        return True
    return not any(value.uses() or value.is_graph_output() for value in node.outputs[1:])


def _place_in_region(node: ir.Node, placement: Placement, graph: ir.Graph) -> None:
    if node.op_type in COMBINERS:
        placement.ask(node, *_activations(node))
        placement.ask_for_all(_tail(node), graph)
    elif node.op_type in MOVERS and _is_asked_for(node, placement):
        placement.ask(node, *_activations(node))
        for value in node.outputs:
            placement.ask_for_all(value, graph)
        inputs = (value for value in node.inputs[: len(_activations(node))] if value is not None)
        placement.share([*inputs, *node.outputs])
        placement.moved.update(node.outputs)


def _is_asked_for(node: ir.Node, placement: Placement) -> bool:
    if any(value.is_graph_output() for value in node.outputs):
        return False
    return any(value in placement.edges for value in node.outputs)


def _tail(node: ir.Node) -> ir.Value:
    """Return what comes out of a node and the batch norm and rectifier that only it feeds."""
    value = node.outputs[0]
    for following in ({"BatchNormalization"}, RECTIFIERS):
        users = list(_users(value, node.graph))
        if len(users) == 1 and users[0].op_type in following and not value.is_graph_output():
            value = users[0].outputs[0]
    return value


def _leaves_integers(value: ir.Value, region: set[ir.Value]) -> bool:
    return _feeds_layer_norm(value) or _becomes_tokens(value, region)


def _becomes_tokens(value: ir.Value, region: set[ir.Value], turned: bool = False) -> bool:
    """Say whether `value` is turned, and then joined with or added to floats."""
    for node in value.consumers():
        if node.op_type in _VIEWS:
            if _becomes_tokens(node.outputs[0], region, turned or node.op_type == "Transpose"):
                return True
        elif turned and node.op_type in _JOINS and node.outputs[0] not in region:
            return True
    return False


def _feeds_layer_norm(value: ir.Value) -> bool:
    """Say whether a layer norm reads `value`, or what only moves its numbers."""
    for node in value.consumers():
        if node.op_type in LAYER_NORMS or _centres(node, value):
            return True
        if node.op_type in MOVERS and any(_feeds_layer_norm(made) for made in node.outputs):
            return True
    return False


def _centres(node: ir.Node, value: ir.Value) -> bool:
    """Say whether `node` subtracts from `value` its own mean: a layer norm written out."""
    makers = [given.producer() for given in node.inputs if given is not None]
    means = [maker for maker in makers if maker is not None and maker.op_type == "ReduceMean"]
    return node.op_type == "Sub" and any(mean.inputs[0] is value for mean in means)


def _users(value: ir.Value, graph: object) -> Iterator[ir.Node]:
    for usage in value.uses():
        yield usage.node
        if usage.node.graph is not graph:  # read inside a branch too: not this tail's alone
            yield usage.node


def _multiplies_activations(node: ir.Node) -> bool:
    return node.op_type == "MatMul" and all(
        constant_of(value) is None and value is not None and value.dtype == ir.DataType.FLOAT
        for value in node.inputs
    )
