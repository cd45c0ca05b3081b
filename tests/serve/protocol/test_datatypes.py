"""Names of types, held against those of Triton's client."""

import numpy as np
import pytest
from tritonclient.utils import np_to_triton_dtype, triton_to_np_dtype

from fettle.serve.protocol.datatypes import NUMPY, name_of


@pytest.mark.parametrize("name", NUMPY.keys() - {"BF16"})
def test_names_are_tritons(name):
    assert np.dtype(triton_to_np_dtype(name)) == NUMPY[name]
    assert np_to_triton_dtype(NUMPY[name]) == name
    assert name_of(NUMPY[name]) == name


def test_texts_are_bytes_however_numpy_holds_them():
    assert {name_of(each) for each in ("object", "U7", "S3", "bfloat16")} == {"BYTES", "BF16"}


def test_what_the_protocol_does_not_know_is_an_error():
    with pytest.raises(KeyError):
        name_of("complex64")
