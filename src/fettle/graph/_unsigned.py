"""Signed to unsigned: the rewrite that onnxruntime's x86 kernels need."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from fettle.graph._constants import add_constant
from fettle.graph._moves import move_integers
from fettle.graph._quantized import ActivationQuantizer, activation_quantizers, constant_of
from fettle.graph._ranges import non_negative_values


def to_unsigned(graph: ir.Graph) -> None:
    """Turn the symmetric int8 activations of `graph` into uint8, and what depends on them."""
    unsigned_activations(graph)
    for node in list(graph):
        if node.op_type == "Gemm":
            _quantize_bias(graph, node)
    move_integers(graph)


def unsigned_activations(graph: ir.Graph, signed_too: bool = True) -> None:
    """Turn the symmetric int8 activations of `graph` into uint8, and nothing else.

    Without `signed_too`, tensors that may be negative stay as they are.
    """
    non_negative = non_negative_values(graph)
    for quantizer in activation_quantizers(graph):
        if signed_too or quantizer.source in non_negative:
            _to_uint8(graph, quantizer, quantizer.source in non_negative)


def _to_uint8(graph: ir.Graph, quantizer: ActivationQuantizer, non_negative: bool) -> None:
    scale, zero_point = quantizer.scale, 128
    if non_negative:
        scale, zero_point = np.float32(scale * np.float32(127 / 255)), 0
    name = quantizer.output.name
    new_scale = add_constant(graph, f"{name}_u8_scale", np.array(scale, np.float32))
    new_zero = add_constant(graph, f"{name}_u8_zero_point", np.array(zero_point, np.uint8))
    for node in quantizer.nodes:
        node.replace_input_with(1, new_scale)
        node.replace_input_with(2, new_zero)
    quantizer.output.dtype = ir.DataType.UINT8


def _quantize_bias(graph: ir.Graph, gemm: ir.Node) -> None:
    """Put the bias behind a DequantizeLinear of scale s_x · s_w, where both operands have one."""
    scales = [_scale_of(value) for value in gemm.inputs[:2]]
    bias = constant_of(gemm.inputs[2]) if len(gemm.inputs) > 2 else None
    if bias is None or bias.ndim != 1 or any(scale is None for scale in scales):
        return
    product = np.float32(scales[0]) * np.float32(scales[1])
    if product.size not in (1, bias.size):
        return
    scale = np.broadcast_to(product.reshape(-1), bias.shape)
    name = f"{gemm.outputs[0].name}_bias"
    numbers = np.clip(np.round(bias / scale), -(2**31), 2**31 - 1).astype(np.int32)
    inputs = [
        add_constant(graph, f"{name}_int32", numbers),
        add_constant(graph, f"{name}_scale", scale.astype(np.float32)),
        add_constant(graph, f"{name}_zero_point", np.zeros(bias.shape, np.int32)),
    ]
    dequantize = ir.node("DequantizeLinear", inputs, {"axis": 0}, name=f"{name}_dequantize")
    dequantize.outputs[0].name = f"{name}_float"
    graph.insert_before(gemm, dequantize)
    gemm.replace_input_with(2, dequantize.outputs[0])


def _scale_of(value: ir.Value | None) -> np.ndarray | None:
    """Return the scale of the DequantizeLinear that makes `value`, if one does."""
    node = value.producer() if value is not None else None
    if node is None or node.op_type != "DequantizeLinear":
        return None
    return constant_of(node.inputs[1])
