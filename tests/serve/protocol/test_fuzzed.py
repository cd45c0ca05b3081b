"""Well-formed requests with a few bytes changed are read or refused, and raise nothing else."""

import contextlib

import numpy as np
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

from fettle.core.arrays import TensorSpec
from fettle.serve.errors import BadRequest, TooLarge
from fettle.serve.protocol.reading import read_infer
from fettle.serve.protocol.signature import Signature
from fettle.serve.settings import Limits

LIMITS = Limits(tensor_elements=1000)
SIGNATURE = Signature(
    (TensorSpec("x", "float32", (-1, 3)), TensorSpec("t", "object", (-1, 1))),
    (TensorSpec("y", "float32", (-1, 2)),),
    max_batch=4,
)
PIECES = (b'"', b"{", b"}", b"[", b"]", b":", b",", b"-", b"0", b"9" * 30, b"null", b"\\u0000")


def request(binary):
    x = InferInput("x", [2, 3], "FP32")
    x.set_data_from_numpy(np.ones((2, 3), np.float32), binary_data=binary)
    t = InferInput("t", [2, 1], "BYTES")
    t.set_data_from_numpy(np.array([["a"], ["bc"]], object), binary_data=binary)
    outputs = [InferRequestedOutput("y", class_count=1)]
    return InferenceServerClient.generate_request_body(
        [x, t], outputs=outputs, request_id="r", parameters={"a": "b"}
    )


REQUESTS = (request(True), request(False))
EDITS = st.lists(
    st.tuples(
        st.integers(0, 600),
        st.integers(0, 12),
        st.one_of(st.binary(max_size=6), st.sampled_from(PIECES)),
    ),
    min_size=1,
    max_size=4,
)


@seed(8)
@settings(max_examples=600, deadline=None, database=None)
@given(which=st.sampled_from(REQUESTS), edits=EDITS, lie=st.integers(-3, 3))
def test_nothing_but_a_refusal_is_raised(which, edits, lie):
    body, length = which
    for place, cut, piece in edits:
        at = place % (len(body) + 1)
        body = body[:at] + piece + body[at + cut :]
    with contextlib.suppress(BadRequest, TooLarge):
        found = read_infer(body, length and length + lie, SIGNATURE, LIMITS)
        assert SIGNATURE.check(found.inputs) <= 4


def test_what_is_changed_was_well_formed():
    for body, length in REQUESTS:
        assert read_infer(body, length, SIGNATURE, LIMITS).id == "r"
