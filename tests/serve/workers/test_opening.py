"""Worker processes behind a server: killed under load, and no request is lost."""

import asyncio
import os
import shutil
import signal
import time

import numpy as np
import pytest

from fettle.core.bundle import Bundle
from fettle.core.errors import CheckFailed
from fettle.serve.model import Model
from fettle.serve.repository import Repository
from fettle.serve.settings import Settings
from fettle.serve.workers.opening import isolated

SETTINGS = Settings(isolate=2, threads=1)


def until(condition):
    for _ in range(2000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it didn't come to be")


def test_workers_serve_what_was_proven_whatever_becomes_of_the_folder(
    make_bundle, tmp_path, temporary
):
    bundle = make_bundle(tmp_path / "best")
    model = Model.load(bundle.path, SETTINGS)
    inputs, outputs = bundle.golden()
    shutil.rmtree(bundle.path)
    for pid in model.session.pids:
        os.kill(pid, signal.SIGKILL)
    found = model.run(inputs)
    for name, array in outputs.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-3, atol=1e-3)
    until(lambda: len(model.session.pids) == 2)
    assert model.session.lost == 2
    model.close()
    assert not list(temporary.iterdir())


class Load:
    """Callers that ask for golden examples again and again, and look at each answer."""

    def __init__(self, bundle):
        (self.name, self.inputs), *_ = bundle.golden()[0].items()
        self.expected = next(iter(bundle.golden()[1].values()))
        self.answered, self.over = 0, False

    async def ask(self, batcher):
        while not self.over:
            row = self.answered % len(self.inputs)
            given = {self.name: self.inputs[row : row + 1]}
            answer = await batcher.infer(given, time.monotonic() + 60)
            (output,) = answer.outputs.values()
            np.testing.assert_allclose(output[0], self.expected[row], rtol=1e-3, atol=1e-3)
            self.answered += 1

    async def kill(self, pool, which):
        """`kill -9` workers under this load; return when all are up and all goes on."""
        lost, pids = pool.lost, pool.pids[which]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        while pool.lost < lost + len(pids) or len(pool.pids) < 2:
            await asyncio.sleep(0.01)
        answered = self.answered
        while self.answered < answered + 50:
            await asyncio.sleep(0.01)


def test_no_request_is_lost_when_workers_are_killed_under_load(proven):
    """One, the other, and both at once, with requests always under way."""
    load = Load(proven)

    async def whole():
        repository = Repository(SETTINGS)
        repository.add("m", "1", proven.path)
        await repository.start()
        served = repository.find("m")
        assert served.batcher._quick is None  # a process must not hold up the event loop
        asking = [asyncio.create_task(load.ask(served.batcher)) for _ in range(8)]
        try:
            for which in (slice(0, 1), slice(1, 2), slice(0, 2)):
                await asyncio.wait_for(load.kill(served.model.session, which), 60)
        finally:
            load.over = True
            await asyncio.gather(*asking)
            assert served.batcher.held == 0
            await repository.close()
        assert served.model.session.lost == 4

    asyncio.run(whole())
    assert load.answered >= 150


def test_a_check_that_does_not_hold_leaves_nothing_behind(proven, temporary):

    def check(session, bundle):
        assert session.run(bundle.golden()[0])
        raise CheckFailed("computes something else")

    with pytest.raises(CheckFailed, match="something else"):
        isolated(Bundle.open(proven.path), Settings(isolate=1), check)
    assert not list(temporary.iterdir())
