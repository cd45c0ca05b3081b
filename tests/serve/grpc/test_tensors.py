"""Requests as messages of Triton's classes, read into arrays."""

import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from fettle.core.arrays import TensorSpec
from fettle.serve.errors import BadRequest, TooLarge
from fettle.serve.grpc.messages import message
from fettle.serve.grpc.tensors import read_request, write_response
from fettle.serve.protocol.datatypes import BINARY_ONLY, NUMPY
from fettle.serve.protocol.request import InferResponse
from fettle.serve.protocol.signature import Signature
from fettle.serve.settings import Limits

CONTENTS = {
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    **{name: f"{name.lower()}_contents" for name in ("BOOL", "INT64", "UINT64", "BYTES")},
    **{name: f"{name.lower()}_contents" for name in ("FP32", "FP64")},
}


def read(asked, datatype, **limits):
    """Return what is read of a message of Triton's, for a model with one input."""
    mine = message("ModelInferRequest").FromString(asked.SerializeToString())
    spec = TensorSpec("x", str(NUMPY[datatype]), (-1, 4))
    return read_request(mine, Signature((spec,), (spec,)), Limits(**limits))


def asked(datatype, shape=(1, 4), raw=None, **contents):
    found = service_pb2.ModelInferRequest(model_name="m")
    tensor = found.inputs.add(name="x", datatype=datatype, shape=shape)
    for field, values in contents.items():
        getattr(tensor.contents, field).extend(values)
    if raw is not None:
        found.raw_input_contents.append(raw)
    return found


def test_there_is_a_place_for_each_type_but_those_that_are_always_raw():
    assert CONTENTS.keys() == NUMPY.keys() - BINARY_ONLY


@pytest.mark.parametrize(("datatype", "field"), CONTENTS.items())
def test_typed_contents_are_read(datatype, field, values):
    array = values(datatype, 1)
    flat = array.reshape(-1).tolist()
    sent = [text.encode() for text in flat] if datatype == "BYTES" else flat
    found = read(asked(datatype, **{field: sent}), datatype).inputs["x"]
    np.testing.assert_array_equal(found, array)
    assert found.dtype == NUMPY[datatype]


ZEROS = [0.0] * 4


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (asked("FP32"), "`raw_input_contents` or `fp32_contents`, got none"),
        (asked("FP32", fp64_contents=ZEROS), "got `fp64_contents`"),
        (asked("FP32", fp32_contents=ZEROS, int_contents=[1]), "`int_contents`, `fp32_contents`"),
        (asked("FP32", fp32_contents=ZEROS[:3]), "expects 4 values .* got 3"),
        (asked("FP32", raw=bytes(16), fp32_contents=ZEROS), "`fp32_contents`, got both"),
        (asked("FP32", raw=bytes(15)), "expects 16 bytes .* got 15"),
        (asked("FP32", shape=(-1, 4), raw=bytes(16)), "expects sizes from 0"),
        (asked("FP32", shape=(2**62, 4), raw=bytes(16)), "at most"),
        (asked("FP32", shape=(0, 4), raw=b""), "expects the shape"),
        (asked("FP32", fp32_contents=[1, float("nan"), 0, 0]), "finite numbers, got nan"),
        (asked("", raw=bytes(16)), "expects the datatype FP32, got ''"),
    ],
)
def test_what_is_malformed_is_refused(given, said):
    with pytest.raises((BadRequest, TooLarge), match=said):
        read(given, "FP32")


def test_values_out_of_a_types_range_are_refused():
    with pytest.raises(BadRequest, match="INT8, -128 to 127, got 128 at element 2"):
        read(asked("INT8", int_contents=[0, 1, 128, 0]), "INT8")
    with pytest.raises(BadRequest, match="UINT16, 0 to 65535, got 65536"):
        read(asked("UINT16", uint_contents=[0, 1, 65536, 0]), "UINT16")


def test_half_precision_is_raw_or_nothing():
    for datatype in BINARY_ONLY:
        with pytest.raises(BadRequest, match="raw_input_contents"):
            read(asked(datatype, fp32_contents=ZEROS), datatype)


def test_texts_are_utf8():
    with pytest.raises(BadRequest, match="UTF-8"):
        read(asked("BYTES", bytes_contents=[b"", b"\xff", b"", b""]), "BYTES")


def test_raw_tensors_are_one_for_each_input():
    extra = asked("FP32", raw=bytes(16))
    extra.raw_input_contents.append(b"")
    with pytest.raises(BadRequest, match="one for each of the 1 inputs"):
        read(extra, "FP32")


def test_parameters_have_values_and_shared_memory_is_not_offered():
    empty = asked("FP32", raw=bytes(16))
    empty.parameters["odd"].SetInParent()
    with pytest.raises(BadRequest, match="'odd' expects a value"):
        read(empty, "FP32")
    for holder in ("inputs", "outputs"):
        shared = asked("FP32", raw=bytes(16))
        shared.outputs.add(name="x")
        getattr(shared, holder)[0].parameters["shared_memory_region"].string_param = "r"
        with pytest.raises(BadRequest, match="shared memory isn't offered"):
            read(shared, "FP32")


def test_parameters_of_an_answer_keep_their_types():
    given = {"a": True, "b": -2, "c": 0.5, "d": "x"}
    found = write_response(InferResponse("m", "1", "i", {}, given))
    theirs = service_pb2.ModelInferResponse.FromString(found.SerializeToString())
    read_back = {
        name: getattr(value, value.WhichOneof("parameter_choice"))
        for name, value in theirs.parameters.items()
    }
    assert read_back == given
