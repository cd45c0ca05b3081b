"""SmoothQuant: outliers of activations move into the weights that read them.

What it does: a few channels behind a layer norm of a large transformer are a hundred times the
others, and one scale for the whole tensor then rounds the others away. Channel j is divided by
s_j = max|X_j|^α / max|W_j|^(1 − α) in the norm's own scale and bias, and the rows of every
MatMul or Gemm that reads it are multiplied by s_j: (X / s) · (s W) = X · W. With α = ½ channel j of
both has the range √(max|X_j| · max|W_j|). It takes a LayerNormalization, a root-mean-square norm,
and either one written out, whose last steps are a Mul and an Add by channel. max|X_j| comes from
calibration.

Where a residual sum reads the norm's output too, as in BERT, that norm stays as it is, unless
`insert` puts a Mul before the layers instead.

When to use it: before `graph.static_int8`, on transformers whose accuracy falls. It changes nothing
for convolutional nets.

Expected effect: the same function up to rounding, at no cost in time (a small one with `insert`);
the error of int8 falls the more, the larger the outliers are.

Paper: Xiao et al. 2023 (arXiv 2211.10438).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np
import onnx_ir as ir

from fettle.core.errors import DataError, InputError, ModelError
from fettle.core.knobs import Choice, Range
from fettle.core.spread import watched
from fettle.graph._channel_readers import readers
from fettle.graph._constants import add_constant
from fettle.graph._execute import Probe, calibration
from fettle.graph._layers import Layer, alone, layer_of, put, row
from fettle.graph._pass import GraphPass
from fettle.graph._prepare import prepared
from fettle.graph._quantized import constant_of
from fettle.graph.fold_batch_norm import attribute_int

if TYPE_CHECKING:
    from fettle.tasks import Task

_NORMS = {"LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"}
_LEAST = 1e-5  # of the largest range: what is smaller is taken for it


@dataclass(frozen=True, kw_only=True)
class Smooth(GraphPass):
    """Move the outliers of activations behind layer norms into weights."""

    alpha: Annotated[
        float, Range(0, 1), "how much of the range moves into the weights: 0 none, 1 all"
    ] = 0.5
    insert: Annotated[
        bool, Choice(False, True), "put a Mul before the layers where a norm has other readers"
    ] = False
    samples: Annotated[int, Range(1, 100_000, "examples"), "calibration examples, at most"] = 64
    batch_size: Annotated[int, Range(1, 4096, "examples"), "examples a calibration batch"] = 8

    def requires(self, model: ir.Model) -> None:
        """Refuse a quantized model."""
        if any(node.op_type == "DequantizeLinear" for node in model.graph):
            raise ModelError(
                f"`{self.name()}` moves ranges into float weights, and this model is quantized"
                " already; put it before the quantization"
            )

    def apply(self, model: ir.Model, task: Task | None) -> ir.Model:
        """Smooth behind every norm; a model without any stays as it is.

        Raises:
            InputError: no task was given.
            DataError: the calibration data doesn't fit the model.
            ModelError: a tensor becomes NaN or infinite on the calibration data.
        """
        model = prepared(model)
        seams = list(_seams(model.graph, self.insert))
        if seams and task is None:
            raise InputError(
                f"`{self.name()}` measures activations: give a task (`--data`) whose calibration"
                " split has what the model takes"
            )
        if seams and task is not None:
            for seam, largest in zip(seams, self._largest(model, seams, task), strict=True):
                seam.scale(model.graph, _factors(largest, seam.weight_ranges(), self.alpha))
        self.context.progress.say(f"{self.name()}: smoothed {len(seams)} tensors")
        return model

    def _largest(self, model: ir.Model, seams: list[_Seam], task: Task) -> list[np.ndarray]:
        """Return the largest magnitude of each channel of each seam over the calibration data."""
        names = [str(seam.tensor.name) for seam in seams]
        found: list[np.ndarray] = []
        batches = watched(calibration(task, self.samples, self.batch_size), self.context.progress)
        for values in Probe(model, names).over(batches):
            peaks = [np.abs(values[n]).reshape(-1, values[n].shape[-1]).max(0) for n in names]
            found = [np.maximum(*both) for both in zip(found or peaks, peaks, strict=True)]
        if not found:
            raise DataError(
                f"`{self.name()}` got no calibration batch of the size that the model takes; give"
                " the calibration split more examples"
            )
        for name, peak in zip(names, found, strict=True):
            if not np.isfinite(peak).all():
                raise ModelError(
                    f"the tensor `{name}` becomes NaN or infinite on the calibration data, so it"
                    " has no range; mend the model, or leave out the examples that cause it"
                )
        return found


@dataclass
class _Seam:
    """A tensor whose channels can be divided by a factor that its readers' weights multiply with.

    Attributes:
        tensor: (…, channels).
        held: constants by channel that make it and whatever is added later: divided by the factor.
        layers: the MatMuls and Gemms that read it.
        inserted: whether a Mul between them divides, and `held` is empty.
    """

    tensor: ir.Value
    held: list[tuple[ir.Node, int, np.ndarray]]
    layers: list[Layer]
    inserted: bool = False

    def weight_ranges(self) -> np.ndarray:
        """Return the largest weight of each channel over all layers."""
        weights = [layer.canonical(layer.weight) for layer in self.layers]
        ranges: np.ndarray = np.max([np.abs(w).max(axis=(0, 1, 3)) for w in weights], axis=0)
        return ranges

    def scale(self, graph: ir.Graph, factor: np.ndarray) -> None:
        """Divide the tensor by `factor`, one number a channel, and multiply the weights."""
        for node, index, constant in self.held:
            put(graph, node, index, (constant / factor).astype(np.float32))
        for layer in self.layers:
            weight = layer.canonical(layer.weight.astype(np.float64)) * factor[:, None]
            put(graph, layer.node, 1, layer.stored(weight).astype(np.float32))
        if self.inserted:
            self._insert(graph, factor)

    def _insert(self, graph: ir.Graph, factor: np.ndarray) -> None:
        name = f"{self.tensor.name}_smoothed"
        constant = add_constant(graph, f"{name}_factor", (1 / factor).astype(np.float32))
        node = ir.node("Mul", [self.tensor, constant], name=name)
        made = node.outputs[0]
        made.name, made.type, made.shape = name, self.tensor.type, self.tensor.shape
        graph.insert_before(min((x.node for x in self.layers), key=list(graph).index), node)
        for layer in self.layers:
            layer.node.replace_input_with(0, made)


def _factors(largest: np.ndarray, weights: np.ndarray, alpha: float) -> np.ndarray:
    """Return max|X|^α / max|W|^(1 − α) by channel, float64; 1 for channels that are all zero."""
    dead = (largest == 0) | (weights == 0)
    x, w = (
        np.maximum(each.astype(np.float64), _LEAST * max(float(each.max()), _LEAST))
        for each in (largest, weights)
    )
    return np.where(dead, 1.0, x**alpha / w ** (1 - alpha))


def _seams(graph: ir.Graph, insert: bool) -> Iterator[_Seam]:
    for node in graph:
        held = _parameters(node)
        if not held:
            continue
        tensor, channels = node.outputs[0], held[0][2].size
        found = readers(graph, tensor, channels, last=True)
        direct = _direct(graph, tensor, channels)
        if found is not None and _own([layer for layer, _ in found.layers], channels):
            sums = [(add, _constant_index(add), vector) for add, vector in found.sums]
            yield _Seam(tensor, [*held, *sums], [layer for layer, _ in found.layers])
        elif insert and direct and _own(direct, channels):
            yield _Seam(tensor, [], direct, inserted=True)


def _parameters(node: ir.Node) -> list[tuple[ir.Node, int, np.ndarray]]:
    """Return the constants by channel that a norm, or the end of one, multiplies and adds with.

    An Add counts only with the Mul before it, and that Mul only when nothing follows.
    """
    if node.op_type in _NORMS:
        return _norm_parameters(node)
    if node.domain or node.op_type not in ("Add", "Mul"):
        return []
    last = _vector(node)
    if node.op_type == "Mul":
        followers = [usage.node for usage in node.outputs[0].uses()]
        ends = not any(f.op_type == "Add" and _vector(f) for f in followers)
        return last if ends else []
    operand = node.inputs[1 - last[0][1]] if last else None
    before = operand.producer() if operand is not None else None
    if before is None or before.op_type != "Mul" or not alone(operand):
        return []
    first = _vector(before)
    fits = first and first[0][2].size == last[0][2].size
    return [*first, *last] if fits else []


def _norm_parameters(norm: ir.Node) -> list[tuple[ir.Node, int, np.ndarray]]:
    rank = len(norm.inputs[0].shape) if norm.inputs[0] and norm.inputs[0].shape else None
    axis = attribute_int(norm, "axis", -1)
    if axis not in (-1, rank - 1 if rank else -1):
        return []
    found = []
    for index, value in enumerate(norm.inputs[1:], start=1):
        constant = constant_of(value)
        if value is not None and (constant is None or constant.ndim != 1):
            return []
        if constant is not None:
            found.append((norm, index, constant.astype(np.float64)))
    return found


def _vector(node: ir.Node) -> list[tuple[ir.Node, int, np.ndarray]]:
    """Return the constant operand of an Add or a Mul when it has one number a channel."""
    for index, value in enumerate(node.inputs):
        constant = constant_of(value)
        if constant is None or constant.dtype != np.float32 or constant.size < 2:
            continue
        vector = row(constant, constant.size)
        if vector is not None:
            return [(node, index, vector)]
    return []


def _constant_index(node: ir.Node) -> int:
    return next(i for i, value in enumerate(node.inputs) if constant_of(value) is not None)


def _direct(graph: ir.Graph, tensor: ir.Value, channels: int) -> list[Layer]:
    """Return the layers that read the tensor itself."""
    users = [u.node for u in tensor.uses() if u.idx == 0 and u.node.graph is graph]
    found = (layer_of(node) for node in users)
    return [x for x in found if x is not None and not x.convolves and x.inputs == channels]


def _own(found: list[Layer], channels: int) -> bool:
    """Say whether the layers' weights are float32, of this many rows, and read by nobody else."""
    return all(
        layer.inputs == channels
        and layer.weight.dtype == np.float32
        and alone(layer.node.inputs[1])
        for layer in found
    )
