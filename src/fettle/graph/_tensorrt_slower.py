"""What runs in integers with more rounding or more memory than is needed, and what to tell."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from fettle.graph._tensorrt_reading import WEIGHTED, Rule, label, nodes, operand, quantizer

Found = Iterator[tuple[str, str]]
_RECTIFIERS = ("Relu", "Clip", "LeakyRelu", "PRelu", "HardSwish", "Sigmoid", "HardSigmoid")


def _behind_a_layer(quantize: ir.Node | None) -> bool:
    """Say whether what is quantized comes straight from a weighted operator."""
    if quantize is None or quantize.inputs[0] is None:
        return False
    source = quantize.inputs[0].producer()
    return source is not None and source.op_type in WEIGHTED


def _rounded_twice(model: ir.Model) -> Found:
    for node in nodes(model, *_RECTIFIERS):
        found = operand(node.inputs[0])
        readers = [use.node.op_type for use in node.outputs[0].uses()]
        before = found is not None and _behind_a_layer(quantizer(found.node))
        if before and "QuantizeLinear" in readers:
            yield label(node), f"rounded before {node.op_type} and again after it"


def _quantized_branches(model: ir.Model) -> Found:
    for node in nodes(model, "Add"):
        pair = [operand(value) for value in node.inputs]
        if all(found is not None and not found.weight for found in pair):
            own = [found for found in pair if found and _behind_a_layer(quantizer(found.node))]
            if own:
                yield label(node), f"{label(own[0].node)} rounds a layer's output before its sum"


def _float_residuals(model: ir.Model) -> Found:
    for node in nodes(model, "Add"):
        for value in node.inputs:
            read = {use.node.op_type for use in value.uses()} if value is not None else set()
            others = [given for given in node.inputs if given is not value]
            if "QuantizeLinear" in read and any(_made_by_a_layer(other) for other in others):
                assert value is not None
                yield label(node), f"`{value.name}` is read in float here and quantized elsewhere"


def _made_by_a_layer(value: ir.Value | None) -> bool:
    node = value.producer() if value is not None else None
    return node is not None and node.op_type == "Conv"


def _quantized_results(model: ir.Model) -> Found:
    for value in model.graph.outputs:
        node = value.producer()
        if node is not None and node.op_type == "DequantizeLinear" and quantizer(node) is not None:
            yield label(node), f"the output `{value.name}` is rounded"


def _dynamic(model: ir.Model) -> Found:
    for value in model.graph.inputs:
        if value.is_initializer() or value.shape is None:
            continue
        free = [str(size) for size in value.shape if not isinstance(size, int)]
        if free:
            yield value.name or "", f"free dimensions: {', '.join(free)}"


RULES = (
    Rule(
        "rounded-twice",
        "slower",
        "quantize after the activation only: TensorRT fuses it into the layer before",
        _rounded_twice,
    ),
    Rule(
        "quantized-branch",
        "slower",
        "quantize the other operand of the Add only, and let the layer's output reach it in float"
        " (it is then fused into the layer)",
        _quantized_branches,
    ),
    Rule(
        "float-residual",
        "slower",
        "let the Add read the quantized tensor too, so that it isn't written in float as well",
        _float_residuals,
    ),
    Rule(
        "quantized-result",
        "slower",
        "leave the model's outputs in float",
        _quantized_results,
    ),
    Rule(
        "dynamic-input",
        "note",
        "build with an optimization profile: `tensorrt(batch=…, largest_batch=…)`, or trtexec's"
        " --minShapes, --optShapes and --maxShapes",
        _dynamic,
    ),
)
