"""Lower the int8 master for OpenVINO: no rounding between a layer and its activation function.

What it does: OpenVINO computes hard-swish, SiLU, hard-sigmoid and the like in float inside of the
convolution that they follow. A QuantizeLinear/DequantizeLinear pair in between, which onnxruntime
needs, is one more rounding there and hinders the fusion; so is one between a gate and the product
that it scales. Both are dropped.

When to use it: never by hand. A session applies it when it proved itself in time.

Expected effect: 1.1 × on MobileNetV3-small (see `benchmarks/results`), and a rounding less.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx_ir as ir

from fettle.core.errors import ModelError
from fettle.graph._pass import GraphPass
from fettle.graph._quantized import weighted_nodes

if TYPE_CHECKING:
    from fettle.tasks import Task

_GATES = {"HardSigmoid", "Sigmoid"}
_FUNCTIONS = _GATES | {"HardSwish", "LeakyRelu", "Elu", "PRelu", "Mish", "Gelu", "Softplus", "Tanh"}


@dataclass(frozen=True, kw_only=True)
class LowerOpenvinoActivations(GraphPass):
    """Activation functions straight behind their layers."""

    lowers_for = "openvino"

    def requires(self, model: ir.Model) -> None:
        """Refuse a model without quantized activations."""
        if not any(node.op_type == "QuantizeLinear" for node in model.graph):
            raise ModelError(
                f"`{self.name()}` drops roundings, and this model has none; quantize it first"
            )

    def apply(self, model: ir.Model, task: Task | None) -> ir.Model:
        """Drop every pair between a layer and its function, or a gate and its product."""
        del task
        layers = set(weighted_nodes(model.graph))
        for node in list(model.graph):
            if node.op_type == "QuantizeLinear" and _hinders(node, layers):
                _drop(model.graph, node)
        return model


def _hinders(quantize: ir.Node, layers: set[ir.Node]) -> bool:
    source = quantize.inputs[0]
    maker = source.producer() if source is not None else None
    dequantizes = [usage.node for usage in quantize.outputs[0].uses()]
    if quantize.outputs[0].is_graph_output() or not all(_plain(node) for node in dequantizes):
        return False
    readers = [usage.node for node in dequantizes for usage in node.outputs[0].uses()]
    if not readers or maker is None:
        return False
    if maker.op_type in _GATES:
        return all(reader.op_type == "Mul" for reader in readers)
    return maker in layers and _only_functions(readers)


def _plain(node: ir.Node) -> bool:
    return node.op_type == "DequantizeLinear" and not node.outputs[0].is_graph_output()


def _only_functions(readers: list[ir.Node]) -> bool:
    """Say whether functions of one tensor are all that reads it, or its product with a gate."""
    functions = [reader for reader in readers if reader.op_type in _FUNCTIONS]
    gates = {reader for reader in functions if reader.op_type in _GATES}
    others = [reader for reader in readers if reader not in functions]
    return bool(functions) and all(_is_gated(reader, gates) for reader in others)


def _is_gated(product: ir.Node, gates: set[ir.Node]) -> bool:
    makers = {_maker_before_pair(value) for value in product.inputs}
    return product.op_type == "Mul" and bool(makers & gates)


def _maker_before_pair(value: ir.Value | None) -> ir.Node | None:
    """Return who makes a value, behind QuantizeLinear and DequantizeLinear where they stand."""
    maker = value.producer() if value is not None else None
    while maker is not None and maker.op_type in {"QuantizeLinear", "DequantizeLinear"}:
        given = maker.inputs[0]
        maker = given.producer() if given is not None else None
    return maker


def _drop(graph: ir.Graph, quantize: ir.Node) -> None:
    source = quantize.inputs[0]
    assert source is not None
    for node in [usage.node for usage in quantize.outputs[0].uses()]:
        node.outputs[0].replace_all_uses_with(source)
        graph.remove(node, safe=True)
    graph.remove(quantize, safe=True)
