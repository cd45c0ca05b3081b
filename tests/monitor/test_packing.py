"""Arrays come back from an archive as they went in, text and bfloat16 too."""

import io

import ml_dtypes
import numpy as np
import pytest

from fettle.core.errors import DataError
from fettle.monitor._packing import pack, unpack

ARRAYS = {
    "float": np.array([[1.5, np.nan, -np.inf]], np.float32),
    "empty": np.zeros((0, 3), np.int64),
    "scalar": np.array(7, np.uint8),
    "half": np.array([[1.5, -2.25]], ml_dtypes.bfloat16),
    "text": np.array([["a", "ü\0"], ["", "\ud800"]], dtype=object),
    "no text": np.zeros((2, 0), dtype=object),
    "fixed": np.array(["ab", "c"]),
    "a/b: c": np.array([True]),
    "file": np.arange(4),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_comes_back(name):
    found = unpack(pack({"input": {name: ARRAYS[name]}, "output": None}))
    assert list(found) == ["input"]
    np.testing.assert_array_equal(found["input"][name], ARRAYS[name])
    assert found["input"][name].shape == ARRAYS[name].shape
    if ARRAYS[name].dtype.kind != "U":  # text of a fixed width comes back as objects
        assert found["input"][name].dtype == ARRAYS[name].dtype


def test_inputs_and_outputs_of_one_name_are_told_apart():
    found = unpack(pack({"input": {"x": np.zeros(1)}, "output": {"x": np.ones(1)}}))
    assert (found["input"]["x"][0], found["output"]["x"][0]) == (0, 1)


def test_bytes_are_text():
    found = unpack(pack({"input": {"x": np.array([b"abc"], dtype=object)}}))
    assert found["input"]["x"].tolist() == ["abc"]


def test_nothing_is_pickled():
    with pytest.raises(TypeError, match="dict"):
        pack({"input": {"x": np.array([{}], dtype=object)}})
    stream = io.BytesIO()
    np.savez(stream, **{"input/x": np.array([{}], dtype=object)})
    with pytest.raises(DataError, match="can't be read"):
        unpack(stream.getvalue())


@pytest.mark.parametrize("damage", [lambda d: d[:-30], lambda d: b"", lambda d: b"x" + d[9:]])
def test_damage_is_told(damage):
    with pytest.raises(DataError, match="damaged"):
        unpack(damage(pack({"input": {"x": np.arange(100.0)}})))
