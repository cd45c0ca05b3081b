"""Where the symmetric int8 master is quantized: one PT2E quantizer for every engine.

All int8, zero point 0: activations by tensor, weights by output channel, biases in float. These are
the rules of TensorRT's explicit quantization; OpenVINO runs the result as it is, and onnxruntime
after a lowering (`fettle.graph.lower_ort_x86`).

The rule of placement is by demand: an operator that an engine can run in integers asks for
quantized inputs, and a tensor is quantized, once, when somebody asks for it.

- convolutions and linear layers ask for their input and weight;
- additions, products, pools and the like ask when all of their inputs descend from a convolution.
  So the residual sums and layer norms of transformers, which some engines then compute wrongly,
  stay in float;
- the output of a convolution (with its batch norm and ReLU) is always quantized, because
  onnxruntime fuses a convolution only between two quantized tensors; but a model's output never
  is, nor what goes into a layer norm or becomes a transformer's tokens (OpenVINO computes a Swin
  and a ViT wrongly behind such a one).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e.quantizer import (
    QuantizationAnnotation,
    QuantizationSpec,
    Quantizer,
    SharedQuantizationSpec,
)

_aten = torch.ops.aten
_KEY = "quantization_annotation"
LEFT = "stays_in_float"  # marks, in a node's `meta`, a layer that isn't to be quantized

CONVOLUTIONS = {
    _aten.conv1d.default,
    _aten.conv2d.default,
    _aten.conv2d.padding,
    _aten.conv3d.default,
}
LINEARS = {_aten.linear.default}
NORMS = {_aten.batch_norm.default}
RECTIFIERS = {
    _aten.relu.default,
    _aten.relu_.default,
    _aten.hardtanh.default,
    _aten.hardtanh_.default,
    _aten.clamp.default,
}
# Integer arithmetic in at least one engine, when every tensor input is quantized.
COMBINERS = {
    _aten.add.Tensor,
    _aten.add_.Tensor,
    _aten.mul.Tensor,
    _aten.mul_.Tensor,
    _aten.avg_pool2d.default,
    _aten.adaptive_avg_pool2d.default,
    _aten.mean.dim,
    _aten.hardswish.default,
    _aten.hardswish_.default,
    _aten.hardsigmoid.default,
    _aten.hardsigmoid_.default,
}
# These only move or select values: what comes out has the scale of what went in.
MOVERS = {
    _aten.max_pool2d.default,
    _aten.slice.Tensor,
    _aten.pad.default,
    _aten.constant_pad_nd.default,
    _aten.cat.default,
    _aten.index_select.default,
    _aten.channel_shuffle.default,
    _aten.chunk.default,
}
# Transparent for descent; never annotated themselves.
VIEWS = {
    _aten.flatten.using_ints,
    _aten.view.default,
    _aten.reshape.default,
    _aten.dropout.default,
    _aten.dropout_.default,
    _aten.permute.default,
    _aten.transpose.int,
    _aten.squeeze.dims,
    _aten.unsqueeze.default,
    _aten.contiguous.default,
}

TURNS = {_aten.permute.default, _aten.transpose.int}  # those of VIEWS that change the order
_JOINS = {_aten.cat.default, _aten.add.Tensor, _aten.add_.Tensor}
LAYER_NORMS = {_aten.layer_norm.default, _aten.rms_norm.default}

# Their other inputs are parameters or indices, no activations.
FIRST_ONLY = NORMS | {_aten.index_select.default}


class SymmetricQuantizer(Quantizer):  # type: ignore[misc]  # torchao is untyped
    """Annotates an exported graph for the symmetric int8 master.

    Args:
        activation: specification of activations, per tensor.
        weight: specification of weights, per output channel (axis 0).
    """

    def __init__(self, activation: QuantizationSpec, weight: QuantizationSpec) -> None:
        super().__init__()
        self.activation, self.weight = activation, weight

    def annotate(self, model: GraphModule) -> GraphModule:
        """Write the annotations into the nodes of `model`."""
        nodes = list(model.graph.nodes)
        region = integer_region(nodes)
        wanted = _wanted(nodes, region)
        for node in nodes:
            self._annotate_node(node, region, wanted)
        return model

    def _annotate_node(self, node: Node, region: set[Node], wanted: set[Node]) -> None:
        inputs: dict[Node, object] = {}
        if node.target in CONVOLUTIONS | LINEARS and _has_weight(node):
            inputs = dict(zip(_operands(node), (self.activation, self.weight), strict=True))
        elif node in region and node.target in COMBINERS | MOVERS:
            inputs = dict.fromkeys(tensor_inputs(node), self.activation)
        output: object = self.activation if node in wanted and node.op != "placeholder" else None
        if output and inputs and node.target in MOVERS:
            first = tensor_inputs(node)[0]
            shared = SharedQuantizationSpec((first, node))
            inputs = {n: (self.activation if n is first else shared) for n in inputs}
            output = shared
        if inputs or output:
            node.meta[_KEY] = QuantizationAnnotation(
                input_qspec_map=inputs, output_qspec=output, _annotated=True
            )

    def validate(self, model: GraphModule) -> None:
        """Nothing to refuse: what can't be quantized was not annotated."""


def integer_region(nodes: Iterable[Node]) -> set[Node]:
    """Return the nodes whose value descends from convolutions through integer operators alone."""
    region: set[Node] = set()
    for node in nodes:
        if node.target in CONVOLUTIONS and _has_weight(node):
            region.add(node)
        elif node.target in NORMS | RECTIFIERS | COMBINERS | MOVERS | VIEWS:
            inputs = tensor_inputs(node)
            if inputs and all(n in region for n in inputs) and not _is_centre(node):
                region.add(node)
    return region


def tensor_inputs(node: Node) -> list[Node]:
    """Return the nodes that give `node` its activations, in order, each once."""
    if node.target in FIRST_ONLY:
        return [node.args[0]] if isinstance(node.args[0], Node) else []
    return [n for n in node.all_input_nodes if _is_float(n)]


def tail_of(node: Node) -> Node:
    """Return the last node of the chain convolution, batch norm, rectifier that starts here."""
    for following in (NORMS, RECTIFIERS):
        users = list(node.users)
        if len(users) == 1 and users[0].target in following:
            node = users[0]
    return node


def _feeds_layer_norm(node: Node) -> bool:
    """Say whether a layer norm reads what `node` makes, or what only moves its numbers."""
    return any(
        user.target in LAYER_NORMS
        or _centres(user, node)
        or (user.target in MOVERS | VIEWS and _feeds_layer_norm(user))
        for user in node.users
    )


def _becomes_tokens(node: Node, region: set[Node], turned: bool = False) -> bool:
    """Say whether what `node` makes is turned, and then joined with or added to floats."""
    for user in node.users:
        if user.target in VIEWS:
            if _becomes_tokens(user, region, turned or user.target in TURNS):
                return True
        elif turned and user.target in _JOINS and user not in region:
            return True
    return False


def _is_centre(node: Node) -> bool:
    """Say whether `node` is the mean that a layer norm subtracts."""
    return node.target is _aten.mean.dim and any(
        _centres(reader, given) for given in tensor_inputs(node) for reader in given.users
    )


def _centres(node: Node, value: Node) -> bool:
    """Say whether `node` subtracts from `value` its own mean: a layer norm written out."""
    means = (n for n in node.all_input_nodes if n.target is _aten.mean.dim)
    return node.target is _aten.sub.Tensor and any(mean.args[0] is value for mean in means)


def _wanted(nodes: list[Node], region: set[Node]) -> set[Node]:
    """Return the tensors (by the node that makes them) that somebody wants quantized."""
    wanted: set[Node] = set()
    for node in nodes:
        if node.target in CONVOLUTIONS | LINEARS and _has_weight(node):
            wanted.add(_operands(node)[0])
        if node.target in CONVOLUTIONS and _has_weight(node):
            tail = tail_of(node)
            if not _feeds_layer_norm(tail) and not _becomes_tokens(tail, region):
                wanted.add(tail)
        elif node in region and node.target in COMBINERS | MOVERS:
            wanted.update(tensor_inputs(node))
            if node.target in MOVERS:
                wanted.add(node)
            else:
                wanted.add(tail_of(node))
    outputs = {n for node in nodes if node.op == "output" for n in node.all_input_nodes}
    return wanted - outputs


def _operands(node: Node) -> tuple[Node, Node]:
    """Return the input and the weight of a weighted operator."""
    activation, weight = node.args[:2]
    assert isinstance(activation, Node)
    assert isinstance(weight, Node)
    return activation, weight


def _has_weight(node: Node) -> bool:
    """Whether a weighted operator is to be quantized: by a float32 parameter of its own."""
    if node.meta.get(LEFT):
        return False
    weight = node.args[1] if len(node.args) > 1 else None
    return isinstance(weight, Node) and weight.op == "get_attr" and _is_float(weight)


def _is_float(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.dtype == torch.float32
