"""What a model takes: each way in which arrays can differ from it is told."""

import ml_dtypes
import numpy as np
import pytest

from fettle.core.arrays import TensorSpec
from fettle.core.bundle import Manifest
from fettle.core.errors import BundleError
from fettle.serve.errors import BadRequest
from fettle.serve.protocol.request import Wanted
from fettle.serve.protocol.signature import Signature

X = TensorSpec("x", "float32", (-1, 3))
K = TensorSpec("k", "int64", (-1,))
BOTH = Signature((X, K), (TensorSpec("y", "float32", (-1, 5)),), max_batch=4)


def arrays(rows=2, others=2, **changes):
    return {"x": np.zeros((rows, 3), np.float32), "k": np.zeros(others, np.int64)} | changes


def test_the_batch_size_is_told():
    assert BOTH.check(arrays(4, 4)) == 4
    assert BOTH.batched


def test_a_model_without_a_batch_takes_one_request_at_a_time():
    fixed = Signature((TensorSpec("x", "float32", (2, 3)), K), ())
    assert not fixed.batched
    assert fixed.check({"x": np.zeros((2, 3), np.float32), "k": np.zeros(9, np.int64)}) == 1


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({}, r"`x`, `k` are expected, `x`, `k` is missing"),
        ({"x": arrays()["x"]}, "`k` is missing"),
        (arrays(y=np.zeros(2)), "the inputs `x`, `k` are expected, got 'y'"),
        (arrays(xx=np.zeros(2)), "did you mean `x`"),
        (arrays(2, 3), "one batch size, got `x` 2, `k` 3"),
        (arrays(5, 5), "batch of 1 to 4 rows, got 5"),
        (arrays(0, 0), r"shape \[-1, 3\] .* got \[0, 3\]"),
        (arrays(x=np.zeros((2, 3)) + 1), "got"),
        (arrays(x=np.zeros((2, 3), np.float64)), "datatype FP32, got 'FP64'"),
        (arrays(x=np.zeros((2, 3), complex)), "datatype FP32, got 'complex128'"),
        (arrays(x=np.zeros((2, 3, 1), np.float32)), r"got \[2, 3, 1\]"),
        (arrays(x=np.full((2, 3), -np.inf, np.float32)), "got -inf at element 0"),
    ],
)
def test_what_differs_is_told(inputs, said):
    with pytest.raises(BadRequest, match=said):
        BOTH.check(inputs)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_the_largest_numbers_are_finite(dtype):
    signature = Signature((TensorSpec("x", str(np.dtype(dtype)), (-1, 8)),), ())
    largest = ml_dtypes.finfo(dtype).max
    assert signature.check({"x": np.full((1, 8), largest, dtype)}) == 1


def test_outputs_that_there_are_not_are_told():
    BOTH.check_outputs([Wanted("y", classification=2)])
    for wanted, said in (
        ([Wanted("z")], "the outputs `y` are expected, got 'z'"),
        ([Wanted("y"), Wanted("y", binary=True)], "'y' twice"),
    ):
        with pytest.raises(BadRequest, match=said):
            BOTH.check_outputs(wanted)


def test_half_precision_goes_as_bytes_only():
    half = Signature((X,), (TensorSpec("h", "float16", (-1, 2)),))
    half.check_outputs([Wanted("h", binary=True)])
    half.check_outputs([Wanted("h", classification=1)])
    half.check_outputs([])
    for wanted, binary_default in (([Wanted("h")], True), ([], False)):
        with pytest.raises(BadRequest, match="FP16, which JSON has no notation for"):
            half.check_outputs(wanted, binary_default)


def test_a_type_that_the_protocol_cannot_carry_is_no_model_to_serve():
    odd = Manifest((TensorSpec("z", "complex64", (-1, 2)),), (), "@ onnxruntime")
    with pytest.raises(BundleError, match="`z` has the type complex64"):
        Signature.of(odd)


def test_the_description_is_the_protocols():
    assert BOTH.describe() == {
        "inputs": [
            {"name": "x", "datatype": "FP32", "shape": [-1, 3]},
            {"name": "k", "datatype": "INT64", "shape": [-1]},
        ],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 5]}],
    }
