"""The batcher: everyone gets the own rows, whatever the load, the errors and the deadlines."""

import asyncio
import random
import threading
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fettle.core.errors import InputError
from fettle.serve._packing import Sizes
from fettle.serve.batcher import Batcher, BatchLimits
from fettle.serve.errors import BadRequest, Broken, Busy, Late, NotReady

EIGHT = Sizes((1, 2, 4, 8))
QUICK = Sizes((1, 2, 4, 8), dict.fromkeys((1, 2, 4, 8), 1e-5))
THREADS = BatchLimits(inline_s=0.0)


class Engine:
    """A fake engine: doubles its rows, may be held up, and refuses rows of -1."""

    def __init__(self, held=False):
        self.batches, self.threads = [], set()
        self.gate = threading.Event()
        if not held:
            self.gate.set()

    def __call__(self, inputs):
        x = inputs["x"]
        self.batches.append(x.copy())
        self.threads.add(threading.current_thread())
        assert self.gate.wait(10)
        if (x == -1).any():
            raise RuntimeError("this row is poison")
        return {"y": x * 2, "sum": x.sum(axis=1)}


def rows(*values, width=2):
    return {"x": np.repeat(np.array(values, np.float64)[:, None], width, axis=1)}


def soon(seconds=20.0):
    return time.monotonic() + seconds


async def until(condition):
    while not condition():
        await asyncio.sleep(0.001)


def served(engine, work, sizes=EIGHT, limits=THREADS, **more):
    """Run `work(batcher)` on a loop of its own, and close the batcher."""

    async def main():
        batcher = Batcher(engine, sizes, limits, **more)
        try:
            return await asyncio.wait_for(work(batcher), 20)
        finally:
            batcher.close()

    return asyncio.run(main())


REQUESTS = st.lists(
    st.tuples(st.integers(1, 8), st.integers(1, 3), st.integers(0, 3)), min_size=1, max_size=40
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(REQUESTS, st.sampled_from([1, 3]), st.sampled_from([EIGHT, QUICK, Sizes()]), st.booleans())
def test_everyone_gets_exactly_the_own_rows(requests, callers, sizes, shared):
    numbers = iter(range(10_000))

    async def one(batcher, n, width, pause):
        for _ in range(pause):
            await asyncio.sleep(0)
        inputs = rows(*(next(numbers) for _ in range(n)), width=width)
        answer = await batcher.infer(inputs, soon())
        np.testing.assert_array_equal(answer.outputs["y"], inputs["x"] * 2)
        np.testing.assert_array_equal(answer.outputs["sum"], inputs["x"].sum(axis=1))

    async def work(batcher):
        await asyncio.gather(*(one(batcher, *request) for request in requests))
        assert batcher.held == 0

    engine = Engine()
    served(engine, work, sizes, BatchLimits(callers=callers, shared=shared))
    if sizes.proven:
        assert {len(batch) for batch in engine.batches} <= set(sizes.proven)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.sampled_from([-1, 1, 2, 3]), min_size=1, max_size=12))
def test_poison_fails_alone(values):
    async def work(batcher):
        asked = (batcher.infer(rows(value), soon()) for value in values)
        return await asyncio.gather(*asked, return_exceptions=True)

    found = served(Engine(), work)
    for value, answer in zip(values, found, strict=True):
        if value == -1:
            assert isinstance(answer, Broken)
            assert "poison" not in str(answer)
            assert isinstance(answer.__cause__, RuntimeError)
        else:
            np.testing.assert_array_equal(answer.outputs["y"], [[2 * value] * 2])


def test_a_batch_takes_what_waits_and_nothing_waits_for_it():
    engine = Engine(held=True)

    async def work(batcher):
        first = asyncio.ensure_future(batcher.infer(rows(0), soon()))
        await until(lambda: engine.batches)
        rest = [asyncio.ensure_future(batcher.infer(rows(i), soon())) for i in range(1, 6)]
        await asyncio.sleep(0.01)
        engine.gate.set()
        return await asyncio.gather(first, *rest)

    found = served(engine, work)
    assert [len(batch) for batch in engine.batches] == [1, 8]
    assert [answer.timing.batch for answer in found] == [1, 5, 5, 5, 5, 5]
    assert found[1].timing.queue_s >= 0.01


def test_with_a_delay_the_engine_waits_for_company():
    engine = Engine()

    async def work(batcher):
        first = asyncio.ensure_future(batcher.infer(rows(0), soon()))
        await asyncio.sleep(0.02)
        assert not engine.batches
        await asyncio.gather(first, batcher.infer(rows(*range(1, 8)), soon()))

    served(engine, work, limits=BatchLimits(delay_s=5.0))
    assert [len(batch) for batch in engine.batches] == [8]


def test_a_lone_request_is_answered_when_the_delay_is_over():
    async def work(batcher):
        return await batcher.infer(rows(1), soon())

    assert served(Engine(), work, limits=BatchLimits(delay_s=0.01)).timing.queue_s >= 0.01


def test_a_run_that_is_quick_is_made_on_the_loop():
    engine = Engine()

    async def work(batcher):
        await asyncio.gather(*(batcher.infer(rows(i), soon()) for i in range(20)))

    served(engine, work, QUICK, BatchLimits())
    assert engine.threads == {threading.main_thread()}


def test_several_threads_run_at_once():
    engine, both = Engine(), threading.Barrier(2)

    def run(inputs):
        both.wait(10)
        return engine(inputs)

    async def work(batcher):
        await asyncio.gather(*(batcher.infer(rows(i, width=i), soon()) for i in (1, 2)))

    served(run, work, limits=BatchLimits(callers=2, inline_s=0.0))
    assert len(engine.threads) == 2


def test_past_the_cap_a_request_is_told_when_to_come_again():
    engine = Engine(held=True)

    async def work(batcher):
        held = [asyncio.ensure_future(batcher.infer(rows(i), soon())) for i in range(3)]
        await until(lambda: engine.batches)
        with pytest.raises(Busy) as caught:
            await batcher.infer(rows(9), soon())
        assert caught.value.retry_after >= 1
        engine.gate.set()
        await asyncio.gather(*held)
        assert (await batcher.infer(rows(9), soon())).outputs["y"][0, 0] == 18

    served(engine, work, limits=BatchLimits(queue=3, inline_s=0.0))


def test_what_is_late_before_its_turn_is_never_run():
    engine = Engine(held=True)

    async def work(batcher):
        first = asyncio.ensure_future(batcher.infer(rows(0), soon()))
        await until(lambda: engine.batches)
        with pytest.raises(Late):
            await batcher.infer(rows(1), soon(0.01))
        with pytest.raises(Late):
            await batcher.infer(rows(2), soon(-1.0))
        assert batcher.held == 1
        engine.gate.set()
        await first
        await batcher.infer(rows(3), soon())

    served(engine, work)
    assert [batch[0, 0] for batch in engine.batches] == [0, 3]


def test_a_deadline_ends_the_wait_for_an_engine_that_hangs():
    engine = Engine(held=True)

    async def work(batcher):
        with pytest.raises(Late):
            await batcher.infer(rows(0), soon(0.02))
        assert batcher.held == 0
        engine.gate.set()
        assert (await batcher.infer(rows(4), soon())).outputs["y"][0, 0] == 8

    served(engine, work)


def test_the_clock_may_stand_past_a_deadline_that_no_timer_has_seen():
    now = [0.0]
    engine = Engine(held=True)

    async def work(batcher):
        first = asyncio.ensure_future(batcher.infer(rows(0), 100.0))
        await until(lambda: engine.batches)
        second = asyncio.ensure_future(batcher.infer(rows(1), 50.0))
        await asyncio.sleep(0.01)
        now[0] = 60.0
        engine.gate.set()
        await first
        with pytest.raises(Late):
            await second

    served(engine, work, clock=lambda: now[0])
    assert len(engine.batches) == 1


def test_a_caller_that_gives_up_is_not_run():
    engine = Engine(held=True)

    async def work(batcher):
        first = asyncio.ensure_future(batcher.infer(rows(0), soon()))
        await until(lambda: engine.batches)
        gone = asyncio.ensure_future(batcher.infer(rows(1), soon()))
        last = asyncio.ensure_future(batcher.infer(rows(2), soon()))
        await asyncio.sleep(0.01)
        gone.cancel()
        await asyncio.sleep(0)
        engine.gate.set()
        await asyncio.gather(first, last)
        assert gone.cancelled()
        assert batcher.held == 0

    served(engine, work)
    assert [batch[0, 0] for batch in engine.batches] == [0, 2]


@pytest.mark.parametrize("inputs", [rows(*range(9)), rows(), {}, {"x": np.array(1.0)}])
def test_more_rows_than_the_largest_batch_or_none_are_refused(inputs):
    async def work(batcher):
        with pytest.raises(BadRequest, match="1 to 8"):
            await batcher.infer(inputs, soon())
        assert batcher.held == 0

    served(Engine(), work)


def test_inputs_that_the_engine_refuses_are_the_callers_fault():
    def run(inputs):
        raise InputError("`x` expects something else")

    async def work(batcher):
        with pytest.raises(BadRequest, match="something else"):
            await batcher.infer(rows(1), soon())

    served(run, work)


def test_an_engine_that_is_not_up_is_asked_once_for_a_batch():
    engine, asked = Engine(held=True), []

    def run(inputs):
        engine(inputs)
        asked.append(len(inputs["x"]))
        raise NotReady("no worker process is up")

    async def work(batcher):
        held = [asyncio.ensure_future(batcher.infer(rows(i), soon())) for i in range(5)]
        await until(lambda: engine.batches)
        engine.gate.set()
        found = await asyncio.gather(*held, return_exceptions=True)
        assert all(isinstance(each, NotReady) for each in found)

    served(run, work)
    assert len(asked) <= 2


def test_outputs_that_cannot_be_told_apart_are_never_handed_out():
    async def work(batcher):
        with pytest.raises(Broken):
            await batcher.infer(rows(1, 2), soon())

    served(lambda inputs: {"y": np.zeros((1, 2))}, work)


def test_draining_waits_for_what_was_let_in():
    engine = Engine(held=True)

    async def work(batcher):
        asked = [asyncio.ensure_future(batcher.infer(rows(i), soon())) for i in range(3)]
        await until(lambda: engine.batches)
        assert await batcher.drain(0.01) == 3
        engine.gate.set()
        assert await batcher.drain(10) == 0
        await asyncio.gather(*asked)
        assert await batcher.drain(0) == 0

    served(engine, work)


def test_closing_refuses_what_waits_and_ends_the_threads():
    engine = Engine(held=True)

    async def work(batcher):
        first = asyncio.ensure_future(batcher.infer(rows(0), soon()))
        await until(lambda: engine.batches)
        second = asyncio.ensure_future(batcher.infer(rows(1), soon()))
        await asyncio.sleep(0)
        batcher.close()
        with pytest.raises(NotReady):
            await second
        with pytest.raises(NotReady):
            await batcher.infer(rows(2), soon())
        engine.gate.set()
        assert (await first).outputs["y"][0, 0] == 0
        await until(lambda: not any(thread.is_alive() for thread in engine.threads))

    served(engine, work)


def test_every_run_is_told():
    told = []

    async def work(batcher):
        await asyncio.gather(*(batcher.infer(rows(i), soon()) for i in range(3)))

    served(Engine(), work, observe=told.append)
    assert sum(each.requests for each in told) == 3
    assert sum(each.rows for each in told) == 3
    assert all(each.size in (1, 2, 4, 8) and each.compute_s >= 0 for each in told)


def test_requests_at_random_times_under_load_all_get_their_own():
    """Some give up, some are poison, some are late: the others never notice."""
    rng = random.Random(0)
    engine = Engine()

    async def one(batcher, number):
        await asyncio.sleep(rng.random() * 0.1)
        poison = rng.random() < 0.1
        inputs = rows(*([-1] if poison else [number + i / 8 for i in range(rng.randint(1, 4))]))
        deadline = soon(-1 if rng.random() < 0.05 else 20)
        asked = asyncio.ensure_future(batcher.infer(inputs, deadline))
        if rng.random() < 0.1:
            await asyncio.sleep(0)
            asked.cancel()
        try:
            answer = await asked
        except (Broken, Late, asyncio.CancelledError):
            return 0
        assert not poison
        np.testing.assert_array_equal(answer.outputs["y"], inputs["x"] * 2)
        return 1

    async def work(batcher):
        found = await asyncio.gather(*(one(batcher, 10 * n) for n in range(400)))
        assert sum(found) > 250
        assert batcher.held == 0

    served(engine, work, limits=BatchLimits(callers=3, inline_s=0.0))
