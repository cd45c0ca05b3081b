"""One worker process: it computes what the engine does here, and its end is never missed."""

import os
import signal
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest

from fettle.core.errors import InputError, ModelError
from fettle.serve._engine import build_session
from fettle.serve.workers.remote import Remote, WorkerLost


def descriptors():
    """How many descriptors this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def test_it_computes_what_the_engine_does_here(remote, proven):
    inputs, _ = proven.golden()
    here = build_session(proven, 1)
    assert (remote.inputs, remote.outputs) == (here.inputs, here.outputs)
    first = remote.run(inputs)
    kept = {name: array.copy() for name, array in first.items()}
    remote.run({name: array[:1] * 0 for name, array in inputs.items()})
    for name, array in here.run(inputs).items():
        np.testing.assert_array_equal(first[name], array)
        np.testing.assert_array_equal(first[name], kept[name])  # no view of what changes
    here.close()


def test_what_the_engine_refuses_is_told_and_it_lives_on(remote, proven):
    (name, array), *_ = proven.golden()[0].items()
    with pytest.raises(InputError, match=name):
        remote.run({name: array.astype(np.float64)})
    with pytest.raises(InputError, match="expected"):
        remote.run({})
    assert remote.run({name: array})


def test_signals_that_are_the_server_s_do_not_end_it(remote, proven):
    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(remote.pid, each)
    assert remote.run(proven.golden()[0])


def test_a_killed_process_is_a_lost_worker(remote, proven):
    os.kill(remote.pid, signal.SIGKILL)
    with pytest.raises(WorkerLost, match="ended"):
        remote.run(proven.golden()[0])
    assert remote.wait() == -signal.SIGKILL


def test_one_that_hangs_is_killed(job, proven):
    worker = Remote(job._replace(longest_s=0.2))
    os.kill(worker.pid, signal.SIGSTOP)
    with pytest.raises(WorkerLost, match=r"0\.2 s"):
        worker.run(proven.golden()[0])
    assert worker.wait() == -signal.SIGKILL
    worker.close()


def test_it_ends_when_the_server_does(remote):
    remote.close()
    assert remote.wait() == 0


@pytest.mark.parametrize(
    ("changes", "why"), [({"sha": "0" * 16}, "another bundle"), ({"bundle": "/nowhere"}, "nowhere")]
)
def test_another_bundle_than_the_one_that_was_proven_is_refused(job, changes, why):
    before = descriptors()
    with pytest.raises(ModelError, match=why):
        Remote(job._replace(**changes))
    assert descriptors() == before


def test_one_that_dies_while_it_starts_is_told(job, monkeypatch):
    begun = subprocess.Popen

    def dying(command, **more):
        process = begun(command, **more)
        threading.Thread(target=process.kill).start()
        return process

    monkeypatch.setattr("subprocess.Popen", dying)
    with pytest.raises(WorkerLost):
        Remote(job)
