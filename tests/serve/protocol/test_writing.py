"""Bodies that we write are read by Triton's own client into what the model gave."""

import json

import ml_dtypes
import numpy as np
import pytest
from tritonclient.http import InferenceServerClient

from fettle.serve.errors import Broken
from fettle.serve.protocol.datatypes import BINARY_ONLY, NUMPY
from fettle.serve.protocol.request import InferResponse, Wanted
from fettle.serve.protocol.writing import write_infer


def response(outputs, **more):
    return InferResponse("net", "3", "r-1", outputs, **more)


def parsed(response):
    """Return what the client reads."""
    body, length = write_infer(response)
    return InferenceServerClient.parse_response_body(body, header_length=length)


def outputs():
    """Return an array of each type."""
    rng = np.random.default_rng(5)
    found = {
        name: rng.integers(0, 100, (2, 3)).astype(dtype)
        for name, dtype in NUMPY.items()
        if name != "BYTES"
    }
    found["FP32"] = rng.standard_normal((2, 3)).astype(np.float32)
    found["BF16"] = rng.standard_normal((2, 3)).astype(ml_dtypes.bfloat16)
    return found | {"BYTES": np.array([["", "naïve", "c"], ["日本", "e:f", '"']], object)}


def expected(array):
    """Return what the client makes of an array: texts are bytes to it, bfloat16 is float32."""
    if array.dtype == object:
        return np.array([[text.encode() for text in row] for row in array], object)
    return array.astype(np.float32) if array.dtype == ml_dtypes.bfloat16 else array


def test_binary_answers_are_read_by_the_client():
    given = outputs()
    wanted = tuple(Wanted(name, binary=True) for name in given)
    found = parsed(response(given, wanted=wanted))
    for name, array in given.items():
        np.testing.assert_array_equal(found.as_numpy(name), expected(array))
        assert found.get_output(name)["datatype"] == name


def test_json_answers_are_read_by_the_client():
    given = {name: array for name, array in outputs().items() if name not in BINARY_ONLY}
    found = parsed(response(given))
    for name, array in given.items():
        np.testing.assert_array_equal(found.as_numpy(name), array)
    document = found.get_response()
    assert (document["model_name"], document["model_version"]) == ("net", "3")
    assert document["id"] == "r-1"


def test_some_as_json_some_as_bytes_in_the_order_that_was_asked():
    given = outputs()
    wanted = (Wanted("INT8", binary=True), Wanted("FP64"), Wanted("BYTES", binary=True))
    found = parsed(response(given, wanted=wanted))
    assert [each["name"] for each in found.get_response()["outputs"]] == ["INT8", "FP64", "BYTES"]
    for each in wanted:
        np.testing.assert_array_equal(found.as_numpy(each.name), expected(given[each.name]))


def test_arrays_that_lie_otherwise_in_memory_are_written_row_by_row():
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    for given in (array.T, array[:, ::2], array[::-1]):
        for binary in (True, False):
            found = parsed(response({"y": given}, wanted=(Wanted("y", binary=binary),)))
            np.testing.assert_array_equal(found.as_numpy("y"), given)


def test_numbers_keep_every_bit_in_json():
    array = np.random.default_rng(1).standard_normal((1, 1000)).astype(np.float32)
    np.testing.assert_array_equal(parsed(response({"y": array})).as_numpy("y"), array)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_json_cannot_carry_is_told_and_bytes_carry_it(bad):
    array = np.array([[1.0, bad]], np.float32)
    with pytest.raises(Broken, match="binary"):
        write_infer(response({"y": array}))
    found = parsed(response({"y": array}, wanted=(Wanted("y", binary=True),)))
    np.testing.assert_array_equal(found.as_numpy("y"), array)


@pytest.mark.parametrize("binary", [True, False])
def test_the_highest_classes(binary):
    scores = np.array([[0.1, 0.7, 0.2], [0.5, 0.25, 0.25]], np.float32)
    wanted = (Wanted("y", binary=binary, classification=2),)
    found = parsed(response({"y": scores}, wanted=wanted, labels=("a", "b", "c"))).as_numpy("y")
    texts = [[each.decode() if binary else each for each in row] for row in found]
    assert texts == [["0.700000:1:b", "0.200000:2:c"], ["0.500000:0:a", "0.250000:1:b"]]


def test_parameters_go_with_the_answer():
    body, _ = write_infer(response({}, parameters={"shadow": True}))
    assert json.loads(body)["parameters"] == {"shadow": True}
