"""What is measured of a study's trials, each kept in the store by what it depends on."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fettle import measure
from fettle.core.arrays import Arrays, Split, repeat_to
from fettle.core.errors import CheckFailed, DataError, FettleError, InputError
from fettle.core.hashing import fingerprint
from fettle.core.machine import this_machine, versions
from fettle.core.progress import Reporter
from fettle.measure.lowering import choose_lowering
from fettle.measure.memory import peak_memory
from fettle.runtimes import Session, match_inputs
from fettle.search._result import machine_json
from fettle.search._smoke import fault_of
from fettle.search._store import Store
from fettle.search._trial import Trial
from fettle.tasks import Task

Timing = dict[str, Any]


class Measuring:
    """Measures trials on one task, on this machine, at one batch size.

    `machine` and `versions` say where. Everything that touches an engine is done by `supports`,
    `build`, `choose`, `score`, `time` and `probe`; the rest looks up and keeps.
    """

    def __init__(
        self, store: Store, task: Task, batch: int, seconds: float, progress: Reporter
    ) -> None:
        self.store, self.task, self.batch, self.progress = store, task, batch, progress
        self.seconds, self.plan = seconds, measure.Plan.for_budget(seconds)
        self.machine, self.versions = this_machine(), versions()

    def report(self) -> dict[str, Any]:
        """Return what a result says of the machine that is measured on."""
        return machine_json()

    def open(self, trial: Trial, lowering: Sequence[str] | None = None) -> None:
        """Build the trial's session with the lowering that helps here, or note why it can't be.

        A `lowering` that is given is taken as it is, in place of finding out which helps.

        Raises:
            DataError: the model takes other inputs than the data has.
        """
        if trial.session is not None or trial.refused:
            return
        trial.refused = self.supports(trial)
        if trial.refused:
            return
        try:
            trial.lowering = self._lowering(trial) if lowering is None else tuple(lowering)
            session = self.build(trial)
        except FettleError as error:
            trial.refused = str(error)
            return
        try:
            trial.refused = fault_of(session, self._inputs(self.batch))
        except InputError as error:
            raise DataError(
                f"the model takes other inputs than the data has: {error}; give data of the"
                " model's shape, or a model of the data's"
            ) from error
        trial.session = session if trial.refused is None else None

    def supports(self, trial: Trial) -> str | None:
        """Return why the trial's runtime can't work here, or None."""
        return trial.runtime.supports()

    def build(self, trial: Trial) -> Session:
        """Return the trial's session, lowered as the trial says."""
        return trial.runtime.build(trial.model, trial.lowering)

    def _lowering(self, trial: Trial) -> tuple[str, ...]:
        if not trial.is_lowered:
            return ()
        key = self._key("lowering", trial.identity, self._data("calibrate"))
        choose = partial(self.choose, trial)
        found, _ = self.store.value(key, f"lower for {trial.runtime}", choose)
        self.store.journal.write("lowering", trial=trial.label, **found)
        return tuple(found["chosen"])

    def choose(self, trial: Trial) -> dict[str, Any]:
        """Find out which lowering helps the trial here: the steps, and all that were tried."""
        assert isinstance(trial.model, Path)
        inputs, seconds = self._inputs(32), self.plan.seconds
        chosen, tried = choose_lowering(trial.model, trial.runtime, inputs, seconds, self.progress)
        return {"chosen": chosen, "tried": [t.to_json() for t in tried]}

    def scores(self, trial: Trial, split: Split) -> np.ndarray:
        """Return the trial's score on every example of a split, shape (n,)."""
        self._session(trial)  # which may choose a lowering, a part of the key
        key = self._key("scores", trial.identity, split, self._data(split))

        work = partial(self.score, trial, split)
        folder, _ = self.store.make(key, f"score {split}", work)
        scores: np.ndarray = np.load(folder / "scores.npy", allow_pickle=False)
        return scores

    def score(self, trial: Trial, split: Split, folder: Path) -> None:
        """Write the trial's score on every example of a split to `folder/scores.npy`."""
        found = measure.scores_of(self._session(trial), self.task, split)
        np.save(folder / "scores.npy", found)

    def timing(self, trials: Sequence[Trial]) -> Timing:
        """Time all trials against each other in one run.

        Returns:
            `rows` by label with latency, throughput and `ratios`: how many times faster the trial
            is than each untouched f32 one, by that one's label; `noise` and, if any, a `warning`.
        """
        key = self._key("timing", [t.identity for t in trials], self.batch, repr(self.plan))
        timing: Timing = self.store.value(key, "time", partial(self.time, trials))[0]
        return timing

    def time(self, trials: Sequence[Trial]) -> Timing:
        """Time the trials against each other, as `timing` does, whatever was kept."""
        inputs = self._inputs(self.batch)
        subjects = [self._subject(trial, inputs) for trial in trials]
        plain = [trial.label for trial in trials if trial.is_fp32]
        twin = measure.twin_of(next(s for s in subjects if s.label == plain[0]))
        samples = measure.time_interleaved([*subjects, twin], self.plan, self.progress)
        noise = measure.noise_in(samples, plain[0])
        rows = {}
        for trial in trials:
            own = samples[trial.label]
            rows[trial.label] = {
                "latency_ms": measure.summary(own),
                "throughput": measure.throughput(own),
                "ratios": {label: measure.ratio(samples[label], own).to_json() for label in plain},
            }
        return {"rows": rows, "noise": noise.to_json(), "warning": measure.too_noisy(noise)}

    def peak_memory(self, trial: Trial) -> int | None:
        """Return the peak resident memory of a fresh process that runs the trial, in bytes.

        None for a torch module, and when the process dies or takes too long.
        """
        if not isinstance(trial.model, Path):
            return None
        key = self._key("memory", trial.identity, self.batch)
        found: int | None = self.store.value(key, "peak memory", partial(self.probe, trial))[0]
        return found

    def probe(self, trial: Trial) -> int | None:
        """Run the trial in a fresh process and return its peak memory in bytes, None if it dies."""
        assert isinstance(trial.model, Path)
        artifact = measure.Artifact(
            trial.model, trial.runtime, trial.lowering, self.task, self.batch
        )
        try:
            return peak_memory(artifact).peak_bytes
        except CheckFailed as error:
            self.progress.say(str(error))
            return None

    def golden(self, trial: Trial, n: int = 16) -> tuple[Arrays, Arrays]:
        """Return `n` inputs and what the trial's session makes of them."""
        session = self._session(trial)
        inputs = match_inputs(session.inputs, self._inputs(n))
        return inputs, measure.run_batch(session, inputs)

    def _subject(self, trial: Trial, inputs: Arrays) -> measure.Subject:
        run = partial(measure.run_batch, self._session(trial), inputs)
        threads = trial.runtime.threads or this_machine().threads
        return measure.Subject(trial.label, run, self.batch, threads)

    def _inputs(self, n: int) -> Arrays:
        return repeat_to(self.task.example_inputs(n), n)

    def _session(self, trial: Trial) -> Session:
        self.open(trial)
        assert trial.session is not None, trial.refused
        return trial.session

    def _data(self, split: Split) -> str:
        return self.task.fingerprint(split)

    def _key(self, *parts: Any) -> str:
        return fingerprint([*parts, [self.machine.to_json(), self.versions]])
