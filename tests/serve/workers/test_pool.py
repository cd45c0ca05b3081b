"""The pool: what one worker loses another computes, and there are always as many again."""

import itertools
import threading
import time

import numpy as np
import pytest

from fettle.core.arrays import TensorSpec
from fettle.core.errors import CheckFailed, InputError
from fettle.serve.errors import NotReady
from fettle.serve.workers import pool as module
from fettle.serve.workers.pool import Pool
from fettle.serve.workers.remote import WorkerLost

SPECS = (TensorSpec("x", "float64", (-1,)),)
DEADLY, WRONG = -1.0, -2.0


class Fake:
    """A worker that doubles; some inputs are its death, and it may be held up."""

    def __init__(self, pid=1, gate=None):
        self.inputs = self.outputs = SPECS
        self.pid, self.gate = pid, gate
        self.ended, self.closed = threading.Event(), 0

    def run(self, inputs):
        assert not self.closed
        if self.gate is not None:
            assert self.gate.wait(10)
        if inputs["x"][0] == DEADLY or self.ended.is_set():
            self.ended.set()
            raise WorkerLost("gone")
        if inputs["x"][0] == WRONG:
            raise InputError("not these")
        return {"y": inputs["x"] * 2}

    def wait(self):
        self.ended.wait()
        return -9

    def kill(self):
        self.ended.set()

    def close(self):
        self.closed += 1
        self.ended.set()


class Makes:
    """Starts fakes, and remembers them."""

    def __init__(self, refuse=(), gate=None):
        self.made, self.tries, self.refuse, self.gate = [], 0, refuse, gate

    def __call__(self):
        self.tries += 1
        if self.tries in self.refuse:
            raise CheckFailed(f"try {self.tries} doesn't start")
        self.made.append(Fake(self.tries, self.gate))
        return self.made[-1]


@pytest.fixture
def pooled(monkeypatch):
    monkeypatch.setattr(module, "_FIRST_PAUSE_S", 0.001)
    pools = []

    def make(start, count=2, **more):
        pools.append(Pool(start, count, **more))
        return pools[-1]

    yield make
    for each in pools:
        each.close()


def x(*values):
    return {"x": np.array(values)}


def until(condition):
    for _ in range(5000):
        if condition():
            return
        time.sleep(0.001)
    raise AssertionError("it didn't come to be")


def test_it_is_a_session_like_its_workers(pooled):
    pool = pooled(Makes(), 3)
    assert (pool.callers, pool.inputs, pool.outputs) == (3, SPECS, SPECS)
    np.testing.assert_array_equal(pool.run(x(1.0, 2.0))["y"], [2.0, 4.0])


def test_an_idle_worker_that_dies_is_replaced_before_it_is_asked(pooled):
    makes = Makes()
    pool = pooled(makes)
    makes.made[0].kill()
    until(lambda: len(makes.made) == 3 and len(pool.pids) == 2)
    assert pool.pids == [2, 3]
    assert pool.lost == 1
    assert makes.made[0].closed
    assert pool.run(x(1.0))["y"] == [2.0]


def test_what_a_dying_worker_was_computing_is_computed_by_another(pooled):
    gate = threading.Event()
    makes = Makes(gate=gate)
    pool = pooled(makes)
    found = []
    asking = threading.Thread(target=lambda: found.append(pool.run(x(4.0))["y"][0]))
    asking.start()
    until(lambda: len(pool._idle) == 1)
    busy = next(worker for worker in makes.made if worker not in pool._idle)
    busy.kill()
    gate.set()
    asking.join(10)
    assert found == [8.0]
    assert busy.closed


def test_a_single_worker_is_waited_for(pooled):
    makes = Makes()
    pool = pooled(makes, 1)
    makes.made[0].ended.set()
    assert pool.run(x(1.0))["y"] == [2.0]


def test_inputs_that_kill_every_worker_are_given_up_and_the_others_go_on(pooled):
    pool = pooled(Makes())
    with pytest.raises(WorkerLost):
        pool.run(x(DEADLY))
    assert pool.run(x(3.0))["y"] == [6.0]
    until(lambda: len(pool.pids) == 2)
    assert pool.lost == module._ATTEMPTS


def test_an_engine_s_error_is_the_caller_s_and_costs_no_worker(pooled):
    pool = pooled(Makes())
    for _ in range(5):
        with pytest.raises(InputError, match="not these"):
            pool.run(x(WRONG))
    assert pool.pids == [1, 2]


def test_one_that_does_not_start_again_is_tried_again(pooled):
    makes = Makes(refuse={2, 3})
    pool = pooled(makes, 1)
    makes.made[0].kill()
    until(lambda: pool.pids == [4])
    assert pool.run(x(1.0))["y"] == [2.0]


def test_without_any_worker_who_asks_is_told_to_come_again(pooled):
    pool = pooled(Makes(refuse=range(2, 10_000)), 1, patience_s=0.01)
    pool._idle[0].kill()
    until(lambda: not pool.pids)
    with pytest.raises(NotReady, match="ask again"):
        pool.run(x(1.0))


def test_all_start_or_none_is_left():
    makes, cleaned = Makes(refuse={2}), []
    with pytest.raises(CheckFailed, match="doesn't start"):
        Pool(makes, 3, cleanup=lambda: cleaned.append(True))
    assert len(makes.made) == 2
    assert all(worker.closed for worker in makes.made)
    assert cleaned == [True]


def test_closing_ends_all_and_cleans_up():
    makes, cleaned = Makes(), []
    pool = Pool(makes, 2, cleanup=lambda: cleaned.append(all(w.closed for w in makes.made)))
    pool.close()
    assert cleaned == [True]
    assert not any(keeper.is_alive() for keeper in pool._keepers)
    assert len(makes.made) == 2
    with pytest.raises(NotReady):
        pool.run(x(1.0))


def test_what_runs_while_it_closes_comes_to_its_end():
    gate = threading.Event()
    makes = Makes(gate=gate)
    pool = Pool(makes, 1)
    found = []
    asking = threading.Thread(target=lambda: found.append(pool.run(x(5.0))["y"][0]))
    asking.start()
    until(lambda: not pool._idle)
    closing = threading.Thread(target=pool.close)
    closing.start()
    until(pool._closing.is_set)
    gate.set()
    asking.join(10)
    closing.join(10)
    assert found == [10.0]
    assert makes.made[0].closed


def test_one_that_does_not_end_is_killed(monkeypatch):
    monkeypatch.setattr(module, "_FAREWELL_S", 0.05)

    class Stubborn(Fake):
        def close(self):
            self.closed += 1

    made = []
    pool = Pool(lambda: made.append(Stubborn()) or made[-1], 1)
    pool.close()
    assert made[0].ended.is_set()


def test_pauses_grow_and_end_somewhere():
    pauses = list(itertools.accumulate(range(20), lambda pause, _: module._longer(pause)))
    assert pauses == sorted(pauses)
    assert pauses[1] == module._FIRST_PAUSE_S
    assert pauses[-1] == module._LONGEST_PAUSE_S
