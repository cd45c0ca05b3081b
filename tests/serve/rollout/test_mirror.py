"""Answering a sample again, beside the requests."""

import itertools
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from tests.serve.rollout.waiting import until

from fettle.serve.rollout import _mirror
from fettle.serve.rollout._mirror import Mirror, MirrorLimits, run_alone

ALL = MirrorLimits(sample=1.0, busy=1.0)


@pytest.fixture
def mirror():
    """Make mirrors, and close them."""
    made = []

    def make(other, took=lambda mirrored: None, limits=ALL):
        made.append(Mirror(other, took, limits))
        return made[-1]

    yield make
    for each in made:
        each.close(0.5)


def test_answers_come_with_what_was_answered(mirror, fake, seen):
    took, model = [], fake("two", lambda x: 2 * x)
    m = mirror(lambda _: model, took.append)
    m.tell(seen(1))
    until(lambda: took)
    assert (took[0].seen.id, took[0].model, took[0].error) == ("r1", model, None)
    np.testing.assert_array_equal(took[0].outputs["y"], 2 * took[0].seen.inputs["x"])


def test_a_sample_is_taken_by_id(mirror, fake, seen):
    m = mirror(lambda _: None, limits=MirrorLimits(sample=0.2, busy=1.0, most=10_000))
    for number in range(2000):
        m.tell(seen(number))
    assert 330 < m.taken < 470
    again = mirror(lambda _: None, limits=MirrorLimits(sample=0.2, busy=1.0, most=10_000))
    for number in range(2000):
        again.tell(seen(number))
    assert again.taken == m.taken


def test_failed_requests_are_not_asked_again(mirror, seen):
    m = mirror(lambda _: None)
    m.tell(seen(outputs=None, error=ValueError()))
    assert m.taken == m.dropped == 0


def test_one_that_hangs_costs_its_queue_and_nothing_else(mirror, fake, seen, monkeypatch):
    go, asked = threading.Event(), threading.Event()

    def hang(x):
        asked.set()
        go.wait(20)
        return x

    m = mirror(lambda _: fake("two", hang), limits=MirrorLimits(1.0, 1.0, most=3))
    m.tell(seen(0))
    assert asked.wait(10)
    assert not m.hangs
    monkeypatch.setattr(_mirror, "HANGS_S", 0.0)
    for number in range(10):
        m.tell(seen(number))
    assert m.hangs
    assert (m.taken, m.dropped) == (4, 7)
    go.set()
    until(lambda: m.done == 4)
    assert not m.hangs


def test_the_queue_is_bounded_in_bytes(mirror, fake, seen):
    go = threading.Event()

    def hang(x):
        go.wait(20)
        return x

    size = 2 * 3 * 4  # x and y
    m = mirror(lambda _: fake("two", hang), limits=MirrorLimits(1.0, 1.0, most_bytes=2 * size))
    m.tell(seen(0))
    until(lambda: not m._waiting)
    for number in range(5):
        m.tell(seen(number))
    assert (m.taken, m.dropped) == (3, 3)
    go.set()
    until(lambda: m.done == 3)
    m.tell(seen(9))
    until(lambda: m.done == 4)


def test_failures_are_told_and_do_not_end_it(mirror, fake, seen):
    took = []

    def fail(x):
        raise RuntimeError("an engine's own")

    m = mirror(lambda _: fake("two", fail), took.append)
    for number in range(3):
        m.tell(seen(number))
    until(lambda: m.done == 3)
    assert m.failed == 3
    assert [type(each.error) for each in took] == [RuntimeError] * 3
    assert [each.outputs for each in took] == [None] * 3


def test_who_is_told_may_fail_too(mirror, fake, seen):
    def took(_):
        raise ValueError

    m = mirror(lambda _: fake("two"), took)
    for number in range(3):
        m.tell(seen(number))
    until(lambda: m.done == 3)
    assert m.failed == 3


def test_it_rests_so_as_to_keep_its_share(mirror, fake, seen, monkeypatch):
    rests = []
    m = mirror(lambda _: fake("two"), limits=MirrorLimits(1.0, 0.2))
    monkeypatch.setattr(m._stop, "wait", rests.append)
    clock = SimpleNamespace(monotonic=itertools.count().__next__)
    monkeypatch.setattr(_mirror, "time", clock)
    m.tell(seen())
    until(lambda: rests)
    assert rests == [pytest.approx(3 * 4)]  # 3 s at 20 % of the time


def test_closed_ones_take_nothing(mirror, seen):
    m = mirror(lambda _: None)
    m.close()
    m.tell(seen())
    assert (m.taken, m.dropped) == (0, 1)
    assert not m._thread.is_alive()


@pytest.mark.parametrize(("sizes", "ran"), [((), 2), ((1, 2), 2), ((1, 4), 4), ((1,), 2)])
def test_requests_run_at_proven_sizes_where_one_fits(fake, sizes, ran):
    model, x = fake("one", sizes=sizes), np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(run_alone(model, {"x": x})["y"], x)
    assert model.rows == [ran]
