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
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

from torch import nn
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

from fettle.core import errors
from fettle.core.errors import FettleError, InputError
from fettle.core.files import write_json
from fettle.core.progress import Lines, Silent
from fettle.train import _checkpoint as checkpoint
from fettle.train._fabric import make_fabric
from fettle.train._job import Job
from fettle.train._loop import Loop
from fettle.train.history import History

_ENVIRONMENT = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE")


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
    job.model.load_state_dict(dict(saved.tensors))
    job.hooks.set_mode(job.model, False)
    return History.from_json(saved.scalars)


def _launch(fabric: Any, job: Job, folder: Path) -> None:
    others = set(mp.active_children())
    try:
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


def _interrupt(children: set[Any]) -> None:
    """Pass Ctrl-C on to workers that didn't get it, and wait until they saved and left."""
    for child in children:
        if child.pid and child.is_alive():
            os.kill(child.pid, signal.SIGINT)
    for child in children:
        child.join(timeout=30)


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
