"""The line: who is next, together with whom."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fettle.serve._line import Line, Ticket, shape_of
from fettle.serve._packing import Sizes

EIGHT = Sizes((1, 2, 4, 8))


class Waiting:
    """A fake future: nobody has given it up."""

    def __init__(self, done=False):
        self.is_done = done

    def done(self):
        return self.is_done


def ticket(rows=1, width=2, since=0.0, dtype="float32", deadline=9.0):
    return Ticket({"x": np.zeros((rows, width), dtype)}, since, deadline, Waiting())


def in_line(*tickets):
    line = Line()
    for each in tickets:
        line.add(each)
    return line


@given(st.lists(st.tuples(st.integers(1, 8), st.integers(1, 3)), max_size=30), st.booleans())
def test_all_are_served_once_the_oldest_first_and_only_with_their_like(given_, shared):
    tickets = [ticket(rows, width, since=i) for i, (rows, width) in enumerate(given_)]
    line, served = in_line(*tickets), []
    while len(line):
        oldest = min((t for t in tickets if t not in served), key=lambda t: t.since)
        batch = line.take(EIGHT, shared)
        assert batch[0] is oldest
        assert len({t.inputs["x"].shape[1] for t in batch}) == 1
        assert sum(t.rows for t in batch) <= 8
        assert shared or len(batch) == 1
        served += batch
    assert sorted(served, key=tickets.index) == tickets
    assert not any(t.waits for t in tickets)
    assert line.take(EIGHT) == []


@pytest.mark.parametrize("other", [ticket(width=3), ticket(dtype="float64")])
def test_another_shape_or_type_never_shares(other):
    assert shape_of(other.inputs) != shape_of(ticket().inputs)
    assert len(in_line(ticket(), other).take(EIGHT)) == 1


def test_one_that_gave_up_leaves_the_line():
    one, two = ticket(), ticket(since=1.0)
    line = in_line(one, two)
    line.remove(one)
    line.remove(one)
    assert len(line) == 1
    assert line.take(EIGHT) == [two]
    line.remove(two)
    assert len(line) == 0


def test_a_batch_is_due_when_it_is_full_or_its_oldest_has_waited():
    line = in_line(ticket(rows=3, since=5.0))
    assert line.due(8, 0.5) == 5.5
    line.add(ticket(rows=5, since=5.1))
    assert line.due(8, 0.5) == 5.0
    assert Line().due(8, 0.5) is None


def test_everything_can_be_dropped():
    tickets = [ticket(width=w) for w in (1, 2, 1)]
    line = in_line(*tickets)
    assert sorted(line.drop_all(), key=tickets.index) == tickets
    assert len(line) == 0
    assert line.drop_all() == []


def test_nobody_wants_what_is_late_or_given_up():
    assert ticket(deadline=2.0).wanted(1.9)
    assert not ticket(deadline=2.0).wanted(2.0)
    given_up = Ticket({"x": np.zeros((1, 1))}, 0.0, 2.0, Waiting(done=True))
    assert not given_up.wanted(1.0)


def test_what_is_larger_than_the_sizes_stays():
    line = in_line(ticket(rows=5))
    assert line.take(Sizes((1, 2))) == []
    assert len(line) == 1
