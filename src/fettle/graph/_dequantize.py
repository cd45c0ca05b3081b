"""What a DequantizeLinear makes of constants, by tensor, by channel or by block."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from fettle.graph._quantized import constant_of


def dequantized(node: ir.Node) -> np.ndarray | None:
    """Return (q − zero point) · scale of a DequantizeLinear of constants, None for any other.

    Rounded once, to the type of the scale: for numbers of 32 bits that takes float64.
    """
    given = [constant_of(value) for value in node.inputs if value is not None]
    codes, scale, *zero = given
    if codes is None or scale is None or any(array is None for array in zero):
        return None
    kind = np.float64 if codes.dtype.itemsize > 2 else np.float32
    numbers: np.ndarray = codes.astype(kind)
    for array in zero:
        assert array is not None
        numbers = numbers - spread(array.astype(kind), node, numbers)
    result: np.ndarray = numbers * spread(scale.astype(kind), node, numbers)
    return result.astype(scale.dtype, copy=False)


def spread(array: np.ndarray, node: ir.Node, numbers: np.ndarray) -> np.ndarray:
    """Return scales or zero points in a shape that broadcasts over the numbers."""
    axis = _flag(node, "axis", 1) % max(numbers.ndim, 1)
    block = _flag(node, "block_size", 0)
    if block:
        repeated = np.repeat(array, block, axis)
        return repeated.take(range(numbers.shape[axis]), axis)
    if array.size == 1:
        return array.reshape(())
    shape = [1] * numbers.ndim
    shape[axis] = -1
    return array.reshape(shape)


def _flag(node: ir.Node, name: str, default: int) -> int:
    return node.attributes[name].as_int() if name in node.attributes else default
