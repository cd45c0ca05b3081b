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
from fettle.search._smoke import fault_of
from fettle.search._store import Store
from fettle.search._trial import Trial
from fettle.tasks import Task

Timing = dict[str, Any]


class Measuring:
    """Measures trials on one task, on this machine, at one batch size."""

    def __init__(
        self, store: Store, task: Task, batch: int, seconds: float, progress: Reporter
    ) -> None:
        self.store, self.task, self.batch, self.progress = store, task, batch, progress
        self.plan = measure.Plan.for_budget(seconds)
        self._here = [this_machine().to_json(), versions()]

    def open(self, trial: Trial, lowering: Sequence[str] | None = None) -> None:
        """Build the trial's session with the lowering that helps here, or note why it can't be.

        A `lowering` that is given is taken as it is, in place of finding out which helps.

        Raises:
            DataError: the model takes other inputs than the data has.
        """
        if trial.session is not None or trial.refused:
            return
        trial.refused = trial.runtime.supports()
        if trial.refused:
            return
        try:
            trial.lowering = self._lowering(trial) if lowering is None else tuple(lowering)
            session = trial.runtime.build(trial.model, trial.lowering)
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

    def _lowering(self, trial: Trial) -> tuple[str, ...]:
        if not trial.is_lowered:
            return ()
        model = trial.model
        assert isinstance(model, Path)

        def choose() -> dict[str, Any]:
            inputs, seconds = self._inputs(32), self.plan.seconds
            chosen, tried = choose_lowering(model, trial.runtime, inputs, seconds, self.progress)
            return {"chosen": chosen, "tried": [t.to_json() for t in tried]}

        key = self._key("lowering", trial.identity, self._data("calibrate"))
        found, _ = self.store.value(key, f"lower for {trial.runtime}", choose)
        self.store.journal.write("lowering", trial=trial.label, **found)
        return tuple(found["chosen"])

    def scores(self, trial: Trial, split: Split) -> np.ndarray:
        """Return the trial's score on every example of a split, shape (n,)."""
        session = self._session(trial)
        key = self._key("scores", trial.identity, split, self._data(split))

        def work(folder: Path) -> None:
            np.save(folder / "scores.npy", measure.scores_of(session, self.task, split))

        folder, _ = self.store.make(key, f"score {split}", work)
        scores: np.ndarray = np.load(folder / "scores.npy", allow_pickle=False)
        return scores

    def timing(self, trials: Sequence[Trial]) -> Timing:
        """Time all trials against each other in one run.

        Returns:
            `rows` by label with latency, throughput and `ratios`: how many times faster the trial
            is than each untouched f32 one, by that one's label; `noise` and, if any, a `warning`.
        """
        key = self._key("timing", [t.identity for t in trials], self.batch, repr(self.plan))
        timing: Timing = self.store.value(key, "time", partial(self._time, trials))[0]
        return timing

    def _time(self, trials: Sequence[Trial]) -> Timing:
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
        model = trial.model

        def probe() -> int | None:
            artifact = measure.Artifact(model, trial.runtime, trial.lowering, self.task, self.batch)
            try:
                return peak_memory(artifact).peak_bytes
            except CheckFailed as error:
                self.progress.say(str(error))
                return None

        key = self._key("memory", trial.identity, self.batch)
        found: int | None = self.store.value(key, "peak memory", probe)[0]
        return found

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
        return fingerprint([*parts, self._here])
