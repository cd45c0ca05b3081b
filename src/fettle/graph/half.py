"""Compute in half precision: the FP16 that GPUs and TensorRT run.

What it does: turns float32 tensors and arithmetic into float16, with casts at the model's inputs
and outputs, which stay float32. Nodes with constants that float16 can't hold stay in float32, as do
operators that have no half-precision form, those that `keep` names, the bodies of loops and
branches, and, with data, every node whose inputs or outputs come near the end of the range (65,504)
on calibration examples; the log says which.

When to use it: for engines with half-precision arithmetic: GPUs, and TensorRT, which since version
11 takes its precision from the graph alone. On a CPU use `graph.float16`, which halves the file and
computes in float32, or `openvino(precision='bf16')`; CPU engines run this form through casts.

Expected effect: half the size. Speed belongs to engines with such arithmetic, on none of which it
was measured yet.

Paper: Micikevicius et al., "Mixed Precision Training", ICLR 2018 (arXiv:1710.03740).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass, ShapeInferencePass

from fettle.core.errors import ModelError
from fettle.core.knobs import Range, Text
from fettle.graph._execute import Probe, calibration
from fettle.graph._halving import SINGLE_ONLY, halve
from fettle.graph._opset import raised
from fettle.graph._pass import GraphPass

if TYPE_CHECKING:
    from fettle.tasks import Task

LARGEST = 65_504.0
_MARGIN = 4.0  # unseen data may reach further than calibration examples do


@dataclass(frozen=True, kw_only=True)
class Half(GraphPass):
    """Half-precision arithmetic, with single-precision inputs and outputs."""

    keep: Annotated[
        str, Text("names of operator types"), "stay in float32, as in 'Softmax,LayerNormalization'"
    ] = ""
    samples: Annotated[
        int, Range(0, 4096, "examples"), "to look for large values with; 0: trust the range"
    ] = 16

    def requires(self, model: ir.Model) -> None:
        """Refuse a model without float32 constants, and one that is quantized."""
        operators = {node.op_type for node in model.graph}
        if any("Quantize" in operator for operator in operators):
            raise ModelError(
                f"`{self.name()}` works on floating-point models, and this one is quantized; give"
                " the model that it was made of"
            )
        constants = [v.const_value for v in model.graph.initializers.values()]
        if not any(c is not None and c.dtype == ir.DataType.FLOAT for c in constants):
            raise ModelError(f"`{self.name()}` found no float32 weights; leave it out")

    def apply(self, model: ir.Model, task: Task | None) -> ir.Model:
        """Return the converted model."""
        model = raised(model, 13)
        LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
        ShapeInferencePass()(model)
        _name_nodes(model.graph)
        far = _holding_large_constants(model.graph)
        if task is not None and self.samples:
            far |= self._reaching_far(model, task)
        if far:
            self.context.progress.say(
                f"stay in float32, near or past {LARGEST:g}: {', '.join(sorted(far))}"
            )
        types = SINGLE_ONLY | {name.strip() for name in self.keep.split(",")}
        halve(model, lambda node: node.name in far or node.op_type in types)
        return model

    def _reaching_far(self, model: ir.Model, task: Task) -> set[str]:
        """Return the nodes that touch a tensor whose values come near half's largest."""
        outputs = {str(v.name): v for node in model.graph for v in node.outputs if _is_float(v)}
        probe = Probe(model, list(outputs))
        far: set[str] = set()
        for found in probe.over(calibration(task, self.samples, 1)):
            far |= {k for k in outputs if np.abs(found[k]).max(initial=0) * _MARGIN > LARGEST}
        touched = [outputs[name] for name in far]
        readers = {str(usage.node.name) for value in touched for usage in value.uses()}
        makers = {str(node.name) for value in touched if (node := value.producer())}
        return readers | makers


def _name_nodes(graph: ir.Graph) -> None:
    taken = {node.name for node in graph}
    for number, node in enumerate(graph):
        if not node.name:
            node.name = f"node_{number}" if f"node_{number}" not in taken else f"half_{number}"


def _holding_large_constants(graph: ir.Graph) -> set[str]:
    found = set()
    for node in graph:
        arrays = [v.const_value.numpy() for v in node.inputs if v is not None and v.const_value]
        if any(a.dtype == np.float32 and not (np.abs(a) <= LARGEST).all() for a in arrays):
            found.add(str(node.name))
    return found


def _is_float(value: ir.Value) -> bool:
    return value.dtype == ir.DataType.FLOAT
