"""Hard-sigmoid and hard-swish that were written out, as the operators that engines know.

clip(x + b, 0, c) / c                  hard-sigmoid with alpha 1/c and beta b/c
x · clip(x + b, 0, c) / c              the same, times x, in either order
x · hard-sigmoid(x; 1/6, 1/2)          hard-swish
"""

from __future__ import annotations

from math import isclose

import onnx_ir as ir

from fettle.graph._constants import set_type
from fettle.graph._quantized import constant_of

_HARD_SWISH_OPSET = 14


def recognise_hard_functions(graph: ir.Graph, opset: int) -> int:
    """Rewrite every such function of `graph`; return how many hard-sigmoids were found."""
    count = sum(_recognise_sigmoid(graph, node) for node in list(graph))
    if opset >= _HARD_SWISH_OPSET:
        for node in list(graph):
            _recognise_swish(graph, node)
    return count


def _recognise_sigmoid(graph: ir.Graph, node: ir.Node) -> bool:
    top, scaled = _divided(node)
    if top is None or scaled is None:
        return False
    x, shift = _clipped(scaled, top)
    if x is not None and shift is not None:
        _replace(graph, node, _sigmoid(graph, node, x, (top, shift)))
        return True
    return _recognise_divided_product(graph, node, scaled, top)


def _recognise_divided_product(
    graph: ir.Graph, node: ir.Node, product: ir.Value, top: float
) -> bool:
    """Rewrite (x · clip(x + b, 0, c)) / c."""
    maker = product.producer()
    if maker is None or maker.op_type != "Mul" or not _read_once(product):
        return False
    for gate, other in (maker.inputs, maker.inputs[::-1]):
        x, shift = _clipped(gate, top)
        if x is not None and shift is not None and other is not None:
            sigmoid = _sigmoid(graph, node, x, (top, shift))
            _replace(graph, node, _made(graph, node, "Mul", [other, sigmoid]))
            return True
    return False


def _divided(node: ir.Node) -> tuple[float | None, ir.Value | None]:
    """Return the number that a node divides by, and what it divides."""
    if node.domain or node.op_type not in {"Div", "Mul"} or len(node.inputs) != 2:
        return None, None
    for index in (1, 0) if node.op_type == "Mul" else (1,):
        number = _number(node.inputs[index])
        if number is not None and number > 0:
            return (1 / number if node.op_type == "Mul" else number), node.inputs[1 - index]
    return None, None


def _clipped(value: ir.Value | None, top: float) -> tuple[ir.Value | None, float | None]:
    """Return x and b where a value is clip(x + b, 0, top), read by one node alone."""
    clip = value.producer() if value is not None else None
    if value is None or clip is None or clip.op_type != "Clip" or not _read_once(value):
        return None, None
    low, high = (_number(v) for v in (*clip.inputs[1:3], None, None)[:2])
    if low != 0 or high is None or not isclose(high, top, rel_tol=1e-5):
        return None, None
    moved = clip.inputs[0]
    add = moved.producer() if moved is not None else None
    if add is None or add.op_type != "Add" or moved is None or not _read_once(moved):
        return None, None
    for index in (1, 0):
        shift = _number(add.inputs[index])
        if shift is not None:
            return add.inputs[1 - index], shift
    return None, None


def _recognise_swish(graph: ir.Graph, node: ir.Node) -> None:
    if node.domain or node.op_type != "Mul":
        return
    for gate, x in (node.inputs, node.inputs[::-1]):
        maker = gate.producer() if gate is not None else None
        hard = maker is not None and maker.op_type == "HardSigmoid" and maker.inputs[0] is x
        if hard and maker is not None and x is not None and _is_standard(maker):
            _replace(graph, node, _made(graph, node, "HardSwish", [x]))
            return


def _is_standard(sigmoid: ir.Node) -> bool:
    alpha, beta = (
        sigmoid.attributes[name].as_float() if name in sigmoid.attributes else usual
        for name, usual in (("alpha", 0.2), ("beta", 0.5))
    )
    return isclose(alpha, 1 / 6, rel_tol=1e-4) and isclose(beta, 0.5, rel_tol=1e-6)


def _number(value: ir.Value | None) -> float | None:
    array = constant_of(value)
    single = array is not None and array.size == 1 and array.dtype == "float32" and array.ndim < 2
    return float(array.reshape(())) if array is not None and single else None


def _read_once(value: ir.Value) -> bool:
    return len(value.uses()) == 1 and not value.is_graph_output()


def _sigmoid(graph: ir.Graph, node: ir.Node, x: ir.Value, numbers: tuple[float, float]) -> ir.Value:
    top, shift = numbers
    return _made(graph, node, "HardSigmoid", [x], {"alpha": 1 / top, "beta": shift / top})


def _made(
    graph: ir.Graph,
    before: ir.Node,
    op: str,
    inputs: list[ir.Value],
    attributes: dict[str, float] | None = None,
) -> ir.Value:
    """Insert a node and return its output, which has the shape of what `before` makes."""
    name = f"{before.outputs[0].name}_{op.lower()}"
    node = ir.node(op, inputs, attributes or {}, name=name)
    made, old = node.outputs[0], before.outputs[0]
    made.name, made.shape = name, old.shape
    set_type(made, old)
    graph.insert_before(before, node)
    return made


def _replace(graph: ir.Graph, node: ir.Node, value: ir.Value) -> None:
    name = node.outputs[0].name
    node.outputs[0].replace_all_uses_with(value, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    value.name = name
