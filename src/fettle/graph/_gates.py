"""Hard-swish, hard-sigmoid and SiLU with operators that onnxruntime has in integers."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from fettle.graph._constants import add_constant, set_type
from fettle.graph._pairs import lowest, node_before, quantized_again, quantized_constant
from fettle.graph._quantized import constant_of, only_quantized
from fettle.graph._weights import stored_weight

_STEPS = 255
_GATES = {"HardSigmoid", "Sigmoid"}


def lower_gates(graph: ir.Graph) -> int:
    """Rewrite every gate of `graph` between quantized tensors; return how many there were."""
    return sum(_lower(graph, node) for node in list(graph))


def _lower(graph: ir.Graph, node: ir.Node) -> bool:
    if node.op_type not in _GATES | {"HardSwish"}:
        return False
    zero = _zero_behind(node.inputs[0])
    if zero is None or node.outputs[0].is_graph_output():
        return False
    if node.op_type == "HardSwish":
        return only_quantized(node.outputs[0]) and _lower_swish(graph, node, zero)
    if not _read_in_integers(node):
        return False
    if node.op_type == "HardSigmoid":
        return _lower_hard_sigmoid(graph, node, zero)
    return _lower_sigmoid(graph, node, zero)


def _zero_behind(value: ir.Value | None) -> np.ndarray | None:
    """Return the zero point of the DequantizeLinear that makes an activation, if one does."""
    node = value.producer() if value is not None else None
    if node is None or node.op_type != "DequantizeLinear" or len(node.inputs) < 3:
        return None
    zero = constant_of(node.inputs[2])
    bytes_ = zero is not None and zero.size == 1 and zero.dtype in (np.int8, np.uint8)
    return zero.reshape(()) if zero is not None and bytes_ else None


def _read_in_integers(gate: ir.Node) -> bool:
    """Say whether quantizers, or products that are quantized, are all that read the gate."""
    readers = [usage.node for usage in gate.outputs[0].uses()]
    return bool(readers) and all(
        n.op_type == "QuantizeLinear" or (n.op_type == "Mul" and _framed(n, gate)) for n in readers
    )


def _framed(product: ir.Node, gate: ir.Node) -> bool:
    others = [value for value in product.inputs if value is not gate.outputs[0]]
    held = all(_zero_behind(value) is not None for value in others)
    return held and len(others) == 1 and only_quantized(product.outputs[0])


def _lower_swish(graph: ir.Graph, node: ir.Node, zero: np.ndarray) -> bool:
    source = node.inputs[0]
    assert source is not None
    gate = _hard_gate(graph, node, zero, 1 / 6, 0.5)
    product = node_before(graph, node, "Mul", [source, gate], f"{node.outputs[0].name}_product")
    return _replace(graph, node, product)


def _lower_hard_sigmoid(graph: ir.Graph, node: ir.Node, zero: np.ndarray) -> bool:
    alpha, beta = (
        node.attributes[name].as_float() if name in node.attributes else usual
        for name, usual in (("alpha", 0.2), ("beta", 0.5))
    )
    if alpha <= 0 or beta <= 0:
        return False
    if not _shift_layer(graph, node, zero, (alpha, beta)):
        _replace_quantized(graph, node, _hard_gate(graph, node, zero, alpha, beta))
    return True


def _shift_layer(
    graph: ir.Graph, node: ir.Node, zero: np.ndarray, line: tuple[float, float]
) -> bool:
    """Put the gate's shift into the bias of the convolution that it alone reads, if there is one.

    What saturates then is the convolution's own quantization: nothing is left to compute.
    """
    pair = _pair_before(node)
    layer = pair[0].inputs[0].producer() if pair and pair[0].inputs[0] is not None else None
    if layer is None or layer.op_type != "Conv" or not _reads_alone(pair[0], layer.outputs[0]):
        return False
    weight, alpha, beta = stored_weight(layer), *line
    bias = constant_of(layer.inputs[2]) if len(layer.inputs) > 2 else np.float32(0)
    if weight is None or bias is None:
        return False
    shifted = np.broadcast_to(bias + np.float32(beta / alpha), weight.shape[:1])
    if len(layer.inputs) < 3:
        layer.resize_inputs(3)
    name = f"{node.outputs[0].name}_bias"
    layer.replace_input_with(2, add_constant(graph, name, np.ascontiguousarray(shifted)))
    step = 1 / _STEPS
    gate = quantized_again(graph, layer.outputs[0], node, (step / alpha, step), lowest(zero))
    _replace_quantized(graph, node, gate)
    for dead in reversed(pair):
        graph.remove(dead, safe=True)
    return True


def _pair_before(node: ir.Node) -> list[ir.Node]:
    """Return the quantizer and the dequantizer before a node that alone reads them, or nothing."""
    value, pair = node.inputs[0], list[ir.Node]()
    reader = node
    for op in ("DequantizeLinear", "QuantizeLinear"):
        maker = value.producer() if value is not None else None
        if value is None or maker is None or maker.op_type != op or not _reads_alone(reader, value):
            return []
        pair.insert(0, maker)
        reader, value = maker, maker.inputs[0]
    return pair


def _reads_alone(reader: ir.Node, value: ir.Value) -> bool:
    return [u.node for u in value.uses()] == [reader] and not value.is_graph_output()


def _lower_sigmoid(graph: ir.Graph, node: ir.Node, zero: np.ndarray) -> bool:
    """Only a gate that isn't quantized yet needs a pair of its own."""
    readers = [usage.node for usage in node.outputs[0].uses()]
    products = [reader for reader in readers if reader.op_type == "Mul"]
    if not products:
        return False
    step = 1 / _STEPS
    gate = quantized_again(graph, node.outputs[0], products[0], (step, step), lowest(zero))
    for product in products:
        for index, value in enumerate(product.inputs):
            if value is node.outputs[0]:
                product.replace_input_with(index, gate)
    return True


def _hard_gate(
    graph: ir.Graph, node: ir.Node, zero: np.ndarray, alpha: float, beta: float
) -> ir.Value:
    """Return clip(alpha·x + beta, 0, 1) in steps of 1/255, as an addition that saturates."""
    source, name = node.inputs[0], node.outputs[0].name
    assert source is not None
    shift = quantized_constant(graph, beta / alpha, node, zero, f"{name}_shift")
    moved = node_before(graph, node, "Add", [source, shift], f"{name}_shifted")
    set_type(moved, source)
    moved.shape = source.shape
    step = 1 / _STEPS
    return quantized_again(graph, moved, node, (step / alpha, step), lowest(zero))


def _replace_quantized(graph: ir.Graph, node: ir.Node, gate: ir.Value) -> None:
    """Let everyone read the gate as it is quantized here, not quantized a second time."""
    for usage in list(node.outputs[0].uses()):
        reader = usage.node
        again = [u.node for u in reader.outputs[0].uses()]
        plain = reader.op_type == "QuantizeLinear" and not reader.outputs[0].is_graph_output()
        if plain and again and all(_dequantizes_inside(n) for n in again):
            for dequantize in again:
                dequantize.outputs[0].replace_all_uses_with(gate)
                graph.remove(dequantize, safe=True)
            graph.remove(reader, safe=True)
    _replace(graph, node, gate)


def _replace(graph: ir.Graph, node: ir.Node, value: ir.Value) -> bool:
    set_type(value, node.outputs[0])
    value.shape = node.outputs[0].shape
    node.outputs[0].replace_all_uses_with(value)
    graph.remove(node, safe=True)
    return True


def _dequantizes_inside(node: ir.Node) -> bool:
    return node.op_type == "DequantizeLinear" and not node.outputs[0].is_graph_output()
