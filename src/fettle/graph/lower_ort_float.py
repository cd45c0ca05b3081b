"""Keep in floating point what the master leaves there, on onnxruntime.

What it does: onnxruntime quantizes by itself, by tensor in place of by channel, a
convolution or linear layer of float weights that stands between two quantized tensors. So a layer
that was left in float for its accuracy or its speed comes back as int8, less exact than if it had
been quantized well. Behind each such layer this puts a LeakyRelu of slope 1, the identity: it hides
the quantizer that follows, and onnxruntime fuses it into the convolution, where it costs nothing.

When to use it: never by hand. Whoever chooses the lowering applies it wherever it finds such a
layer: not for speed, but because the model says so.

Expected effect: the layers that `leave` names, and those that mixed precision or the rescue of slow
layers chose, run in f32; outputs come closer to the untouched model's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx_ir as ir

from fettle.core.machine import Machine
from fettle.graph._master import OfQuantized
from fettle.graph._pass import GraphPass
from fettle.graph._quantized import constant_of

if TYPE_CHECKING:
    from fettle.tasks import Task

_LAYERS = {"Conv", "ConvTranspose", "Gemm"}
_RECTIFIERS = {"Relu", "Clip"}


@dataclass(frozen=True, kw_only=True)
class LowerOrtFloat(OfQuantized, GraphPass):
    """Float layers between quantized tensors stay in float on onnxruntime."""

    lowers_for = "onnxruntime"
    always = True

    @classmethod
    def suits(cls, machine: Machine) -> bool:
        """Say yes: onnxruntime rewrites such layers on every processor."""
        del machine
        return True

    def apply(self, model: ir.Model, task: Task | None) -> ir.Model:
        """Put an identity that onnxruntime keeps behind each such layer."""
        del task
        for node in list(model.graph):
            if _would_be_quantized(node):
                _hide(model.graph, node.outputs[0])
        return model


def _would_be_quantized(node: ir.Node) -> bool:
    if node.domain or node.op_type not in _LAYERS or node.outputs[0].is_graph_output():
        return False
    source = node.inputs[0].producer() if node.inputs[0] is not None else None
    if source is None or source.op_type != "DequantizeLinear":
        return False
    weight = constant_of(node.inputs[1])
    return weight is not None and weight.dtype == "float32" and _is_quantized(node.outputs[0])


def _is_quantized(value: ir.Value) -> bool:
    """Say whether a QuantizeLinear reads `value`, or what a rectifier makes of it."""
    return any(
        reader.op_type == "QuantizeLinear"
        or (reader.op_type in _RECTIFIERS and _is_quantized(reader.outputs[0]))
        for reader in value.consumers()
    )


def _hide(graph: ir.Graph, value: ir.Value) -> None:
    producer, uses = value.producer(), list(value.uses())
    assert producer is not None
    same = ir.node("LeakyRelu", [value], {"alpha": 1.0}, name=f"{value.name}_in_float")
    made = same.outputs[0]
    made.name, made.shape, made.type = f"{value.name}_as_it_is", value.shape, value.type
    graph.insert_after(producer, same)
    for use in uses:
        use.node.replace_input_with(use.idx, made)
