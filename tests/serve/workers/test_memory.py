"""Arrays in shared memory: what goes in comes out, whatever their types and however much grows."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from fettle.core.errors import StorageError
from fettle.serve.protocol.datatypes import NUMPY
from fettle.serve.workers.memory import SharedMemory, end_of

PLAIN = [dtype for name, dtype in NUMPY.items() if name not in ("BYTES", "BF16")]


@pytest.fixture
def sides():
    """Both ends of one memory, as two processes have them."""
    import os

    ours = SharedMemory.create()
    theirs = SharedMemory(os.dup(ours.descriptor))
    yield ours, theirs
    ours.close()
    theirs.close()


SHAPES = arrays_of.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
ARRAY = st.sampled_from(PLAIN).flatmap(lambda dtype: arrays_of.arrays(dtype, SHAPES))


@given(st.dictionaries(st.text(max_size=5), ARRAY, max_size=4))
def test_the_other_side_reads_what_was_written(given_):
    memory = SharedMemory.create()
    found = memory.read(memory.write(given_))
    assert list(found) == list(given_)
    for name, array in given_.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
        assert found[name].flags.aligned
    memory.close()


def test_texts_and_bfloat16(sides):
    ours, theirs = sides
    texts = np.array([["ä", ""], ["a longer one", "0"]], dtype=object)
    halves = np.arange(6, dtype=np.float32).astype(ml_dtypes.bfloat16).reshape(2, 3)
    found = theirs.read(ours.write({"t": texts, "h": halves}))
    assert found["t"].tolist() == texts.tolist()
    np.testing.assert_array_equal(found["h"], halves)


def test_what_is_not_contiguous_is_laid_out_row_by_row(sides):
    ours, theirs = sides
    array = np.arange(24.0).reshape(2, 3, 4).transpose(2, 0, 1)[::2]
    np.testing.assert_array_equal(theirs.read(ours.write({"x": array}))["x"], array)


def test_it_grows_on_either_side(sides):
    ours, theirs = sides
    small, large = np.ones(4), np.arange(1 << 17, dtype=np.float64)
    first = ours.write({"x": small})
    kept = theirs.read(first)["x"]
    answer = theirs.write({"y": large}, after=end_of(first))
    np.testing.assert_array_equal(ours.read(answer)["y"], large)
    np.testing.assert_array_equal(kept, small)  # outputs lie behind the inputs
    np.testing.assert_array_equal(theirs.read(ours.write({"x": large * 2}))["x"], large * 2)


def test_nothing_is_copied_by_the_reader(sides):
    ours, theirs = sides
    view = theirs.read(ours.write({"x": np.zeros(3)}))["x"]
    ours.write({"x": np.ones(3)})
    np.testing.assert_array_equal(view, np.ones(3))


def test_more_than_the_system_has_is_refused_in_words(sides, monkeypatch):
    def full(*given):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(StorageError, match="--max-batch"):
        sides[0].write({"x": np.zeros(3)})


def test_the_end_of_nothing_is_the_start():
    assert end_of([]) == 0
