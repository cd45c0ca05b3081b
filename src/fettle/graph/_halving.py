"""Turning float32 arithmetic into float16, with casts where the two meet."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from fettle.graph._constants import add_constant
from fettle.graph._weight_fold import drop_unused

# Operators without a half-precision form in the specification or in common engines.
SINGLE_ONLY = frozenset(
    """ArrayFeatureExtractor Binarizer CategoryMapper CumSum DictVectorizer EyeLike
    FeatureVectorizer Imputer LabelEncoder LinearClassifier LinearRegressor Loop If Scan
    NonMaxSuppression Normalizer OneHotEncoder RandomNormal RandomNormalLike RandomUniform
    RandomUniformLike Range Resize RoiAlign SVMClassifier SVMRegressor Scaler TopK
    TreeEnsembleClassifier TreeEnsembleRegressor Upsample ZipMap""".split()  # noqa: SIM905 - a list of forty lines tells no more
)
SINGLE, HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16


def halve(model: ir.Model, stays: Callable[[ir.Node], bool]) -> None:
    """Turn every float32 value of the outer graph into float16, in place.

    Args:
        model: with types inferred and constants as initializers.
        stays: says which nodes stay in float32. Those in other domains, those with bodies of their
            own and those whose outputs have no known type do in any case.
    """
    nodes = list(model.graph)
    halves = [node for node in nodes if not stays(node) and _can(node)]
    for node in halves:
        _retype(node)
    seam = _Seam(model.graph, {id(node) for node in halves})
    for node in halves:
        seam.feed(node)
    for value in [v for node in halves for v in node.outputs if v.dtype == HALF]:
        seam.serve(value)
    drop_unused(model)


def _can(node: ir.Node) -> bool:
    known = all(value.dtype is not None for value in node.outputs if value.name)
    bodies = any(a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
                 for a in node.attributes.values())  # fmt: skip
    return node.domain == "" and known and not bodies


def _retype(node: ir.Node) -> None:
    """Let the node make halves: its float32 outputs, and the attribute that says their type."""
    for value in node.outputs:
        if value.dtype == SINGLE:
            value.type = ir.TensorType(HALF)  # a new one: copies of a model share their types
    if node.op_type == "Cast" and node.attributes["to"].as_int() == SINGLE:
        node.attributes["to"] = ir.AttrInt64("to", HALF)
    if node.op_type == "ConstantOfShape":
        given = node.attributes.get("value")
        filling = given.as_tensor().numpy() if given else np.zeros(1, np.float32)
        if filling.dtype == np.float32:
            tensor = ir.tensor(filling.astype(np.float16))
            node.attributes["value"] = ir.AttrTensor("value", tensor)


class _Seam:
    """Where halves and singles meet: one Cast a value and type, for all who ask."""

    def __init__(self, graph: ir.Graph, halves: set[int]) -> None:
        self.graph, self.halves = graph, halves
        self.casts: dict[tuple[int, ir.DataType], ir.Value] = {}
        self.constants: dict[int, ir.Value] = {}

    def feed(self, node: ir.Node) -> None:
        """Let a half node read halves."""
        for index, value in enumerate(node.inputs):
            if value is None or value.dtype != SINGLE:
                continue
            constant = value.const_value is not None and value.producer() is None
            node.replace_input_with(
                index, self._constant(value) if constant else self._cast(value, HALF)
            )

    def serve(self, value: ir.Value) -> None:
        """Give a float32 copy of a half to the nodes that stay single, and to the graph's user."""
        others = [usage for usage in value.uses() if id(usage.node) not in self.halves]
        if value.is_graph_output():
            self._rename_output(value)
        for usage in others:
            usage.node.replace_input_with(usage.idx, self._cast(value, SINGLE))

    def _constant(self, value: ir.Value) -> ir.Value:
        if id(value) not in self.constants:
            assert value.const_value is not None
            array = value.const_value.numpy().astype(np.float16)
            self.constants[id(value)] = add_constant(self.graph, f"{value.name}_half", array)
        return self.constants[id(value)]

    def _rename_output(self, value: ir.Value) -> None:
        name = value.name
        value.name = f"{name}_half"
        single = self._cast(value, SINGLE)
        single.name, single.shape = name, value.shape
        outputs = self.graph.outputs
        outputs[:] = [single if output is value else output for output in outputs]

    def _cast(self, value: ir.Value, to: ir.DataType) -> ir.Value:
        key = (id(value), to)
        if key not in self.casts:
            name = f"{value.name}_{'to_half' if to == HALF else 'to_single'}"
            node = ir.node("Cast", [value], {"to": to}, name=name)
            made = node.outputs[0]
            made.name, made.dtype, made.shape = name, to, value.shape
            producer = value.producer()
            if producer is None:
                self.graph.insert_before(self.graph[0], node)
            else:
                self.graph.insert_after(producer, node)
            self.casts[key] = made
        return self.casts[key]
