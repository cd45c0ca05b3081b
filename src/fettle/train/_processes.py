"""A fit in several processes, whose weights come back into the caller's model.

Each worker gets a copy of the job; the first writes weights and history to a folder that the
parent reads. An error of ours crosses over as JSON, so that the caller sees it and no traceback.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import multiprocessing as mp
import os
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from multiprocessing import connection
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from types import FrameType
from typing import Any

from torch import nn
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

from fettle.core import errors
from fettle.core.errors import FettleError, InputError
from fettle.core.files import write_json
from fettle.core.progress import Lines, Silent
from fettle.train import _checkpoint as checkpoint
from fettle.train._fabric import make_fabric, quiet
from fettle.train._job import Job
from fettle.train._loop import Loop
from fettle.train.history import History

_ENVIRONMENT = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE")
_SECONDS_TO_SAVE = 60.0


def fit_in_processes(job: Job) -> History:
    """Train `job.model` in `job.plan.devices` processes and put the weights back into it.

    Raises:
        InputError: the model, the task or a hook can't be sent to another process.
    """
    quiet = isinstance(job.context.progress, Silent)
    context = replace(job.context, progress=Silent() if quiet else Lines())
    sendable = replace(job, context=context)
    fabric = make_fabric(job.plan)
    _check_sendable(sendable)
    with tempfile.TemporaryDirectory(prefix="fettle-fit-") as name, _environment_restored():
        folder = Path(name)
        _launch(fabric, sendable, folder)
        saved = checkpoint.read(folder / checkpoint.FILE)
    checkpoint.load_model(job.model, saved.tensors)
    job.hooks.set_mode(job.model, False)
    return History.from_json(saved.scalars)


def _launch(fabric: Any, job: Job, folder: Path) -> None:
    others = set(mp.active_children())
    try:
        with quiet():
            fabric.launch(partial(_work, job, folder))
    except KeyboardInterrupt:
        _interrupt(set(mp.active_children()) - others)
        raise
    except (ProcessRaisedException, ProcessExitedException):
        _raise_what_came(folder)
        raise


def _work(job: Job, folder: Path, fabric: Any) -> None:
    """Run one worker's part."""
    _unshare(job.model)
    _take_ctrl_c_once(fabric.global_rank)
    try:
        history = Loop(fabric, job).run()
    except FettleError as error:
        content = {"type": type(error).__name__, "message": str(error), "fields": vars(error)}
        write_json(folder / f"error-{fabric.global_rank}.json", content)
        raise
    if fabric.is_global_zero:
        state = checkpoint.model_state(job.model)
        checkpoint.write(folder / checkpoint.FILE, state, history.to_json())


def _raise_what_came(folder: Path) -> None:
    """Raise the error that a worker left, if it left one."""
    for path in sorted(folder.glob("error-*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        kind = getattr(errors, content["type"], FettleError)
        error = kind.__new__(kind, content["message"])  # its __init__ would format anew
        vars(error).update(content["fields"])
        raise error


def _check_sendable(job: Job) -> None:
    parts = {"model": job.model, "task": job.task, "hooks": job.hooks}
    for name, part in parts.items():
        try:
            ForkingPickler.dumps(part)
        except Exception as error:  # pickling runs foreign code, which raises what it likes
            raise InputError(
                f"the {name} can't be sent to worker processes ({error}); define its classes and"
                " functions at the top level of a module, without lambdas, or set `devices` to 1"
            ) from error


def _unshare(model: nn.Module) -> None:
    """Give this process its own copy: tensors arrive in memory that all workers share."""
    for tensor in itertools.chain(model.parameters(), model.buffers()):
        tensor.data = tensor.data.clone()


def _take_ctrl_c_once(rank: int) -> None:
    """Let the first rank alone act on Ctrl-C, and not break off when it comes a second time.

    A terminal sends it to every process and the parent passes it on; a rank that left on its own
    would break the collective in which the first one still is, before that has saved.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN if rank else _do_nothing)


def _do_nothing(number: int, frame: FrameType | None) -> None:
    del number, frame


def _interrupt(workers: set[Any]) -> None:
    """Pass Ctrl-C on to the workers, wait until the first rank has saved, and end the others."""
    try:
        for worker in workers:
            if worker.pid and worker.is_alive():
                os.kill(worker.pid, signal.SIGINT)
        connection.wait([worker.sentinel for worker in workers], timeout=_SECONDS_TO_SAVE)
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()


@contextlib.contextmanager
def _environment_restored() -> Iterator[None]:
    """Undo what the launcher sets, or the next fit would reuse this one's port."""
    before = {name: os.environ.get(name) for name in _ENVIRONMENT}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
