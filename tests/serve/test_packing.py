"""Batches: which requests make one, how they are put together, and who gets which rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fettle.core.errors import CheckFailed
from fettle.serve._packing import Sizes, gather, rows_of, scatter

COUNTS = st.lists(st.integers(1, 5), min_size=1, max_size=12)


def numbered(counts):
    """Requests of so many rows, all rows different."""
    ends = np.cumsum(counts)
    return [
        {"x": np.arange(end - n, end, dtype=np.float32)[:, None], "y": np.arange(end - n, end)}
        for n, end in zip(counts, ends, strict=True)
    ]


@given(COUNTS, st.integers(0, 20))
def test_everyone_gets_the_own_rows_whatever_fills_the_batch(counts, more):
    parts, size = numbered(counts), sum(counts) + more
    batch = gather(parts, size)
    assert {name: array.shape for name, array in batch.items()} == {"x": (size, 1), "y": (size,)}
    found = scatter({"out": batch["x"] * 2, "ids": batch["y"]}, counts, size)
    for part, own in zip(parts, found, strict=True):
        np.testing.assert_array_equal(own["out"], part["x"] * 2)
        np.testing.assert_array_equal(own["ids"], part["y"])


def test_what_fills_a_batch_are_real_rows():
    batch = gather([{"x": np.array([[3.0], [5.0]])}], 5)
    assert set(batch["x"].ravel()) == {3.0, 5.0}


def test_a_request_that_is_a_batch_is_not_copied():
    inputs = {"x": np.ones((4, 2), np.float32)}
    assert gather([inputs], 4) is inputs
    assert scatter(inputs, [4], 4)[0] is inputs


@pytest.mark.parametrize("shape", [(), (3, 2), (5, 2)])
def test_outputs_without_a_row_for_each_input_are_refused(shape):
    with pytest.raises(CheckFailed, match="4 rows"):
        scatter({"y": np.zeros(shape)}, [2, 2], 4)


@pytest.mark.parametrize(
    ("arrays", "rows"), [({}, 0), ({"x": np.array(1.0)}, 0), ({"x": np.ones((3, 2))}, 3)]
)
def test_rows_are_counted(arrays, rows):
    assert rows_of(arrays) == rows


def test_batches_are_filled_up_to_the_next_size():
    assert [Sizes((1, 4, 6)).padded(n) for n in range(1, 7)] == [1, 4, 4, 4, 6, 6]


def test_without_times_all_that_fits_is_taken():
    assert Sizes((1, 8)).choose([3, 3, 2, 1]) == 3
    assert Sizes((1, 8)).choose([8]) == 1
    assert Sizes((1, 8)).choose([]) == 0
    assert Sizes((1, 8)).choose([9, 1]) == 0


def test_without_sizes_requests_run_alone():
    assert Sizes().choose([7, 7]) == 1
    assert Sizes().choose([]) == 0


def test_company_that_costs_more_than_it_gains_is_left_for_the_next_batch():
    linear = Sizes((1, 2, 4, 8, 16), {n: n / 10 for n in (1, 2, 4, 8, 16)})
    assert linear.choose([1] * 9) == 1
    sublinear = Sizes((1, 8, 16), {1: 0.05, 8: 0.1, 16: 0.2})
    assert sublinear.choose([1] * 9) == 8  # 16 would be 7 rows of nothing
    assert sublinear.choose([1] * 7) == 7
    free = Sizes((1, 8, 16), {1: 0.05, 8: 0.05, 16: 0.05})
    assert free.choose([1] * 9) == 9


@given(COUNTS, st.dictionaries(st.sampled_from([1, 2, 4, 8]), st.floats(1e-5, 1)))
def test_a_batch_is_never_larger_than_the_largest_size(counts, seconds):
    sizes = Sizes((1, 2, 4, 8), seconds)
    taken = sizes.choose(counts)
    assert 1 <= taken <= len(counts)
    assert sum(counts[:taken]) <= 8


def test_quick_sizes_are_those_that_are_known_to_be():
    sizes = Sizes((1, 2, 4), {1: 1e-4, 2: 3e-4})
    assert sizes.within(2e-4).proven == (1,)
    assert sizes.within(0.0).proven == ()
