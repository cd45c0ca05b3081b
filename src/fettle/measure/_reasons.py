"""Why an engine may leave a layer of a QDQ graph in floating point, as far as the graph shows.

The checks follow what onnxruntime's and OpenVINO's integer kernels ask of a layer's surroundings.
The first that holds is the reason; they run from the plainest to the most particular.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

PRODUCTS = {"Conv", "Gemm", "MatMul", "ConvTranspose"}
_VIEWS = {"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"}
_RECTIFIERS = {"Relu", "Clip"}
# operators that have an integer kernel, or are absorbed by one
_INTEGER = {
    "onnxruntime": {"Conv", "Gemm", "MatMul", "Add", "Mul", "Sigmoid", "LeakyRelu", "AveragePool",
                    "GlobalAveragePool", "Concat", "Softmax", "MaxPool", "Relu", "Clip", "Where",
                    "Resize", "Pad", *_VIEWS},
    "openvino": {"Conv", "Gemm", "MatMul", "ConvTranspose", "Add", "Mul", "AveragePool", "MaxPool",
                 "GlobalAveragePool", "Concat", "Relu", "Clip", "Resize", "Pad", *_VIEWS},
}  # fmt: skip
REASONS = {
    "on purpose": "a lowering leaves it in float here, where that was measured to be faster",
    "no kernel": "this engine has no integer kernel for the operator",
    "input in float": "its input isn't quantized, only its weight is",
    "weight in float": "its input is quantized, its weight isn't",
    "scale not constant": "a scale or zero point is computed, not constant",
    "per-channel activation": "its activation has one scale a channel; kernels take one a tensor",
    "zero point of weight": "its weight has a zero point other than 0",
    "mixed types": "its inputs are quantized in different types",
    "zero point of activation": "its activation is int8 with a zero point other than 0, which this"
    " engine doesn't multiply: quantize it symmetrically, or to uint8",
    "rectifier kept": "the Relu or Clip after it can't be absorbed, for the quantizer behind that"
    " has room for negative numbers: lower it with graph.lower_ort_x86",
    "signed activation": "its activation is int8, and x86 kernels here multiply uint8 by int8:"
    " lower it with graph.lower_ort_x86",
    "bias in float": "its bias isn't int32 at the scale of the products",
    "no output quantizer": "its output isn't quantized, which this engine's kernel needs",
    "output shared": "something else reads its output in float too",
    "float in between": "an operator that can't be absorbed stands before the output's quantizer",
    "unknown": "nothing in the graph tells why",
}

Check = Callable[[ir.Node, str], bool]


def reason_of(node: ir.Node, engine: str) -> str:
    """Return the key of REASONS that fits a node that `engine` runs in float."""
    return next((name for name, holds in _CHECKS if holds(node, engine)), "unknown")


def dequantizer(value: ir.Value | None) -> ir.Node | None:
    """Return the DequantizeLinear that makes `value`, through views of a constant."""
    node = value.producer() if value is not None else None
    while node is not None and node.op_type == "Transpose":
        node = node.inputs[0].producer() if node.inputs[0] is not None else None
    return node if node is not None and node.op_type == "DequantizeLinear" else None


def activations(node: ir.Node) -> list[ir.Value]:
    """Return the inputs that aren't constant, biases left out; for products, the first two."""
    read = node.inputs[:2] if node.op_type in PRODUCTS else node.inputs
    return [value for value in read if value is not None and not _is_constant(value)]


def _is_constant(value: ir.Value) -> bool:
    if value.const_value is not None:
        return True
    node = value.producer()
    return node is not None and all(_is_constant(v) for v in node.inputs if v is not None)


def _pairs(node: ir.Node) -> list[ir.Node]:
    """Return the dequantizers of all inputs."""
    read = node.inputs[:2] if node.op_type in PRODUCTS else node.inputs
    return [found for value in read if (found := dequantizer(value)) is not None]


def _no_kernel(node: ir.Node, engine: str) -> bool:
    return engine in _INTEGER and node.op_type not in _INTEGER[engine]


def _input_in_float(node: ir.Node, engine: str) -> bool:
    del engine
    return any(dequantizer(value) is None for value in activations(node))


def _weight_in_float(node: ir.Node, engine: str) -> bool:
    del engine
    if node.op_type not in PRODUCTS or node.inputs[1] is None:
        return False
    return _is_constant(node.inputs[1]) and dequantizer(node.inputs[1]) is None


def _scale_not_constant(node: ir.Node, engine: str) -> bool:
    del engine
    return any(
        _array(value) is None for pair in _pairs(node) for value in pair.inputs[1:3] if value
    )


def _per_channel(node: ir.Node, engine: str) -> bool:
    del engine
    found = [dequantizer(value) for value in activations(node)]
    return any(_size(pair.inputs[1]) > 1 for pair in found if pair is not None)


def _weight_zero_point(node: ir.Node, engine: str) -> bool:
    del engine
    pair = dequantizer(node.inputs[1]) if node.op_type in PRODUCTS else None
    if pair is None or len(pair.inputs) < 3 or not _is_constant(pair.outputs[0]):
        return False
    zero = _array(pair.inputs[2])
    return zero is not None and zero.dtype == np.int8 and bool(zero.any())


def _mixed(node: ir.Node, engine: str) -> bool:
    del engine
    return len({zero.dtype for zero in _activation_zeros(node)}) > 1


def _zero_point(node: ir.Node, engine: str) -> bool:
    if engine != "openvino" or node.op_type not in PRODUCTS | {"Add", "Mul"}:
        return False
    return any(zero.dtype == np.int8 and zero.any() for zero in _activation_zeros(node))


def _signed(node: ir.Node, engine: str) -> bool:
    if engine != "onnxruntime":
        return False
    return any(zero.dtype == np.int8 for zero in _activation_zeros(node))


def _activation_zeros(node: ir.Node) -> list[np.ndarray]:
    found = [dequantizer(value) for value in activations(node)]
    zeros = [_array(pair.inputs[2]) for pair in found if pair is not None and len(pair.inputs) > 2]
    return [zero for zero in zeros if zero is not None]


def _rectifier_kept(node: ir.Node, engine: str) -> bool:
    """A kernel absorbs a rectifier only where quantizing cuts off what is negative anyway."""
    last = _last(node)
    if engine != "onnxruntime" or last is node:
        return False
    after = [_array(n.inputs[2]) for n in _after(last)
             if n.op_type == "QuantizeLinear" and len(n.inputs) > 2]  # fmt: skip
    return any(zero is not None and zero.min() > np.iinfo(zero.dtype).min for zero in after)


def _bias_in_float(node: ir.Node, engine: str) -> bool:
    """Gemm only: convolutions take a float bias, for the engine quantizes it itself."""
    if engine != "onnxruntime" or node.op_type != "Gemm" or len(node.inputs) < 3:
        return False
    return node.inputs[2] is not None and dequantizer(node.inputs[2]) is None


def _no_output_quantizer(node: ir.Node, engine: str) -> bool:
    if engine != "onnxruntime" or node.op_type in ("MatMul", "Gemm"):
        return False
    return not any(n.op_type == "QuantizeLinear" for n in _after(_last(node)))


def _shared(node: ir.Node, engine: str) -> bool:
    if engine != "onnxruntime":
        return False
    readers = _after(_last(node))
    quantizes = [n.op_type == "QuantizeLinear" for n in readers]
    return len(readers) > 1 and not all(quantizes)


def _in_between(node: ir.Node, engine: str) -> bool:
    if engine != "onnxruntime" or node.op_type in ("MatMul", "Gemm"):
        return False
    readers = _after(_last(node))
    return bool(readers) and not any(n.op_type == "QuantizeLinear" for n in readers)


def _last(node: ir.Node) -> ir.Node:
    """Return the rectifier that alone reads the node, or the node."""
    readers = _after(node)
    return readers[0] if len(readers) == 1 and readers[0].op_type in _RECTIFIERS else node


def _after(node: ir.Node) -> list[ir.Node]:
    return [usage.node for value in node.outputs for usage in value.uses()]


def _array(value: ir.Value | None) -> np.ndarray | None:
    if value is None:
        return None
    if value.const_value is not None:
        return np.asarray(value.const_value.numpy())
    node = value.producer()
    if node is not None and node.op_type == "Constant" and "value" in node.attributes:
        return np.asarray(node.attributes["value"].as_tensor().numpy())
    return None


def _size(value: ir.Value | None) -> int:
    array = _array(value)
    return 1 if array is None else array.size


_CHECKS: tuple[tuple[str, Check], ...] = (
    ("no kernel", _no_kernel),
    ("input in float", _input_in_float),
    ("weight in float", _weight_in_float),
    ("scale not constant", _scale_not_constant),
    ("per-channel activation", _per_channel),
    ("zero point of weight", _weight_zero_point),
    ("mixed types", _mixed),
    ("zero point of activation", _zero_point),
    ("rectifier kept", _rectifier_kept),
    ("signed activation", _signed),
    ("bias in float", _bias_in_float),
    ("float in between", _in_between),
    ("no output quantizer", _no_output_quantizer),
    ("output shared", _shared),
)
