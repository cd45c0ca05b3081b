"""A trial: one recipe's artifact on one runtime, and everything that is found out about it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from fettle.core.recipe import Recipe
from fettle.runtimes import Runtime, Session
from fettle.search._store import Stage

if TYPE_CHECKING:
    from torch import nn


@dataclass
class Trial:
    """One recipe on one runtime.

    `key` identifies the artifact by content; `row` collects what is measured, `proof` what the
    test split says of the two trials that meet it.
    """

    name: str
    recipe: Recipe
    runtime: Runtime
    key: str
    model: Path | nn.Module
    precision: str
    stages: tuple[Stage, ...] = ()
    lowering: tuple[str, ...] = ()
    session: Session | None = None
    refused: str | None = None
    row: dict[str, Any] = field(default_factory=dict)
    proof: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """A name that no other trial of the study has."""
        return f"{self.key} @ {self.runtime}"

    @property
    def is_plain(self) -> bool:
        """Whether the model was left alone."""
        return not self.recipe.steps

    @property
    def is_fp32(self) -> bool:
        """Whether this is the untouched model, computed in f32: a denominator."""
        return self.is_plain and self.precision in ("f32", "f16")

    @property
    def is_lowered(self) -> bool:
        """Whether an engine may need the graph rewritten to run it fast."""
        return isinstance(self.model, Path) and self.precision in ("int8", "int4")

    @property
    def identity(self) -> list[Any]:
        """What a cached measurement of this trial depends on."""
        return [self.key, self.runtime.name(), self.runtime.values(), list(self.lowering)]


_COMPUTES_IN_INTEGERS = ("Quantize", "Integer", "QLinear", "QGemm", "NBits")
_INT8 = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
_INT4 = (onnx.TensorProto.INT4, onnx.TensorProto.UINT4)
_SMALL = 64  # numbers; a table of so few is no weight


def precision_of(path: Path, runtime: Runtime) -> str:
    """Return what a trial is in, for people and records.

    `int4` or `int8` when weights or operators are, the smallest first; `f16` when most of the
    weights are stored so and `runtime` computes in f32; else what `runtime` computes in.
    """
    graph = onnx.load(path, load_external_data=False).graph
    integers = _integers_in(graph)
    if integers:
        return integers
    halves = runtime.precision == "f32" and _mostly_half(graph)
    return "f16" if halves else runtime.precision


def is_quantized(path: Path) -> bool:
    """Say whether an ONNX file holds quantized operators or weights."""
    return bool(_integers_in(onnx.load(path, load_external_data=False).graph))


def _integers_in(graph: onnx.GraphProto) -> str | None:
    types = {t.data_type for t in _tensors(graph) if math.prod(t.dims) >= _SMALL}
    if types.intersection(_INT4):
        return "int4"
    operators = {node.op_type for node in _nodes(graph)}
    computes = any(mark in op for op in operators for mark in _COMPUTES_IN_INTEGERS)
    return "int8" if computes or types.intersection(_INT8) else None


def _mostly_half(graph: onnx.GraphProto) -> bool:
    sizes: Counter[int] = Counter()
    for tensor in _tensors(graph):
        sizes[tensor.data_type] += math.prod(tensor.dims)
    return sizes[onnx.TensorProto.FLOAT16] > sizes[onnx.TensorProto.FLOAT]


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Yield every node, also those inside the branches of If, Loop and Scan."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            yield from _nodes(attribute.g)


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in _nodes(graph):
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.g.initializer)


def name_of(recipe: Recipe, precision: str) -> str:
    """Return a short name for people, such as `INT8 QAT` or `INT4 weights`."""
    kinds = {
        "distill": "distilled",
        "prune": "pruned",
        "quantize.aware": "INT8 QAT",
        "quantize.static": "INT8 PTQ",
        "graph.static_int8": "INT8 PTQ",
        "graph.dynamic_int8": "INT8 dynamic",
        "graph.weight_only": f"{precision.upper()} weights",
        "graph.float16": "FP16 weights",
        "graph.half": "FP16",
    }
    names = []
    for step in recipe.steps:
        kind = next((v for k, v in kinds.items() if step.name().startswith(k)), step.name())
        names.append(kind)
    if not names:
        return {"f32": "FP32", "bf16": "BF16", "f16": "FP16"}.get(precision, precision)
    text = " + ".join(names)
    return text[0].upper() + text[1:]
