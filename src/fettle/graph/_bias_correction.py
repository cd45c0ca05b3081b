"""Bias correction: the mean error that quantized weights bring is taken out of the biases.

For a layer y = W·x + b with quantized weight Ŵ = W + ΔW, E[ŷ] − E[y] = ΔW · E[x] by output channel:
a shift that rounding to nearest leaves, above all where few weights make a channel (depthwise).

Rounding symmetric activations shifts means too, but no bias may make up for that: a lowering gives
them another grid, and a correction for the one in the file is then an error of its own (a keyword
spotter lost a point by it).

Paper: Nagel et al. 2019 (arXiv 1906.04721), section 4.2; Nagel et al. 2021 (arXiv 2106.08295).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from fettle.core.arrays import Arrays
from fettle.core.errors import DataError, ModelError
from fettle.graph._constants import add_constant
from fettle.graph._dequantize import dequantized
from fettle.graph._execute import Probe
from fettle.graph._layers import Layer, layers, pairs, put, row
from fettle.graph._quantized import activation_quantizers, constant_of

Batches = Callable[[], Iterator[Arrays]]


def correct_biases(quantized: ir.Model, original: ir.Model, batches: Batches, mode: str) -> None:
    """Correct the bias of every layer of `quantized` whose weight is quantized, in place.

    A layer without a bias gets one: an input, or an Add behind a MatMul.

    Args:
        quantized: QDQ graph made from `original`; a layer keeps its name.
        original: the float graph, left as it is.
        batches: gives the calibration inputs, anew at each call.
        mode: `fast`: −ΔW · E[x], with x from one run of the float graph. `full`: layer after
            layer, E[y] − E[ŷ], with ŷ from the quantized graph that has the corrections so far,
            its symmetric activations not rounded; a run for each step of depth.

    Raises:
        ModelError: the models don't belong together, or a tensor becomes NaN or infinite.
        DataError: there is no batch of the size that the model takes.
    """
    found = pairs(quantized.graph, original.graph)
    if mode == "fast":
        _shift(quantized.graph, found, _expected_errors(found, original, batches))
        return
    assert mode == "full", mode
    floats = _channel_means(original, [layer for _, layer in found], batches)
    for level in _levels(quantized.graph, found):
        means = _channel_means(quantized, [layer for layer, _ in level], batches, rounded=False)
        errors = {key: mean - floats[key] for key, mean in means.items()}
        _shift(quantized.graph, level, errors)


def _levels(
    graph: ir.Graph, found: list[tuple[Layer, Layer]]
) -> Iterator[list[tuple[Layer, Layer]]]:
    """Yield the layers by depth, so that none depends on another of its own level."""
    nodes = {layer.node for layer, _ in found}
    depth: dict[ir.Value | None, int] = {}
    for node in graph:
        above = max((depth.get(value, 0) for value in node.inputs), default=0)
        depth.update(dict.fromkeys(node.outputs, above + (node in nodes)))
    by_depth: dict[int, list[tuple[Layer, Layer]]] = {}
    for pair in found:
        by_depth.setdefault(depth[pair[0].node.outputs[0]], []).append(pair)
    for level in sorted(by_depth):
        yield by_depth[level]


def _expected_errors(
    found: list[tuple[Layer, Layer]], original: ir.Model, batches: Batches
) -> dict[str, np.ndarray]:
    """Return ΔW · E[x] by output channel, borders and strides heeded.

    A twin of each layer with the weight ΔW runs beside it in the float graph.
    """
    copied = original.clone()
    nodes = {layer.key: layer.node for layer in layers(copied.graph)}
    twins = {}
    for layer, other in found:
        error = (layer.weight.astype(np.float64) - other.weight).astype(np.float32)
        twins[layer.key] = _twin(copied.graph, nodes[layer.key], Layer(other.node, error))
    return _means(copied, twins, batches)


def _twin(graph: ir.Graph, node: ir.Node, error: Layer) -> tuple[ir.Value, bool]:
    """Add a node that computes what `node` does, with the weight `error` and no bias."""
    name = f"{node.outputs[0].name}_error"
    inputs = [node.inputs[0], add_constant(graph, f"{name}_weight", error.weight)]
    if node.op_type == "Gemm":
        inputs.append(add_constant(graph, f"{name}_zero", np.zeros(error.outputs, np.float32)))
    twin = ir.node(node.op_type, inputs, dict(node.attributes), name=name)
    twin.outputs[0].name = name
    graph.append(twin)
    return twin.outputs[0], error.convolves


def _channel_means(
    model: ir.Model, found: list[Layer], batches: Batches, rounded: bool = True
) -> dict[str, np.ndarray]:
    """Return the mean output by channel of each layer of `model`, activations `rounded` or not."""
    copied = model.clone()
    if not rounded:
        _read_unrounded(copied.graph)
    nodes = {str(node.outputs[0].name): node for node in copied.graph}
    watched = {
        layer.key: (nodes[str(layer.node.outputs[0].name)].outputs[0], layer.convolves)
        for layer in found
    }
    return _means(copied, watched, batches)


def _read_unrounded(graph: ir.Graph) -> None:
    """Let what reads a symmetric activation read it as it was before it was quantized.

    The weights are written out, for onnxruntime rounds the activations of a product of which the
    weight alone is quantized.
    """
    for quantizer in list(activation_quantizers(graph)):
        for reader in quantizer.readers:
            reader.outputs[0].replace_all_uses_with(quantizer.source)
    for node in [node for node in graph if node.op_type == "DequantizeLinear"]:
        array = dequantized(node)
        if array is not None:
            made = node.outputs[0]
            made.replace_all_uses_with(add_constant(graph, f"{made.name}_unpacked", array))


def _means(
    model: ir.Model, watched: Mapping[str, tuple[ir.Value, bool]], batches: Batches
) -> dict[str, np.ndarray]:
    """Return the mean by channel of tensors of `model`, which is cut down to them.

    Args:
        model: is used up.
        watched: by key, the tensor and whether it comes from a convolution: then its mean over
            positions is taken in the graph, so that no large tensor leaves the engine.
        batches: the inputs.
    """
    outputs = {
        key: _pooled(model.graph, value) if convolved else value
        for key, (value, convolved) in watched.items()
    }
    model.graph.outputs[:] = list(dict.fromkeys(outputs.values()))
    common.RemoveUnusedNodesPass()(model)
    sums = {key: np.zeros(1) for key in outputs}
    examples = 0
    for values in Probe(model).over(batches()):
        n = len(next(iter(values.values())))
        examples += n
        for key, value in outputs.items():
            axis = 1 if watched[key][1] else -1
            sums[key] = sums[key] + n * _mean_but(values[str(value.name)], axis)
    return {key: _finite(key, total / max(examples, 1), examples) for key, total in sums.items()}


def _mean_but(array: np.ndarray, axis: int) -> np.ndarray:
    """Return the mean over all axes but one."""
    moved = np.moveaxis(array, axis, -1)
    mean: np.ndarray = moved.reshape(-1, moved.shape[-1]).mean(0, dtype=np.float64)
    return mean


def _finite(key: str, mean: np.ndarray, examples: int) -> np.ndarray:
    if not examples:
        raise DataError(
            "bias correction needs calibration examples, and got no batch of the size that the"
            " model takes; give the calibration split more of them"
        )
    if not np.isfinite(mean).all():
        raise ModelError(
            f"the output of `{key}` becomes NaN or infinite on the calibration data, so its bias"
            " can't be corrected; mend the model, or leave out the examples that cause it"
        )
    return mean


def _pooled(graph: ir.Graph, value: ir.Value) -> ir.Value:
    node = ir.node("GlobalAveragePool", [value], name=f"{value.name}_mean")
    node.outputs[0].name = f"{value.name}_mean"
    graph.append(node)
    return node.outputs[0]


def _shift(
    graph: ir.Graph, found: list[tuple[Layer, Layer]], errors: Mapping[str, np.ndarray]
) -> None:
    """Take the mean errors out of the biases."""
    for layer, _ in found:
        error = errors[layer.key]
        if layer.node.op_type == "MatMul":
            _shift_product(graph, layer, error)
        elif not _shift_input(graph, layer, error):
            _append_sum(graph, layer, -error)


def _shift_input(graph: ir.Graph, layer: Layer, error: np.ndarray) -> bool:
    """Change the third input; return False when it is computed, or varies by row."""
    node = layer.node
    held = node.inputs[2] if len(node.inputs) > 2 else None
    beta = node.attributes["beta"].as_float() if "beta" in node.attributes else 1.0
    dequantize = held.producer() if held is not None else None
    if dequantize is not None and dequantize.op_type == "DequantizeLinear":
        return _shift_integers(graph, dequantize, error / (beta or 1.0)) and beta != 0
    bias = np.zeros(layer.outputs) if held is None else row(constant_of(held), layer.outputs)
    if bias is None or beta == 0:
        return False
    put(graph, node, 2, (bias - error / beta).astype(np.float32))
    return True


def _shift_integers(graph: ir.Graph, dequantize: ir.Node, error: np.ndarray) -> bool:
    """Change a bias that is stored in int32, as onnxruntime's own quantizer does."""
    bias, numbers = dequantized(dequantize), constant_of(dequantize.inputs[0])
    scale = constant_of(dequantize.inputs[1])
    if bias is None or numbers is None or scale is None or numbers.shape != error.shape:
        return False
    moved = np.rint(numbers - error / scale.astype(np.float64))
    put(graph, dequantize, 0, moved.clip(-(2**31), 2**31 - 1).astype(numbers.dtype))
    return True


def _shift_product(graph: ir.Graph, layer: Layer, error: np.ndarray) -> None:
    """Change the constant of the one Add behind a MatMul, or put an Add there."""
    output = layer.node.outputs[0]
    usages = list(output.uses())
    add = usages[0].node if len(usages) == 1 and not output.is_graph_output() else None
    if add is not None and add.op_type == "Add":
        index = 1 - usages[0].idx
        bias = row(constant_of(add.inputs[index]), layer.outputs)
        if bias is not None:
            put(graph, add, index, (bias - error).astype(np.float32))
            return
    _append_sum(graph, layer, -error)


def _append_sum(graph: ir.Graph, layer: Layer, shift: np.ndarray) -> None:
    output = layer.node.outputs[0]
    name = f"{output.name}_corrected"
    shape = (-1, *[1] * (layer.weight.ndim - 2)) if layer.convolves else (-1,)
    constant = add_constant(graph, f"{name}_bias", shift.astype(np.float32).reshape(shape))
    add = ir.node("Add", [output, constant], name=name)
    made = add.outputs[0]
    made.name, made.type, made.shape = name, output.type, output.shape
    is_result = output.is_graph_output()
    output.replace_all_uses_with(made, replace_graph_outputs=True)
    add.replace_input_with(0, output)
    if is_result:
        output.name, made.name = f"{output.name}_uncorrected", output.name
    graph.insert_after(layer.node, add)
