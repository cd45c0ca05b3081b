"""Keep weights in half precision and compute in f32.

What it does: stores float32 constants as float16, with a Cast behind each, which engines compute
once, when they load the model. Inputs, outputs and arithmetic stay float32, for that is what a CPU
has kernels for. A constant that holds a number past ±65,504, or that would lose more than one part
in a thousand of its length (numbers below 6e-8 vanish), stays in float32, and the log says which.

When to use it: half the size on disk and to download, at no cost in accuracy or time. For speed in
half precision use an engine that has it: `openvino(precision='bf16')` runs any float model so on a
processor with bf16 arithmetic. There is no bfloat16 file form here: onnxruntime's CPU kernels don't
take it, and a processor that computes in bf16 makes it from f32 by itself.

Expected effect: 50 % of the size, drop below 0.1 points, the speed of FP32 on a CPU
(`benchmarks/results`).

Paper: Micikevicius et al., "Mixed Precision Training", ICLR 2018 (arXiv:1710.03740), for the range
and the rounding of float16.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass
from onnx_ir.traversal import RecursiveGraphIterator

from fettle.core.errors import ModelError
from fettle.graph._constants import add_constant
from fettle.graph._opset import raised
from fettle.graph._pass import GraphPass
from fettle.graph._weight_fold import drop_unused, fresh
from fettle.graph._weight_slots import SMALLEST

if TYPE_CHECKING:
    from fettle.tasks import Task

MOST_LOSS = 1e-3  # |w − float16(w)| / |w|, both Euclidean; rounding alone gives about 2e-4


@dataclass(frozen=True, kw_only=True)
class Float16(GraphPass):
    """Half-precision storage, single-precision arithmetic."""

    def apply(self, model: ir.Model, task: Task | None) -> ir.Model:
        """Rewrite every constant that is large enough to pay and that float16 can hold.

        Raises:
            ModelError: there is none.
        """
        del task
        model = raised(model, 13)
        LiftConstantsToInitializersPass(size_limit=SMALLEST)(model)
        constants = _constants(model)
        kept = [value for value in constants if _loses(_array(value))]
        for value in kept:
            self.context.progress.say(f"`{value.name}` stays in float32: float16 can't hold it")
        fitting = [value for value in constants if value not in kept]
        if not fitting:
            raise ModelError(
                f"`{self.name()}` found no float32 weights that float16 can hold; leave it out"
            )
        for value in fitting:
            _store(model, value)
        drop_unused(model)
        return model


def _constants(model: ir.Model) -> list[ir.Value]:
    """Return the large float32 constants in the order of their first use, subgraphs included."""
    found: dict[ir.Value, None] = {}
    for node in RecursiveGraphIterator(model.graph):
        for value in node.inputs:
            if value is not None and _is_large(value):
                found[value] = None
    return list(found)


def _is_large(value: ir.Value) -> bool:
    tensor = value.const_value
    if tensor is None or value.is_graph_output() or not value.uses():
        return False
    codes = any("Linear" in usage.node.op_type for usage in value.uses())  # a quantizer's scales
    return tensor.dtype == ir.DataType.FLOAT and tensor.size >= SMALLEST and not codes


def _loses(array: np.ndarray) -> bool:
    """Say whether float16 overflows on these numbers, or is too coarse for them."""
    with np.errstate(over="ignore"):
        half = array.astype(np.float16).astype(np.float64)
    if not np.isfinite(half).all():
        return True
    return bool(np.linalg.norm(half - array) > MOST_LOSS * np.linalg.norm(array.astype(np.float64)))


def _array(value: ir.Value) -> np.ndarray:
    assert value.const_value is not None
    return value.const_value.numpy()


def _store(model: ir.Model, value: ir.Value) -> None:
    """Put a float16 constant and one Cast for each graph in the place of `value`."""
    name = str(value.name)
    half = add_constant(
        model.graph, fresh(model.graph, f"{name}_half"), _array(value).astype(np.float16)
    )
    made: dict[int, ir.Value] = {}
    order = {id(node): i for i, node in enumerate(RecursiveGraphIterator(model.graph))}
    for usage in sorted(value.uses(), key=lambda usage: order[id(usage.node)]):
        graph = usage.node.graph
        assert graph is not None
        if id(graph) not in made:
            suffix = f"_{len(made)}" if made else ""
            cast = ir.node("Cast", [half], {"to": ir.DataType.FLOAT}, name=f"{name}_cast{suffix}")
            cast.outputs[0].name = f"{name}_single{suffix}"
            cast.outputs[0].dtype, cast.outputs[0].shape = ir.DataType.FLOAT, value.shape
            graph.insert_before(usage.node, cast)
            made[id(graph)] = cast.outputs[0]
        usage.node.replace_input_with(usage.idx, made[id(graph)])
