import numpy as np
import onnx_ir as ir
import pytest
from onnx.reference.ops.op_dequantize_linear import DequantizeLinear_21

from fettle.graph._dequantize import dequantized

RNG = np.random.default_rng(0)
F = np.float32


def node(codes, scale, zero=None, **attributes):
    given = [array for array in (codes, scale, zero) if array is not None]
    values = [ir.Value(name=f"v{i}", const_value=ir.tensor(a)) for i, a in enumerate(given)]
    return ir.node("DequantizeLinear", values, attributes=attributes)


def integers(kind, *shape):
    bounds = np.iinfo(kind)
    return RNG.integers(bounds.min, bounds.max, shape, dtype=kind)


CASES = {
    "tensor": (integers(np.int8, 4, 6), F(0.1), None, {}),
    "zero point": (integers(np.uint8, 4, 6), F(0.1), np.uint8(131), {}),
    "channel": (integers(np.int8, 4, 6), RNG.uniform(0.1, 1, 4).astype(F), None, {"axis": 0}),
    "last axis": (integers(np.int8, 4, 6), RNG.uniform(0.1, 1, 6).astype(F), None, {"axis": -1}),
    "blocks": (integers(np.int8, 4, 6), RNG.uniform(0.1, 1, (4, 2)).astype(F),
               integers(np.int8, 4, 2), {"axis": 1, "block_size": 3}),
    "half": (integers(np.int8, 4, 6), np.float16(0.1), None, {}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_it_is_what_the_specification_says(case):
    codes, scale, zero, attributes = CASES[case]
    found = dequantized(node(codes, scale, zero, **attributes))
    how = {"axis": 1, "block_size": 0, "output_dtype": None, **attributes}
    expected = DequantizeLinear_21.eval(codes, np.asarray(scale), zero, **how)
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=2**-22 if found.dtype == F else 1e-3)


def test_biases_of_32_bits_are_rounded_once():
    codes = np.array([2**31 - 1, 2**24 + 1, -(2**30) - 7], np.int32)
    scale = F(1.2345e-7)
    expected = (codes.astype(np.float64) * np.float64(scale)).astype(F)
    np.testing.assert_array_equal(dequantized(node(codes, scale)), expected)
    assert not np.array_equal(codes.astype(F) * scale, expected)  # as float32 alone has it


def test_what_is_computed_has_none():
    found = node(integers(np.int8, 4, 6), F(0.1))
    found.replace_input_with(1, ir.Value(name="computed"))
    assert dequantized(found) is None
