"""onnxruntime's operators that quantize their input on each run, which OpenVINO reads too."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from fettle.graph._affine import by_channel
from fettle.graph._constants import add_constant
from fettle.graph._opset import MICROSOFT
from fettle.graph._quantized import constant_of
from fettle.graph._weight_coding import put_instead, store_int8
from fettle.graph._weight_fold import drop_unused, fresh
from fettle.graph._weight_slots import Weight, flag


def make_dynamic(model: ir.Model, weights: Sequence[Weight]) -> None:
    """Let integer operators take `weights`; where there are none, keep int8 for the file alone."""
    readers = dict.fromkeys(slot.node for weight in weights for slot in weight.slots)
    own = {weight.value for weight in weights}
    coder = _Coder(model)
    for node in readers:
        if node.op_type in ("MatMul", "Gemm") and _is_plain_product(node, own):
            _multiply(node, coder)
        elif node.op_type == "LSTM" and _is_plain_lstm(node, own):
            _recur(node, coder)
    for weight in weights:
        left = tuple(s for s in weight.slots if weight.value in s.node.inputs and s.node.graph)
        if left:
            store_int8(model, Weight(weight.value, left))
    if coder.used:
        model.opset_imports.setdefault(MICROSOFT, 1)
    _share_tables(model.graph)
    drop_unused(model)


def _share_tables(graph: ir.Graph) -> None:
    """Let a product read a table that is looked up too, transposed, and not a copy of it.

    A scale for each row is one for each output channel, so the codes are the same. Engines
    transpose constants when they load.
    """
    tables = dict.fromkeys(node.inputs[0] for node in graph if node.op_type == "Gather")
    for node in [node for node in graph if node.op_type == "DynamicQuantizeMatMul"]:
        codes = constant_of(node.inputs[1])
        twin = next((table for table in tables if _is_transposed(constant_of(table), codes)), None)
        if twin is None:
            continue
        turned = ir.node("Transpose", [twin], {"perm": [1, 0]}, name=f"{node.name}_table")
        turned.outputs[0].name = f"{node.name}_table_out"
        turned.outputs[0].dtype = ir.DataType.INT8
        graph.insert_before(node, turned)
        node.replace_input_with(1, turned.outputs[0])


def _is_transposed(table: np.ndarray | None, codes: np.ndarray | None) -> bool:
    if table is None or codes is None or table.dtype != codes.dtype:
        return False
    return table.shape == codes.shape[::-1] and np.array_equal(table.T, codes)


class _Coder:
    """Adds the codes and scales of weights to a graph, each once."""

    def __init__(self, model: ir.Model) -> None:
        self.graph, self._held = model.graph, dict[tuple[ir.Value, bool], list[ir.Value]]()

    @property
    def used(self) -> bool:
        """Whether there was anything to add."""
        return bool(self._held)

    def product(self, value: ir.Value, transposed: bool) -> list[ir.Value]:
        """Return codes (K, N) and scales (N,)."""
        if (value, transposed) not in self._held:
            array = _array(value)
            codes, scales = by_channel(array.T if transposed else array, 1)
            self._held[value, transposed] = self._add(value, codes, scales)
        return self._held[value, transposed]

    def gates(self, value: ir.Value) -> list[ir.Value]:
        """Return codes (directions, inputs, gates), scales and zero points (directions, gates)."""
        if (value, True) not in self._held:
            each = [by_channel(direction, 0) for direction in _array(value)]
            codes = np.stack([codes.T for codes, _ in each])
            scales = np.stack([scales for _, scales in each])
            held = self._add(value, codes, scales)
            zero = fresh(self.graph, f"{value.name}_zero_point")
            held.append(add_constant(self.graph, zero, np.zeros(scales.shape, np.int8)))
            self._held[value, True] = held
        return self._held[value, True]

    def _add(self, value: ir.Value, codes: np.ndarray, scales: np.ndarray) -> list[ir.Value]:
        parts = {"quantized": np.ascontiguousarray(codes), "scale": scales}
        return [
            add_constant(self.graph, fresh(self.graph, f"{value.name}_{part}"), array)
            for part, array in parts.items()
        ]

    def bias(self, name: str, array: np.ndarray) -> ir.Value:
        """Return a float32 constant."""
        return add_constant(self.graph, fresh(self.graph, name), array)


def _is_plain_product(node: ir.Node, own: set[ir.Value]) -> bool:
    """Say whether this is a product of floats with one matrix from the right."""
    left, right = node.inputs[0], node.inputs[1]
    if right not in own or left is None or left in own or _array(right).ndim != 2:
        return False
    if node.op_type == "Gemm":
        alpha = node.attributes["alpha"].as_float() if "alpha" in node.attributes else 1.0
        return alpha == 1.0 and not flag(node, "transA")
    return left.shape is None or len(left.shape) > 1


def _multiply(node: ir.Node, coder: _Coder) -> None:
    left, right = node.inputs[0], node.inputs[1]
    codes, scales = coder.product(_given(right), bool(flag(node, "transB")))
    last, bias = _bias_of(node, _array(scales).size)
    inputs: list[ir.Value | None] = [left, codes, scales]
    if bias is not None:
        inputs += [None, coder.bias(f"{last.outputs[0].name}_bias", bias)]
    name = node.name or node.outputs[0].name
    made = [ir.node("DynamicQuantizeMatMul", inputs, domain=MICROSOFT, name=f"{name}_dynamic")]
    rest = node.inputs[2] if node.op_type == "Gemm" and len(node.inputs) > 2 else None
    if rest is not None and bias is None:
        made[0].outputs[0].name, made[0].outputs[0].dtype = f"{name}_product", ir.DataType.FLOAT
        made += _added(made[0].outputs[0], node, rest, coder)
    put_instead(last, made)
    if last is not node:
        assert node.graph is not None
        node.graph.remove(node, safe=True)


def _bias_of(node: ir.Node, width: int) -> tuple[ir.Node, np.ndarray | None]:
    """Return the node whose output is the product plus a constant row, and that row, if any."""
    if node.op_type == "Gemm":
        beta = node.attributes["beta"].as_float() if "beta" in node.attributes else 1.0
        row = _row(node.inputs[2] if len(node.inputs) > 2 else None, width)
        return node, None if row is None else row * np.float32(beta)
    users = list(node.outputs[0].uses())
    if len(users) != 1 or node.outputs[0].is_graph_output():
        return node, None
    add = users[0].node
    if add.op_type != "Add" or add.graph is not node.graph:
        return node, None
    row = _row(add.inputs[1 - users[0].idx], width)
    return (node, None) if row is None else (add, row)


def _row(value: ir.Value | None, width: int) -> np.ndarray | None:
    """Return the constant behind `value` if it is one number for each output channel."""
    array = constant_of(value)
    if array is None or array.dtype != np.float32 or array.shape != (width,):
        return None
    return array


def _added(product: ir.Value, gemm: ir.Node, rest: ir.Value, coder: _Coder) -> list[ir.Node]:
    """Return the nodes that add beta · C where it is no constant row."""
    beta = gemm.attributes["beta"].as_float() if "beta" in gemm.attributes else 1.0
    nodes = []
    if beta != 1.0:
        factor = coder.bias(f"{gemm.outputs[0].name}_beta", np.array(beta, np.float32))
        nodes.append(ir.node("Mul", [rest, factor], name=f"{product.name}_scaled"))
        rest = nodes[0].outputs[0]
        rest.name = f"{product.name}_scaled_out"
    return [*nodes, ir.node("Add", [product, rest], name=f"{product.name}_plus")]


def _is_plain_lstm(node: ir.Node, own: set[ir.Value]) -> bool:
    return all(node.inputs[i] in own for i in (1, 2)) and not flag(node, "layout")


def _recur(node: ir.Node, coder: _Coder) -> None:
    """Put a DynamicQuantizeLSTM in the place of an LSTM."""
    w, w_scale, w_zero = coder.gates(_given(node.inputs[1]))
    r, r_scale, r_zero = coder.gates(_given(node.inputs[2]))
    others = [*node.inputs[3:], *[None] * (8 - len(node.inputs))]
    inputs = [node.inputs[0], w, r, *others, w_scale, w_zero, r_scale, r_zero]
    attributes = [a for name, a in node.attributes.items() if name != "layout"]
    made = ir.Node(
        MICROSOFT, "DynamicQuantizeLSTM", inputs, attributes, num_outputs=len(node.outputs),
        name=f"{node.name or node.outputs[0].name}_dynamic",
    )  # fmt: skip
    put_instead(node, [made])


def _given(value: ir.Value | None) -> ir.Value:
    assert value is not None
    return value


def _array(value: ir.Value | None) -> np.ndarray:
    array = constant_of(value)
    assert array is not None
    return array
