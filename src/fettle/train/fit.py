"""Fitting a model to a task."""

from __future__ import annotations

import torch
from torch import nn

from fettle.core.context import Context
from fettle.tasks import Task
from fettle.train._fabric import make_fabric
from fettle.train._job import Job
from fettle.train._loop import Loop
from fettle.train._optimizer import check_trainable
from fettle.train._processes import fit_in_processes
from fettle.train._tensors import device_of
from fettle.train.history import History
from fettle.train.hooks import Hooks
from fettle.train.plan import FitPlan


def fit(
    model: nn.Module,
    task: Task,
    plan: FitPlan,
    context: Context | None = None,
    hooks: Hooks | None = None,
    validate: bool = True,
) -> History:
    """Train `model` in place on the task's `train` split; it is left in evaluation mode.

    With `context.checkpoints`, state is saved there after every epoch, about every 20 s in
    between, and on Ctrl-C. A later call with the same plan, starting weights, data, seed and
    `hooks.key` continues from it and gives the weights that an uninterrupted run gives, or
    returns at once if that run had ended. Any other call starts anew and replaces it.

    Several devices are as many fresh interpreters, which get the model, the task and the hooks by
    pickle: a script that asks for them needs its `if __name__ == "__main__":`.

    Mixed precision keeps weights in float32 and computes in 16 bits (Micikevicius et al., "Mixed
    precision training", https://arxiv.org/abs/1710.03740); float16 also scales the loss.

    Args:
        model: float32, on any device, where it also is afterwards.
        task: gives batches, loss and scores.
        plan: how to train.
        context: seed, checkpoints and who watches.
        hooks: what the caller replaces in the loop.
        validate: score the model on `select` after every epoch.

    Raises:
        InputError: nothing to train, or (with several devices) something can't be sent to workers.
        MissingError: lightning-fabric is not installed, or there are fewer GPUs than asked for.
        CheckFailed: training diverged; the last good checkpoint stays.
        StorageError: a checkpoint can't be written.
    """
    hooks = hooks or Hooks()
    job = Job(model, task, plan, context or Context(), hooks, validate)
    if plan.epochs == 0:
        hooks.set_mode(model, False)
        return History()
    check_trainable(model)
    return fit_in_processes(job) if plan.devices > 1 else _fit_here(job)


def _fit_here(job: Job) -> History:
    fabric = make_fabric(job.plan)
    home = device_of(job.model)
    gpus = [fabric.device] if fabric.device.type == "cuda" else []
    # The loop seeds torch at every step; the caller's own generators are not ours to move.
    with torch.random.fork_rng(devices=gpus):
        try:
            return Loop(fabric, job).run()
        finally:
            job.model.zero_grad(set_to_none=True)
            job.model.to(home)
