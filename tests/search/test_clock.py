"""The clock: how long a search may look, and what stops when the time is up."""

import math

import pytest

from fettle.search.clock import Clock, OutOfTime, Watched
from fettle.testing.fakes import Recorder


class Time:
    """A clock that goes when it is told."""

    def __init__(self):
        self.at = 100.0

    def __call__(self):
        return self.at


def test_without_a_limit_there_is_always_time():
    clock = Clock(None)
    assert clock.left == math.inf
    clock.check(1e9)


@pytest.mark.parametrize(("limit", "reserve"), [(600, 60), (60, 6), (3600, 120), (8, 4), (20, 5)])
def test_a_tenth_is_kept_for_the_proof(limit, reserve):
    """But 5 to 120 seconds, and never more than half."""
    now = Time()
    clock = Clock(limit, now)
    assert clock.left == limit - reserve
    now.at += limit - reserve - 1
    assert clock.left == pytest.approx(1)
    clock.check()
    now.at += 1
    assert clock.left == 0
    with pytest.raises(OutOfTime):
        clock.check()


def test_what_would_take_longer_than_is_left_is_not_begun():
    clock = Clock(60, Time())
    clock.check(54)
    with pytest.raises(OutOfTime):
        clock.check(55)


def test_long_work_is_stopped_between_two_steps():
    now = Time()
    watched = Watched(Recorder(), Clock(60, now))
    with watched.bar("train", 100) as bar:
        for _ in range(5):
            now.at += 10
            bar.step()
        now.at += 10
        with pytest.raises(OutOfTime):
            bar.step()


def test_a_lifted_limit_stops_nothing():
    now = Time()
    clock = Clock(60, now)
    clock.limit = None
    now.at += 1000
    with Watched(Recorder(), clock).bar("prove", 1) as bar:
        bar.step()
