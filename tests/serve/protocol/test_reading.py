"""Bodies as Triton's own client builds them are read into what it was given."""

import json

import numpy as np
import pytest
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

from fettle.serve.errors import BadRequest, TooLarge
from fettle.serve.protocol.datatypes import BINARY_ONLY, NUMPY
from fettle.serve.protocol.reading import read_infer
from fettle.serve.protocol.request import Wanted

TEXTS = np.array([["", "a", "naïve", "日本語: ✓"], ["x" * 300, "0", "\x00", '"\\']], object)


def values(datatype, rows=2):
    """Return an array of a type, with its extremes."""
    dtype = NUMPY[datatype]
    if datatype == "BYTES":
        return TEXTS[:rows]
    if datatype == "BOOL":
        return np.resize([True, False, False], (rows, 4))
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        return np.resize(np.array([info.min, info.max, 0, 1, 7], dtype), (rows, 4))
    numbers = np.random.default_rng(3).standard_normal((rows, 4))
    return numbers.astype(np.float32).astype(dtype)


def sent(datatype, array, name="x", binary=True):
    """Return what the client sends for an array."""
    tensor = InferInput(name, list(array.shape), datatype)
    if datatype == "BF16":  # the client takes float32 and cuts it
        array = array.astype(np.float32)
    return tensor.set_data_from_numpy(array, binary_data=binary)


def body_of(*inputs, **options):
    return InferenceServerClient.generate_request_body(list(inputs), **options)


@pytest.mark.parametrize("datatype", NUMPY)
def test_the_clients_binary_tensors_are_read(datatype, one_of, few):
    array = values(datatype)
    body, length = body_of(sent(datatype, array))
    request = read_infer(body, length, one_of(datatype), few)
    np.testing.assert_array_equal(request.inputs["x"], array)
    assert request.inputs["x"].dtype == NUMPY[datatype]
    assert request.inputs["x"].flags.aligned
    assert request.binary_default


@pytest.mark.parametrize("datatype", sorted(NUMPY.keys() - BINARY_ONLY))
def test_the_clients_json_tensors_are_read(datatype, one_of, few):
    array = values(datatype)
    body, length = body_of(sent(datatype, array, binary=False))
    assert length is None
    request = read_infer(body, length, one_of(datatype), few)
    np.testing.assert_array_equal(request.inputs["x"], array)
    assert request.inputs["x"].dtype == NUMPY[datatype]


def test_all_types_in_one_request_some_in_json_some_as_bytes(everything, few):
    tensors = [
        sent(name, values(name), name.lower(), binary=n % 2 == 0 or name in BINARY_ONLY)
        for n, name in enumerate(NUMPY)
    ]
    request = read_infer(*body_of(*tensors), everything, few)
    for name in NUMPY:
        np.testing.assert_array_equal(request.inputs[name.lower()], values(name))


def test_id_parameters_and_outputs_are_the_clients(everything, few):
    outputs = [
        InferRequestedOutput("fp32", binary_data=False),
        InferRequestedOutput("fp16", binary_data=True),
        InferRequestedOutput("int8", binary_data=False, class_count=3),
    ]
    tensors = [sent(name, values(name), name.lower()) for name in NUMPY]
    body, length = body_of(
        *tensors, outputs=outputs, request_id="a:1", timeout=5, parameters={"mine": "x"}
    )
    request = read_infer(body, length, everything, few)
    assert request.id == "a:1"
    assert request.parameters == {"timeout": 5, "mine": "x"}
    assert request.outputs == (
        Wanted("fp32", binary=False),
        Wanted("fp16", binary=True),
        Wanted("int8", binary=False, classification=3),
    )
    assert not request.binary_default


def test_data_may_be_nested_as_its_shape(images, few):
    array = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    for data in (array.tolist(), array.reshape(-1).tolist()):
        entry = {"name": "image", "datatype": "FP32", "shape": [2, 2, 3], "data": data}
        request = read_infer(json.dumps({"inputs": [entry]}).encode(), None, images, few)
        np.testing.assert_array_equal(request.inputs["image"], array)


def test_an_output_without_a_word_of_its_own_follows_the_request(images, few):
    entry = {"name": "image", "datatype": "FP32", "shape": [1, 2, 3], "data": [0.0] * 6}
    document = {
        "inputs": [entry],
        "outputs": [{"name": "scores"}],
        "parameters": {"binary_data_output": True},
    }
    request = read_infer(json.dumps(document).encode(), None, images, few)
    assert request.outputs == (Wanted("scores", binary=True),)


def test_a_body_without_json_is_the_models_one_input(images, few):
    array = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    body, length = InferenceServerClient.generate_request_body([sent("FP32", array, "image")])
    raw = body[length:]
    request = read_infer(raw, 0, images, few)
    np.testing.assert_array_equal(request.inputs["image"], array)
    assert request.binary_default


def test_a_body_without_json_has_to_tell_its_shape(one_of, images, everything, few):
    for body, model, said in (
        (bytes(25), images, "a multiple of 24 bytes, got 25"),
        (b"", images, "shape"),
        (bytes(24 * 9), images, "batch of 1 to 8"),
        (b"\x01\0\0\0a", one_of("BYTES"), "can't be sent without JSON"),
        (bytes(16), one_of("FP32", (-1, -1)), "can't be sent without JSON"),
        (bytes(8), one_of("FP32", (4,)), "expects 16 bytes, got 8"),
        (bytes(8), everything, "one input"),
    ):
        with pytest.raises(BadRequest, match=said):
            read_infer(body, 0, model, few)


def test_large_tensors_are_views_of_the_body(one_of, few):
    """A copy of each image would cost more than reading it."""
    body, length = body_of(sent("UINT8", np.zeros((100, 4), np.uint8)))
    array = read_infer(body, length, one_of("UINT8"), few).inputs["x"]
    assert np.shares_memory(array, np.frombuffer(body, np.uint8))


def test_a_tensor_past_the_limit_is_refused_before_its_data_are_looked_at(one_of, few):
    entry = {"name": "x", "datatype": "FP32", "shape": [10**12, 4], "data": []}
    with pytest.raises(TooLarge, match=r"at most 1000 numbers, .* has 4000000000000"):
        read_infer(json.dumps({"inputs": [entry]}).encode(), None, one_of("FP32"), few)


def test_an_infinite_half_sum_is_no_infinite_number(one_of, few):
    """The quick look at a sum may overflow although every number is finite."""
    array = np.full((2, 4), 60000, np.float16)
    request = read_infer(*body_of(sent("FP16", array)), one_of("FP16"), few)
    np.testing.assert_array_equal(request.inputs["x"], array)


@pytest.mark.parametrize("datatype", ["FP16", "BF16", "FP32", "FP64"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused(datatype, bad, one_of, few):
    array = values(datatype)
    array[1, 2] = bad
    with pytest.raises(BadRequest, match=f"finite numbers, got {bad} at element 6"):
        read_infer(*body_of(sent(datatype, array)), one_of(datatype), few)


def test_a_key_that_came_twice_is_found_though_the_parser_drops_it(images, few):
    tensor = '{"name":"image","datatype":"FP32","shape":[1,2,3],"data":[1,2,3,4,5,6]}'
    body = f'{{"id":"a","inputs":[{tensor}],"id":"b"}}'.encode()
    with pytest.raises(BadRequest, match="'id' twice"):
        read_infer(body, None, images, few)
    once = f'{{"id":"a:b","inputs":[{tensor}]}}'.encode()
    assert read_infer(once, None, images, few).id == "a:b"
