"""Computing ahead what a graph makes of constants alone, such as the gates of an LSTM, reordered.

An exporter may leave weights as they were in the framework, behind Slice, Concat, Transpose and
Reshape. A rewrite of weights needs them as they come out of those.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from fettle.graph._constants import add_constant

# Only what moves numbers or casts them: arithmetic on weights may be someone's own quantization.
_MOVES = {
    *("Transpose", "Reshape", "Slice", "Concat", "Split", "Squeeze", "Unsqueeze", "Flatten"),
    *("Identity", "Constant", "Gather", "Shape", "Cast", "Expand", "Pad"),
}


def fold_weights(model: ir.Model, wanted: Iterable[ir.Value]) -> None:
    """Make initializers of those of `wanted` that are computed from constants alone."""
    cones = {value: _cone(value) for value in dict.fromkeys(wanted) if value.producer()}
    known = [value for value, cone in cones.items() if cone is not None]
    if not known:
        return
    nodes = dict.fromkeys(node for value in known for node in cones[value] or ())
    arrays = _evaluate(known, list(nodes), model.opset_imports)
    for value, array in zip(known, arrays, strict=True):
        constant = add_constant(model.graph, fresh(model.graph, f"{value.name}_folded"), array)
        value.replace_all_uses_with(constant)
    for node in reversed(nodes):
        if not any(out.uses() or out.is_graph_output() for out in node.outputs):
            assert node.graph is not None
            node.graph.remove(node, safe=True)
    drop_unused(model)


def fresh(graph: ir.Graph, name: str) -> str:
    """Return `name`, or one like it that no constant of the graph has."""
    while name in graph.initializers:
        name += "_"
    return name


def drop_unused(model: ir.Model) -> None:
    """Remove the initializers that nothing reads any more."""
    for graph in (model.graph, *model.graph.subgraphs()):
        for name, value in list(graph.initializers.items()):
            if not value.uses() and not value.is_graph_output():
                del graph.initializers[name]


def _cone(value: ir.Value) -> list[ir.Node] | None:
    """Return the nodes that `value` comes from, in order, or None if not from constants alone."""
    done: dict[ir.Node, None] = {}
    return list(done) if _visit(value, done) else None


def _visit(value: ir.Value, done: dict[ir.Node, None]) -> bool:
    node = value.producer()
    if value.const_value is not None and node is None:
        return True
    if node is None or node.domain not in ("", "ai.onnx") or node.op_type not in _MOVES:
        return False
    if node not in done:
        if not all(_visit(given, done) for given in node.inputs if given is not None):
            return False
        done[node] = None
    return True


def _evaluate(
    values: Sequence[ir.Value], nodes: Sequence[ir.Node], opsets: dict[str, int]
) -> list[np.ndarray]:
    copies: dict[ir.Value, ir.Value] = {}
    constants = [v for node in nodes for v in node.inputs if v is not None and not v.producer()]
    for value in dict.fromkeys(constants):
        assert value.const_value is not None
        name, array = f"c{len(copies)}", value.const_value.numpy()
        copies[value] = ir.Value(name=name, const_value=ir.tensor(array, name=name))
    for node in nodes:  # branches may use the same names, so the copies get names of their own
        for value in node.outputs:
            copies[value] = ir.Value(name=f"v{len(copies)}")
    made = [_copied(node, copies) for node in nodes]
    held = [copies[value] for value in dict.fromkeys(constants)]
    graph = ir.Graph(
        [], [copies[v] for v in values], nodes=made, initializers=held, opset_imports=opsets
    )
    content = ir.to_proto(ir.Model(graph, ir_version=10)).SerializeToString()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return list(session.run(None, {}))


def _copied(node: ir.Node, copies: dict[ir.Value, ir.Value]) -> ir.Node:
    inputs = [copies[value] if value is not None else None for value in node.inputs]
    outputs = [copies[value] for value in node.outputs]
    return ir.Node(
        node.domain, node.op_type, inputs, node.attributes.values(), outputs=outputs, name=node.name
    )
