"""The loop that each process runs.

Nothing random carries over from one step to the next: the data's order and augmentation depend on
(seed, epoch, position), and torch's generators are seeded anew before every optimizer step. So a
run that continues from a checkpoint computes what an uninterrupted one does, bit for bit on a CPU.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

import torch

from fettle.core.arrays import Batch
from fettle.core.errors import DataError
from fettle.core.progress import Bar, Silent
from fettle.train import _checkpoint as checkpoint
from fettle.train._interrupt import Interrupt, deferred
from fettle.train._job import Job
from fettle.train._step import Stepper
from fettle.train.evaluate import accuracy
from fettle.train.history import EpochRecord, History

SAVE_EVERY_SECONDS = 20.0


@dataclass
class Place:
    """Where a run stands: `position` counts the optimizer steps made in the epoch under way."""

    epoch: int = 0
    position: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0
    records: list[EpochRecord] = field(default_factory=list)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Place:
        """Read what `asdict` gave."""
        return cls(**{**data, "records": [EpochRecord(**r) for r in data["records"]]})


class Loop:
    """One process's part of a fit."""

    def __init__(self, fabric: Any, job: Job) -> None:
        self.fabric, self.job = fabric, job
        self.progress = job.context.progress if fabric.is_global_zero else Silent()
        self.micro_batches = job.task.steps(job.plan.batch_size, fabric.world_size)
        self.per_epoch = math.ceil(self.micro_batches / job.plan.accumulate)
        self.total = self.per_epoch * job.plan.epochs
        checkpoint.prepare(job.context.checkpoints)
        self.key = checkpoint.key_of(job) if job.context.checkpoints else {}
        self.stepper = Stepper(fabric, job)
        self.place = Place()
        self.resumed_at: int | None = None
        self._resume()
        self.saved_at = time.monotonic()

    @property
    def step(self) -> int:
        """How many optimizer steps are made."""
        return self.place.epoch * self.per_epoch + self.place.position

    def run(self) -> History:
        """Train to the end of the plan.

        Raises:
            CheckFailed: training diverged.
            KeyboardInterrupt: Ctrl-C, once the step is whole and the checkpoint is written.
        """
        title = f"train {type(self.job.model).__name__}"
        with deferred() as interrupt, self.progress.bar(title, self.total, self.step) as bar:
            while self.place.epoch < self.job.plan.epochs:
                self._epoch(bar, interrupt)
        self.stepper.close()
        self.job.hooks.set_mode(self.job.model, False)
        return History(tuple(self.place.records), self.step, self.resumed_at)

    def _epoch(self, bar: Bar, interrupt: Interrupt) -> None:
        self.job.hooks.set_mode(self.job.model, True)
        before, started = self.place.seconds, time.monotonic()
        for batches in self._groups():
            loss = self.stepper.step(batches, self.step, self.total)
            self.place.loss_sum += loss
            self.place.position += 1
            self.place.seconds = before + time.monotonic() - started
            if self.job.hooks.on_step:
                self.job.hooks.on_step(self.job.model, self.step, self.total)
            bar.step(self._note(loss))
            self._save_if_due(interrupt)
        if self.place.position < self.per_epoch:
            raise DataError(
                f"`task.epoch` was expected to yield {self.micro_batches} batches, as `task.steps`"
                f" says, but stopped at {self.place.position} of {self.per_epoch} optimizer steps"
            )
        self._close_epoch()
        self._save_if_due(interrupt)

    def _groups(self) -> Iterator[list[Batch]]:
        """Yield the micro-batches of each optimizer step that is left in this epoch."""
        plan, shard = self.job.plan, (self.fabric.global_rank, self.fabric.world_size)
        seed, epoch = self.job.context.seed, self.place.epoch
        stream = iter(self.job.task.epoch(seed, epoch, plan.batch_size, shard=shard))
        left = islice(stream, self.place.position * plan.accumulate, self.micro_batches)
        while group := list(islice(left, plan.accumulate)):
            yield group

    def _close_epoch(self) -> None:
        self.stepper.check(self.step - 1)
        place, plan = self.place, self.job.plan
        record = EpochRecord(
            epoch=place.epoch,
            loss=self._over_ranks(place.loss_sum / max(place.position, 1)),
            metric=self._validated(),
            lr=plan.lr * plan.lr_factor((place.epoch + 1) * self.per_epoch - 1, self.total),
            seconds=place.seconds,
        )
        self.place = Place(epoch=place.epoch + 1, records=[*place.records, record])
        if self.job.hooks.on_epoch:
            self.job.hooks.on_epoch(self.job.model, record)
        self._save()  # after the hook, so that what it changed in the model is in the checkpoint

    def _over_ranks(self, value: float) -> float:
        tensor = torch.tensor(value, dtype=torch.float64, device=self.fabric.device)
        return float(self.fabric.all_reduce(tensor, reduce_op="mean"))

    def _validated(self) -> float | None:
        """Return the mean score on `select`, in 32 bits: what is exported is that model."""
        if not self.job.validate:
            return None
        metric = None
        if self.fabric.is_global_zero:
            size = max(self.job.plan.batch_size, 256)
            job = self.job
            metric = accuracy(job.model, job.task, "select", size, job.hooks.set_mode)
        return self.fabric.broadcast(metric)  # type: ignore[no-any-return]

    def _note(self, loss: float) -> str:
        place, last = self.place, self.place.records[-1:]
        metric = [f"{self.job.task.metric} {r.metric:.4f}" for r in last if r.metric is not None]
        epoch = f"epoch {place.epoch + 1}/{self.job.plan.epochs}"
        return ", ".join([epoch, f"loss {loss:.4f}", *metric])

    def _save_if_due(self, interrupt: Interrupt) -> None:
        if interrupt.asked:
            self._save()
            raise KeyboardInterrupt
        if time.monotonic() - self.saved_at >= SAVE_EVERY_SECONDS:
            self._save()

    def _save(self) -> None:
        folder = self.job.context.checkpoints
        if folder is None or not self.fabric.is_global_zero:
            return
        self.stepper.check(self.step - 1)
        model, optimizer = self.job.model, self.stepper.optimizer
        tensors = {
            **checkpoint.prefixed("model.", checkpoint.model_state(model)),
            **checkpoint.prefixed("optimizer.", checkpoint.optimizer_state(optimizer)),
        }
        scale = self.fabric.strategy.precision.state_dict()
        header = {"key": self.key, "place": asdict(self.place), "scale": scale}
        checkpoint.write(folder / checkpoint.FILE, tensors, header)
        self.saved_at = time.monotonic()

    def _resume(self) -> None:
        folder = self.job.context.checkpoints
        saved = checkpoint.find(folder, self.key, self.progress.say)
        if saved is None:
            return
        checkpoint.load_model(self.job.model, checkpoint.section("model.", saved.tensors))
        state = checkpoint.section("optimizer.", saved.tensors)
        checkpoint.load_optimizer(self.stepper.optimizer, state)
        self.fabric.strategy.precision.load_state_dict(saved.scalars["scale"])
        self.place = Place.from_json(saved.scalars["place"])
        self.resumed_at = self.step
        self.progress.say(f"continuing at step {self.step} of {self.total} from {folder}")
