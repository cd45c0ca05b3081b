import numpy as np
import pytest

from fettle.core.arrays import TensorSpec
from fettle.core.errors import InputError
from fettle.core.shelf import RUNTIMES
from fettle.runtimes._runtime import LayerPrecision, match_inputs
from fettle.testing import FakeSession, sample

SPECS = (TensorSpec("a", "float32", (-1, 2)), TensorSpec("b", "int64", (-1,)))
A, B = np.zeros((3, 2), np.float32), np.zeros(3, np.int64)


def test_inputs_may_come_in_any_order():
    match_inputs(SPECS, {"b": B, "a": A})


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({}, "['a', 'b'] were expected, got []"),
        ({"a": A}, "got ['a']"),
        ({"a": A, "c": B}, "got ['a', 'c']"),
        ({"a": A, "b": B, "c": B}, "got ['a', 'b', 'c']"),
        ({"a": A[0], "b": B}, "input `a` expects float32 of shape [-1, 2]"),
        ({"a": A, "b": B.astype(np.int32)}, "input `b` expects int64"),
    ],
)
def test_what_is_wrong_with_inputs_is_said(inputs, words):
    with pytest.raises(InputError) as caught:
        match_inputs(SPECS, inputs)
    assert words in str(caught.value)


def test_a_session_need_not_tell_its_layers():
    assert FakeSession(dict).layers() == []


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_an_engine_tells_the_time_of_each_layer(name):
    session = RUNTIMES.make(name, threads=1).build(sample().master)
    times = session.layer_times(sample().inputs(2), runs=3)
    session.close()
    assert sum("Conv" in time.op for time in times) == 7
    assert all(time.ms >= 0 for time in times)
    assert sum(time.ms for time in times) > 0


@pytest.mark.parametrize(
    ("op", "precision", "computes"),
    [
        ("Conv", "f32", True),
        ("Add", "bf16", True),
        ("MatMulInteger", "int8", True),
        ("Gather", "f32", False),
        ("Where", "f32", False),
        ("Add", "i64", False),
        ("Mul", "i32", False),
        ("Equal", "i64", False),
        ("And", "boolean", False),
    ],
)
def test_what_computes_is_arithmetic_on_numbers(op, precision, computes):
    assert LayerPrecision("a layer", op, precision).computes is computes
