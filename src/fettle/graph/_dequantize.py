"""What a DequantizeLinear makes of constants, by tensor, by channel or by block."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from fettle.graph._quantized import constant_of


def dequantized(node: ir.Node) -> np.ndarray:
    """Return (q − zero point) · scale of a DequantizeLinear of constants, float32."""
    codes, scale, *zero = (constant_of(value) for value in node.inputs)
    assert codes is not None
    assert scale is not None
    numbers = codes.astype(np.float32)
    spread = [_spread(a.astype(np.float32), node, numbers) for a in (scale, *zero) if a is not None]
    if len(spread) > 1:
        numbers = numbers - spread[1]
    result: np.ndarray = (numbers * spread[0]).astype(np.float32)
    return result


def _spread(array: np.ndarray, node: ir.Node, numbers: np.ndarray) -> np.ndarray:
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
