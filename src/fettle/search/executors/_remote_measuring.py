"""Measuring on a crew's target: what touches an engine is a job, the rest stays where it was.

Keys, names and the journal are those of a measurement on this machine, with the target in place of
it: what was kept of the same target by another process is found again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fettle.core.arrays import Arrays, Split
from fettle.core.hashing import fingerprint
from fettle.core.machine import Machine
from fettle.core.progress import Reporter
from fettle.runtimes import LayerPrecision, LayerTime, Session
from fettle.search._measuring import Measuring, Timing
from fettle.search._trial import Trial
from fettle.search.executors._job import ARRAYS, Done, Job, Need, Parcel, unpack
from fettle.search.executors._transport import (
    arrays_bytes,
    arrays_of,
    spec_of,
    trial_json,
)

if TYPE_CHECKING:
    from fettle.search.executors._remote import RemoteWorkshop


class RemoteMeasuring(Measuring):
    """Measures trials on the nodes of a crew that are the target, one job at a time.

    Args:
        workshop: made the trials; its crew is asked.
        batch: as of any measuring, like all that follow.
        seconds: how long all trials together are timed.
        progress: hears what the nodes say.
    """

    def __init__(
        self, workshop: RemoteWorkshop, batch: int, seconds: float, progress: Reporter
    ) -> None:
        super().__init__(workshop.store, workshop.task, batch, seconds, progress)
        self.workshop, self._target = workshop, workshop.crew.target
        self.machine = Machine.from_json(self._target["machine"])
        self.versions = dict(self._target["versions"])
        self._supported: dict[str, str | None] = {}

    def report(self) -> dict[str, Any]:
        """Return what a result says of the target."""
        return dict(self._target["report"])

    def supports(self, trial: Trial) -> str | None:
        """Return why the trial's runtime can't work on the target, or None; asked once."""
        name = str(trial.runtime)
        if name not in self._supported:
            self._supported[name] = self.ask("supports", [trial], made=False).value
        return self._supported[name]

    def build(self, trial: Trial) -> Session:
        """Return the trial's session, which the target opens wherever it is needed."""
        return _RemoteSession(self, trial, self.ask("open", [trial]).value)

    def choose(self, trial: Trial) -> dict[str, Any]:
        """Find out which lowering helps the trial on the target."""
        return dict(self.ask("choose", [trial]).value)

    def score(self, trial: Trial, split: Split, folder: Path) -> None:
        """Write the trial's score on every example of a split to `folder/scores.npy`."""
        unpack(self.ask("score", [trial], split=split).files, folder)

    def time(self, trials: Sequence[Trial]) -> Timing:
        """Time the trials against each other on one node of the target."""
        return dict(self.ask("time", trials).value)

    def probe(self, trial: Trial) -> int | None:
        """Return the trial's peak memory in a fresh process on the target, None if it dies."""
        found: int | None = self.ask("probe", [trial]).value
        return found

    def ask(
        self,
        do: str,
        trials: Sequence[Trial],
        *,
        made: bool = True,
        files: Parcel | None = None,
        **values: Any,
    ) -> Done:
        """Have one thing done on the target; `made` says that it reads the trials' artifacts.

        Raises:
            FettleError: what the target raised.
        """
        told = [trial_json(trial) for trial in trials]
        where = {"batch": self.batch, "seconds": self.seconds, "target": self._identity()}
        order = self.workshop.order(do, trials=told, **where, **values)
        needs = self._needs(trials) if made else self.workshop.shop_needs()
        name = f"{do.replace('_', ' ')} {len(trials)} trials" if len(trials) > 1 else do
        job = Job(fingerprint(order), name, order, needs, measures=True, files=files or {})
        return self.workshop.do(job, self.progress)

    def _identity(self) -> list[Any]:
        return [self._target["machine"], self._target["versions"]]

    def _needs(self, trials: Sequence[Trial]) -> tuple[Need, ...]:
        """Return what the target reads to open these trials, each file once."""
        found: dict[str, Need] = {}
        for trial in trials:
            is_file, shop = isinstance(trial.model, Path), self.workshop
            needs = shop.artifact_needs(trial.recipe) if is_file else shop.module_needs()
            found |= {need.name: need for need in needs}
        return tuple(found.values())


class _RemoteSession(Session):
    """A session on the target: every call is a job of its own."""

    def __init__(self, measuring: RemoteMeasuring, trial: Trial, opened: dict[str, Any]) -> None:
        self._measuring, self._trial = measuring, trial
        self.inputs = tuple(map(spec_of, opened["inputs"]))
        self.outputs = tuple(map(spec_of, opened["outputs"]))
        self.callers = opened["callers"]

    def run(self, inputs: Arrays) -> Arrays:
        """Return the outputs by name, computed on the target."""
        files = {ARRAYS: arrays_bytes(inputs)}
        done = self._measuring.ask("run", [self._trial], files=files)
        return arrays_of(done.files[ARRAYS])

    def layers(self) -> list[LayerPrecision]:
        """Return what each layer really runs in on the target."""
        rows = self._measuring.ask("layers", [self._trial]).value
        return [
            LayerPrecision(name, op, precision, tuple(shape), tuple(origins))
            for name, op, precision, shape, origins in rows
        ]

    def layer_times(self, inputs: Arrays, runs: int = 20) -> list[LayerTime]:
        """Return the median time of each layer over `runs` on the target."""
        files = {ARRAYS: arrays_bytes(inputs)}
        rows = self._measuring.ask("layer_times", [self._trial], files=files, runs=runs).value
        return [LayerTime(name, op, ms) for name, op, ms in rows]

    def close(self) -> None:
        """Do nothing: the target closes what it no longer needs."""
