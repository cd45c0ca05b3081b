"""Static int8 quantization of an ONNX file, for models that come without their torch source.

What it does: brings the file into normal form (recent operator set, batch norms folded), runs it
on the calibration split to learn the range of each activation, and writes the symmetric int8
master: activations int8 per tensor with zero point 0, weights int8 per output channel, biases in
float. The same file runs as INT8 on OpenVINO and TensorRT, and on onnxruntime after its lowering.
Placement follows `_placement`: convolutions, linear layers, and what lies between convolutions;
the residual sums and layer norms of transformers, LSTM, GRU and the branches of If and Loop stay
in float. Memory doesn't grow with the number of calibration examples.

When to use it: on a float32 ONNX file. With the torch source, `quantize.static` makes the same
master. `activations="asymmetric"` writes uint8 with a zero point, which TensorRT refuses: for
lopsided inputs (a keyword spotter's, from −123 to 25: outputs are 2.7 % off instead of 5.7 %) and
for activations with a short negative tail, as hard-swish and SiLU leave (random weights: lcnet_050
0.19 instead of 0.27 of the mean output, mobileone_s0 0.026 instead of 0.066). Where it must run on
TensorRT, `leave` the first layer of a lopsided input (2.2 % off). `weight_bits=7` is for processors
without VNNI, where sums of 8-bit products saturate. `attention="int8"` moved no more on a
BERT-shaped encoder of random weights; OpenVINO ran it 1.2 × as fast, onnxruntime no faster. Where
the accuracy drops too far: `correct="fast"` first, then "full" and `rounding="adaptive"`, which
take a run of the model for each step of depth; they mend what weights lose, not what activations
do, and gain little where a range is the trouble. `leave` names layers that lose too much or gain
nothing.

Expected effect: a quarter of the size, 2–4 × the speed with VNNI, 0–1 point lost.

Papers: Jacob et al. 2018 (arXiv 1712.05877); Nagel et al. 2021 (arXiv 2106.08295).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated

import onnx_ir as ir
from onnx_ir.passes import common

from fettle.core.arrays import Arrays
from fettle.core.errors import InputError, ModelError, nearest
from fettle.core.knobs import Choice, Range, Text
from fettle.core.spread import watched
from fettle.graph._adaround import round_adaptively
from fettle.graph._bias_correction import correct_biases
from fettle.graph._calibration import histograms
from fettle.graph._calibrators import clipping, interval
from fettle.graph._constants import keep_names_apart
from fettle.graph._execute import calibration
from fettle.graph._histogram import Histogram
from fettle.graph._insertion import Grid, insert
from fettle.graph._pass import GraphPass
from fettle.graph._placement import Placement, place
from fettle.graph._prepare import prepared
from fettle.graph._soundness import refuse_unsound
from fettle.graph._variants import Variants, merged

if TYPE_CHECKING:
    from fettle.tasks import Task

_QUANTIZED = {
    *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv"),
    *("QLinearMatMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeMatMul", "MatMulNBits"),
    *("DynamicQuantizeLSTM", "QGemm", "FakeQuantize"),
}


@dataclass(frozen=True, kw_only=True)
class StaticInt8(GraphPass):
    """ONNX in, the symmetric int8 master out."""

    calibrator: Annotated[
        str,
        Choice("mse", "minmax", "percentile", "entropy"),
        "range of an activation: least squared error, extremes, 99.99 % of the values, or least"
        " loss of information",
    ] = "mse"
    samples: Annotated[int, Range(1, 100_000, "examples"), "calibration examples, at most"] = 256
    batch_size: Annotated[int, Range(1, 4096, "examples"), "examples a calibration batch"] = 8
    activations: Annotated[
        str,
        Choice("symmetric", "asymmetric"),
        "int8 with zero point 0 for every engine, or uint8 (not for TensorRT)",
    ] = "symmetric"
    weight_bits: Annotated[int, Choice(8, 7), "7 for processors whose u8·s8 sums saturate"] = 8
    attention: Annotated[
        str, Choice("float", "int8"), "products of two activations, as in attention"
    ] = "float"
    correct: Annotated[
        str,
        Choice("none", "fast", "full"),
        "bias correction: none, from the float model's means, or layer after layer",
    ] = "none"
    rounding: Annotated[
        str, Choice("nearest", "adaptive"), "of weights: to nearest, or learned (AdaRound)"
    ] = "nearest"
    leave: Annotated[
        str, Text("names of nodes, with commas and `*`"), "nodes that stay in floating point"
    ] = ""

    def requires(self, model: ir.Model) -> None:
        """Refuse a model that is quantized already."""
        found = sorted({node.op_type for node in model.graph.all_nodes()} & _QUANTIZED)
        if found:
            raise ModelError(
                f"`{self.name()}` takes a float model, and this one holds {', '.join(found)}:"
                " it is quantized already; give the float original"
            )

    def apply(self, model: ir.Model, task: Task | None) -> ir.Model:
        """Return the quantized model.

        Raises:
            ModelError: there is nothing to quantize, or a name in `leave` that no node has.
            DataError: the calibration data doesn't fit the model.
            InputError: no task was given.
        """
        if task is None:
            raise InputError(
                f"`{self.name()}` calibrates on real inputs: give a task (`--data`) whose"
                " calibration split has what the model takes"
            )
        model = prepared(model)
        left = _Left(self.leave, model.graph)
        placement = place(model.graph, left, self.attention == "int8")
        if not placement.layers:
            raise ModelError(
                f"`{self.name()}` found nothing to quantize: no convolution or linear layer with"
                " a constant float32 weight (a float16 or float64 model must be exported in"
                " float32); leave it out of the recipe"
            )
        original = model.clone() if self._refines else None
        insert(model.graph, placement, self._grids(model, placement, task), self.weight_bits)
        common.RemoveUnusedNodesPass()(model)
        keep_names_apart(model)
        if original is not None:
            self._refine(model, original, self._batches(task))
        return model

    def variants(self, model: ir.Model, task: Task) -> Variants:
        """Calibrate once, and return what makes masters with any layers left in float.

        Biases are not corrected nor weights rounded adaptively in them; `leave` has no effect.

        Raises:
            ModelError: as `apply`.
            DataError: as `apply`.
        """
        refuse_unsound(model, self.name())
        self.requires(model)
        model = prepared(model)
        placement = place(model.graph, lambda _: False, self.attention == "int8")
        seen = self._seen(model, dict.fromkeys(str(value.name) for value in placement.edges), task)
        return Variants(model, seen, self._grid, self.attention == "int8", self.weight_bits)

    @property
    def _refines(self) -> bool:
        return self.correct != "none" or self.rounding != "nearest"

    def _refine(
        self, model: ir.Model, original: ir.Model, batches: Callable[[], Iterator[Arrays]]
    ) -> None:
        """Round the weights anew, then correct the biases for the weights that are left."""
        if self.rounding == "adaptive":
            round_adaptively(model, original, batches, self.context.seed)
        if self.correct != "none":
            correct_biases(model, original, batches, self.correct)

    def _grids(self, model: ir.Model, placement: Placement, task: Task) -> dict[ir.Value, Grid]:
        observed = placement.observed()
        names = [str(value.name) for values in observed.values() for value in values]
        found = self._seen(model, names, task)
        return {root: self._grid(merged(found, values)) for root, values in observed.items()}

    def _seen(self, model: ir.Model, names: Iterable[str], task: Task) -> dict[str, Histogram]:
        """Return what the calibration data makes of the named tensors."""
        total = min(self.samples, task.size("calibrate"))
        with self.context.progress.bar("calibrate", total) as bar:
            batches = watched(self._batches(task)(), self.context.progress)
            return histograms(model, names, batches, self.calibrator != "minmax", bar)

    def _batches(self, task: Task) -> Callable[[], Iterator[Arrays]]:
        return lambda: calibration(task, self.samples, self.batch_size)

    def _grid(self, seen: Histogram) -> Grid:
        if self.activations == "asymmetric":
            return Grid.asymmetric(*interval(seen, self.calibrator))
        return Grid.symmetric(clipping(seen, self.calibrator))


class _Left:
    """Says whether a node's name matches one of the patterns of `leave`."""

    def __init__(self, patterns: str, graph: ir.Graph) -> None:
        self.patterns = [part.strip() for part in patterns.split(",") if part.strip()]
        names = [str(node.name) for node in graph]
        for pattern in self.patterns:
            if not any(fnmatchcase(name, pattern) for name in names):
                near = nearest(pattern, names) or names[:3]
                raise ModelError(
                    f"`leave` names `{pattern}`, and the model has no such node;"
                    f" the nearest are {', '.join(near)}"
                )

    def __call__(self, node: ir.Node) -> bool:
        return any(fnmatchcase(str(node.name), pattern) for pattern in self.patterns)
