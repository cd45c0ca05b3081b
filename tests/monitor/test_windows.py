"""Windows hold each row once, in order, and never more than they may."""

import numpy as np
import pytest

from fettle.core.errors import InputError
from fettle.monitor.frame import Frame
from fettle.monitor.log import open_log
from fettle.monitor.windows import by_count, by_time

SECOND = 10**9


def frames(times, lengths=(7,)):
    """Cut rows at these times into frames, of these lengths in turn; a row's batch is its place."""
    times = np.asarray(times, dtype=np.int64)
    start, turn = 0, 0
    while start < len(times):
        stop = start + lengths[turn % len(lengths)]
        places = np.arange(start, min(stop, len(times)), dtype=np.float64)
        yield Frame({"time": times[start:stop], "batch": places}, {})
        start, turn = stop, turn + 1


def places(window):
    return window.frame["batch"].tolist()


@pytest.mark.parametrize("lengths", [(1,), (7,), (3, 50, 1), (1000,)])
def test_by_time_agrees_with_grouping_all_at_once(lengths):
    times = np.sort(np.random.default_rng(0).integers(0, 60 * SECOND, 500))
    found = {w.start: places(w) for w in by_time(frames(times, lengths), 7)}
    numbers = times // (7 * SECOND)
    expected = {int(k) * 7 * SECOND: np.flatnonzero(numbers == k).tolist() for k in set(numbers)}
    assert found == expected


def test_a_window_by_time_says_where_it_lies_and_empty_ones_are_left_out():
    times = [5 * SECOND, 9 * SECOND, 10**7 * SECOND]
    first, second = by_time(frames(times), 10)
    assert (first.start, first.stop, first.n) == (0, 10 * SECOND, 2)
    assert (second.start, second.n) == (10**7 * SECOND, 1)


def test_times_before_the_epoch():
    (window,) = by_time(frames([-5, -3]), 1)
    assert (window.start, window.stop) == (-SECOND, 0)


@pytest.mark.parametrize("lengths", [(1,), (7,), (3, 50, 1), (1000,)])
@pytest.mark.parametrize("count", [1, 10, 33, 100, 1000])
def test_by_count(lengths, count):
    found = list(by_count(frames(range(100), lengths), count))
    assert [place for window in found for place in places(window)] == list(range(100))
    assert {window.n for window in found[:-1]} <= {count}
    assert (found[0].start, found[-1].stop) == (0, 99)
    whole = list(by_count(frames(range(100), lengths), count, last=False))
    assert len(whole) == 100 // count


def test_a_window_of_one_row():
    assert [places(w) for w in by_time(frames([3]), 60)] == [[0]]
    assert [places(w) for w in by_count(frames([3]), 1)] == [[0]]


def test_no_rows_no_windows():
    assert list(by_time(frames([]), 60)) == []
    assert list(by_count(frames([]), 60)) == []


def test_a_large_window_is_a_uniform_sample_of_its_rows():
    hits = np.zeros(1000)
    for seed in range(200):
        (window,) = by_time(frames(range(1000), (70,)), 1, most=50, seed=seed)
        assert window.n == 1000
        found = places(window)
        assert len(found) == 50
        assert found == sorted(found)
        hits[np.int64(found)] += 1
    # each row is in 10 of 200 samples: binomial, of which chi-squared of 1000 rows is about 1000
    chi_squared = ((hits - 10) ** 2 / (10 * 0.95)).sum()
    assert 850 < chi_squared < 1150


def test_rows_out_of_order_are_refused():
    with pytest.raises(InputError, match="order of time"):
        list(by_time(frames([3, 2]), 1))
    with pytest.raises(InputError, match="order of time"):
        list(by_count(frames([1, 3, 2], (2,)), 1))


def test_a_log_whose_clock_went_backwards_has_windows_too(written, make):
    path = written([make(at % 50, id=str(at)) for at in range(100)])
    with open_log(path) as log:
        found = list(by_time(log.frames(["id"]), 0.01))
    assert [window.n for window in found] == [20] * 5
    assert {*found[0].frame["id"]} == {str(at + 50 * back) for at in range(10) for back in (0, 1)}


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), 1e12])
def test_a_length_that_is_none(seconds):
    with pytest.raises(InputError, match="seconds"):
        list(by_time(frames([1]), seconds))


def test_a_number_that_is_none():
    with pytest.raises(InputError, match="count"):
        list(by_count(frames([1]), 0))
    with pytest.raises(InputError, match="most"):
        list(by_time(frames([1]), 1, most=0))
