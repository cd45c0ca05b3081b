"""The same calls over gRPC to this server and to a real Triton, through Triton's own client."""

from queue import SimpleQueue

import numpy as np
import pytest
import tritonclient.grpc as triton
from google.protobuf import json_format
from tests.serve.differential.test_rest import TYPES, missing

ABSENT = {
    "/config/version_policy": "one version of a bundle's name answers, unless another is asked for",
}
"""Fields of Triton's messages that ours don't have, and why."""


@pytest.fixture(scope="module")
def clients(pair):
    made = [
        triton.InferenceServerClient(f"127.0.0.1:{each.grpc}") for each in (pair.ours, pair.triton)
    ]
    yield made
    for client in made:
        client.close()


@pytest.fixture(scope="module")
def rows(bundles):
    return bundles["digits"].golden()[0]["input"]


def tensor(array, datatype="FP32", name="input"):
    found = triton.InferInput(name, list(array.shape), datatype)
    return found.set_data_from_numpy(array)


def told(clients, ask):
    """Return what each answers, or the name of the status with which it refuses."""
    found = []
    for client in clients:
        try:
            found.append(ask(client))
        except triton.InferenceServerException as error:
            found.append(error.status())
    return found


def plain(message):
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


@pytest.mark.parametrize("count", [1, 3, 8])
def test_both_answer_with_the_same_numbers(clients, rows, count):
    some = np.concatenate([rows] * 2)[:count]
    ours, theirs = told(clients, lambda c: c.infer("digits", [tensor(some)], request_id="mine"))
    np.testing.assert_allclose(
        ours.as_numpy("logits"), theirs.as_numpy("logits"), rtol=1e-5, atol=1e-6
    )
    assert missing(plain(theirs.get_response()), plain(ours.get_response())) == []
    assert ours.get_response().id == theirs.get_response().id == "mine"


def test_every_type_comes_back_as_it_went(clients):
    tensors = [tensor(array, name.upper(), name) for name, array in TYPES.items()]
    for answer in told(clients, lambda c: c.infer("types", tensors)):
        for name, array in TYPES.items():
            found = answer.as_numpy(f"{name}_out")
            assert found.dtype == array.dtype
            np.testing.assert_array_equal(found, array)


def test_classes_are_written_alike(clients, rows):
    wanted = [triton.InferRequestedOutput("logits", class_count=3)]
    ours, theirs = told(clients, lambda c: c.infer("digits", [tensor(rows[:2])], outputs=wanted))
    np.testing.assert_array_equal(ours.as_numpy("logits"), theirs.as_numpy("logits"))


@pytest.mark.parametrize(
    "ask",
    [
        lambda c: c.is_server_live(),
        lambda c: c.is_server_ready(),
        lambda c: c.is_model_ready("digits"),
        lambda c: c.is_model_ready("other"),
        lambda c: c.is_model_ready("digits", "7"),
    ],
)
def test_both_are_as_ready(clients, ask):
    ours, theirs = told(clients, ask)
    assert ours == theirs


@pytest.mark.parametrize(
    "ask",
    [
        lambda c: c.get_server_metadata(),
        lambda c: c.get_model_metadata("digits"),
        lambda c: c.get_model_metadata("types", "1"),
        lambda c: c.get_model_config("digits"),
        lambda c: c.get_inference_statistics("digits"),
        lambda c: c.get_model_repository_index(),
    ],
)
def test_both_describe_the_same(clients, ask):
    ours, theirs = (plain(each) for each in told(clients, ask))
    assert [each for each in missing(theirs, ours) if each not in ABSENT] == []


def test_the_shapes_and_types_of_a_model_are_the_same(clients):
    ours, theirs = (plain(each) for each in told(clients, lambda c: c.get_model_metadata("types")))
    assert (ours["inputs"], ours["outputs"]) == (theirs["inputs"], theirs["outputs"])


@pytest.mark.parametrize(
    ("what", "ask"),
    [
        ("INVALID_ARGUMENT", lambda c, x: c.infer("digits", [tensor(x, name="other")])),
        ("INVALID_ARGUMENT", lambda c, x: c.infer("digits", [tensor(x[:, :, :4])])),
        (
            "INVALID_ARGUMENT",
            lambda c, x: c.infer("digits", [tensor(np.zeros((9, 1, 8, 8), "f4"))]),
        ),
        ("INVALID_ARGUMENT", lambda c, x: c.infer("digits", [tensor(x.astype("f8"), "FP64")])),
        ("INVALID_ARGUMENT", lambda c, x: c.infer("digits", [tensor(x), tensor(x, name="more")])),
        (
            "INVALID_ARGUMENT",
            lambda c, x: c.infer(
                "digits", [tensor(x)], outputs=[triton.InferRequestedOutput("no")]
            ),
        ),
        ("NOT_FOUND", lambda c, x: c.infer("other", [tensor(x)])),
        ("NOT_FOUND", lambda c, x: c.infer("digits", [tensor(x)], model_version="7")),
        ("NOT_FOUND", lambda c, x: c.get_model_metadata("other")),
        ("NOT_FOUND", lambda c, x: c.get_model_config("other")),
    ],
)
def test_both_refuse_the_same(clients, rows, what, ask):
    ours, theirs = told(clients, lambda c: ask(c, rows[:1]))
    assert (ours, theirs) == (f"StatusCode.{what}",) * 2


def test_a_stream_answers_each_request_in_its_turn(clients, rows):
    for client in clients:
        answers = SimpleQueue()
        client.start_stream(lambda result, error, put=answers.put: put((result, error)))
        for number in range(3):
            name = "digits" if number != 1 else "other"
            client.async_stream_infer(name, [tensor(rows[:1])], request_id=str(number))
        client.stop_stream()
        found = [answers.get(timeout=30) for _ in range(3)]
        assert [error is None for _, error in found] == [True, False, True]
