"""Sums in float that read what was quantized for a layer beside them."""

from __future__ import annotations

import onnx_ir as ir

from fettle.graph._placement import LAYER_NORMS

_SUMS = {"Add", "Sum"}


def read_float_sums(graph: ir.Graph) -> None:
    """Let every sum with a term in float read layer norms as they were before quantization."""
    for node in list(graph):
        if node.op_type in _SUMS and _is_float(node):
            _read_float(graph, node)


def _is_float(total: ir.Node) -> bool:
    """Say whether one of its terms is in float, so that there is no adding the integers."""
    makers = [value.producer() for value in total.inputs if value is not None]
    return any(maker is None or maker.op_type != "DequantizeLinear" for maker in makers)


def _is_normed(quantize: ir.Node) -> bool:
    """Say whether it quantizes the input or what a layer norm made, which is in float anyway."""
    maker = quantize.inputs[0].producer() if quantize.inputs[0] is not None else None
    return maker is None or maker.op_type in LAYER_NORMS


def _read_float(graph: ir.Graph, total: ir.Node) -> None:
    """Let a sum read what it adds as it was before it was quantized."""
    for index, value in enumerate(total.inputs):
        dequantize = value.producer() if value is not None else None
        if dequantize is None or dequantize.op_type != "DequantizeLinear":
            continue
        integers = dequantize.inputs[0]
        quantize = integers.producer() if integers is not None else None
        if quantize is not None and quantize.op_type == "QuantizeLinear" and _is_normed(quantize):
            total.replace_input_with(index, quantize.inputs[0])
            if not dequantize.outputs[0].uses() and not dequantize.outputs[0].is_graph_output():
                graph.remove(dequantize, safe=True)
