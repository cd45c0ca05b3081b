"""The search: the fastest artifact that can be proven inside the budget, over all that is known.

It never stops at the first candidate that fits. Strategies propose candidates, the cheapest first;
each is made, timed against the fastest untouched model, and scored on `select`. Whatever stops the
search (nothing left to try, the time limit, Ctrl-C), the best so far is timed at length and proven
on `test`, so there is an answer after the first minute, and it only gets better.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fettle.core.context import Context
from fettle.core.errors import InputError, StorageError
from fettle.core.progress import board
from fettle.core.recipe import Recipe
from fettle.core.verdict import Verdict
from fettle.measure.noninferiority import verdict_of
from fettle.search._account import account, check_fruit
from fettle.search._beforehand import check_data, check_folder, check_teachers, check_wish
from fettle.search._foresight import Foresight, general
from fettle.search._promise import LIKELY, promise
from fettle.search._result import Findings, metric_of, result_of
from fettle.search._sealing import seal
from fettle.search._smoke import said
from fettle.search._store import Store, sole_worker
from fettle.search._trial import Trial, precision_of
from fettle.search.clock import Clock, OutOfTime, Watched
from fettle.search.executors import Unmanned, opened, workshop_of
from fettle.search.explanation import explain
from fettle.search.journal import Journal
from fettle.search.latency_model import Predicted
from fettle.search.looks import Looks, name_of
from fettle.search.objective import Objective, objective_of
from fettle.search.standing import drawn, standing
from fettle.search.strategies import Strategy, strategies
from fettle.search.study import Candidate, Setting, Study
from fettle.search.wish import Wish as Wish  # noqa: PLC0414 - known by both names
from fettle.search.workshop import Source, Teachers, Workshop
from fettle.tasks import Task

LEAST_GAIN = 0.05  # of the leader's time; a smaller gain is not worth a training
QUICK_SECONDS = 2.0  # of timing for a candidate and what it is compared with
FINALISTS = 4  # are timed at length at the end
LOOKS = 3  # candidates that may meet `test`


class Search(Study):
    """A study whose candidates come as it goes.

    Strategies read `base`, `trials`, `task`, `clock` and `promising`, and call `attempt`.
    """

    def __init__(self, workshop: Workshop, setting: Setting, out: Path, wish: Wish) -> None:
        super().__init__(workshop, setting, out)
        self.wish, self.clock = wish, Clock(wish.seconds)
        self.objective: Objective = objective_of(wish.objective)
        self.trials: list[Trial] = []
        self.least_gain = LEAST_GAIN
        self._base: Trial | None = None
        self.task = workshop.task
        seconds = min(QUICK_SECONDS, setting.seconds)
        self.quick = workshop.measuring(setting.batch, seconds, self.progress)
        workshop.context = replace(workshop.context, progress=Watched(self.progress, self.clock))
        self.foresight = Foresight(workshop, setting.batch)
        self.refused: list[tuple[Candidate, str]] = []
        self.proofs: list[dict[str, Any]] = []
        past = workshop.store.journal.read()
        self.looks = Looks.of(setting.budget, past, self.task.fingerprint("test"))

    def run(self, candidates: Sequence[Candidate] = ()) -> dict[str, Any]:
        """Search, prove, seal; return the result of the contract.

        `candidates` are tried first, right after the model left alone.

        Raises:
            InputError: the time limit is over before the untouched model was measured.
            CheckFailed: no runtime could run the model as it is; nothing came of what `only` names.
        """
        started = time.perf_counter()
        self._measure_untouched()
        for measuring in (self.measuring, self.quick):
            measuring.progress = self.workshop.context.progress  # which looks at the clock
        stopped, interrupted = "nothing was left to try", False
        try:
            given = self._checked(candidates)
            self.begin(given)
            for candidate in given:
                self.attempt(candidate)
            for strategy in strategies():
                self._pursue(strategy)
            check_fruit(self)
        except OutOfTime:
            stopped = f"the time limit of {self.wish.seconds:g} s was reached"
        except KeyboardInterrupt:
            stopped, interrupted = "interrupted", True
        again = " (Ctrl-C again leaves at once)" if interrupted else ""
        self.progress.say(f"{stopped}: prove the best of {len(self.trials)} trials{again}")
        self.clock.limit = None
        winner, verdict, timing = self._settle()
        seconds = time.perf_counter() - started
        findings = Findings(self.trials, self.base, winner, verdict, timing, seconds)
        result = result_of(self, findings)
        told = {**account(self, stopped), "explanation": explain(self, winner)}
        result |= {"search": told, "interrupted": interrupted}
        return seal(self, findings, result)

    def begin(self, candidates: Iterable[Candidate]) -> None:
        """Say which candidates will be attempted, so that a crew can make them meanwhile."""
        self.workshop.begin(c.recipe for c in candidates if self.wish.allows(c.recipe))

    def attempt(self, candidate: Candidate) -> list[Trial]:
        """Make, time and score a candidate on every runtime of the target; return its trials.

        Nothing is done twice: a candidate that was tried before is returned as it was found. One
        that can't be made is noted with its reason, and gives no trials.

        Raises:
            OutOfTime: no time is left.
        """
        known = [t for t in self.trials if t.recipe.steps == candidate.recipe.steps]
        if known or not self.wish.allows(candidate.recipe):
            return known
        self.clock.check()
        try:
            self.workshop.check(candidate.recipe)
            made = self._trials_of(candidate)
        except (OutOfTime, StorageError, Unmanned):
            raise
        except Exception as error:  # whatever a plug-in raises costs its candidate, not the search
            self._refuse(candidate, said(error))
            return []
        for trial in made:
            self._examine(trial)
            self.trials.append(trial)
            self._tell(trial)
        return made

    def sketch(self, recipe: Recipe, score: bool = False) -> Trial | None:
        """Time what a recipe makes, in seconds, and score it on `select` if asked to.

        It runs on the runtime of the fastest INT8 trial so far, lowered as that one is, without
        trying each pass again. A sketch is no trial: it can't win. None when it can't be made.

        Raises:
            OutOfTime: no time is left.
        """
        if not self.wish.allows(recipe):
            return None
        self.clock.check()
        pattern = self._pattern()
        try:
            made = self.workshop.make(recipe)
            trial = Trial("", recipe.on(pattern.runtime), pattern.runtime, made.key, made.path,
                          precision_of(made.path, pattern.runtime), made.stages)  # fmt: skip
            self.measuring.open(trial, general(pattern.lowering))
        except (OutOfTime, StorageError, Unmanned):
            raise
        except Exception as error:  # as in `attempt`
            self._refuse(Candidate(recipe), said(error))
            return None
        if trial.session is None:
            return None
        self._time_quickly([self.base, trial])
        if score:
            self._score([trial], self.base)
            trial.row["promise"] = self.promise(trial)
        self._tell_sketch(trial)
        self.foresight.learn(trial, trial.row["comparable_ms"])
        trial.session.close()
        trial.session = None
        return trial

    def predict(self, recipe: Recipe) -> Predicted | None:
        """Return what a sketch would tell in ms, untimed; None while too little was sketched."""
        if not self.foresight.ready or not self.wish.allows(recipe):
            return None
        self.clock.check()
        pattern = self._pattern()
        return self.foresight.predict(recipe, pattern.runtime, general(pattern.lowering))

    def _pattern(self) -> Trial:
        """Return the fastest INT8 trial, whose runtime and lowering sketches take over."""
        integer = [t for t in self._eligible_trials() if t.precision == "int8"]
        return min(integer, key=self.objective.cost, default=self.base)

    def promise(self, trial: Trial) -> float:
        """Return how likely `test` is to prove a trial inside the budget, 0 … 1."""
        if trial.is_fp32:
            return 1.0
        budget = self.looks.budget_of(name_of(trial))
        reference, scores = (self.measuring.scores(t, "select") for t in (self.base, trial))
        size = self.task.size("test")
        return promise(reference, scores, budget.max_drop, size, budget.confidence)

    @property
    def base(self) -> Trial:
        """The best untouched FP32 trial: what every loss and every gain is measured from."""
        assert self._base is not None
        return self._base

    @property
    def leader(self) -> Trial:
        """The best trial by the objective among those likely to be proven; else the likeliest."""
        running = self._eligible_trials()
        likely = [t for t in running if t.row["promise"] >= LIKELY]
        if likely:
            return min(likely, key=self.objective.cost)
        return max(running, key=lambda t: (t.row["promise"], -self.objective.cost(t)))

    def _pursue(self, strategy: Strategy) -> None:
        if strategy.applies(self):
            self.workshop.store.journal.write("strategy", name=strategy.title)
            self.progress.say(strategy.title)
            strategy.explore(self)

    def _measure_untouched(self) -> None:
        plain = self._trials(self._checked(()))
        self.open(plain)
        running = [t for t in plain if t.session is not None]
        self._time_quickly(running)
        self._base = min((t for t in running if t.is_fp32), key=self.objective.cost)
        self._score(running, self.base)
        self.trials = plain
        for trial in running:
            trial.row["promise"] = self.promise(trial)
            self._tell(trial)
        if self.clock.left <= 0:
            raise InputError(
                f"`time_limit` of {self.wish.seconds:g} s was over before the untouched model was"
                f" measured, which took {self.clock.spent:.0f} s here: give at least"
                f" {max(60, 3 * self.clock.spent):.0f} s"
            )

    def _examine(self, trial: Trial) -> None:
        """Open, time and score one trial; a torch module's FP32 is no part of it."""
        self.measuring.open(trial)
        if trial.session is None:
            return
        same = [t for t in self.trials if t.is_fp32 and t.runtime.name() == trial.runtime.name()]
        others = {t.label: t for t in (self.base, *same) if t.session is not None}
        self._time_quickly([*others.values(), trial])
        self._score([trial], self.base)
        trial.row["promise"] = self.promise(trial)

    def _time_quickly(self, trials: Sequence[Trial]) -> None:
        timing = self.quick.timing(trials)
        for trial in trials:
            if "latency_ms" not in trial.row:
                trial.row.update(timing["rows"][trial.label])
                trial.row["comparable_ms"] = self._comparable(trial)
        self.objective.observe(self.quick, trials)

    def _comparable(self, trial: Trial) -> float:
        """Return the trial's p50 as if it had been timed in the run of the untouched models."""
        if self._base is None:
            return float(trial.row["latency_ms"]["p50"])
        faster = trial.row["ratios"][self._base.label]["value"]
        return float(self._base.row["latency_ms"]["p50"]) / float(faster)

    def _settle(self) -> tuple[Trial, Verdict, dict[str, Any]]:
        """Time the finalists at length; prove them in turn until one passes."""
        finalists = self._finalists()
        plain = [t for t in self.trials if t.is_plain and t.session is not None]
        timed = {t.label: t for t in (*plain, *finalists)}
        for trial in timed.values():
            self.measuring.open(trial)
        timing = self._time(list(timed.values()))
        for trial in timed.values():
            trial.row["comparable_ms"] = trial.row["latency_ms"]["p50"]
        order = self._order(finalists)
        proven: list[tuple[Trial, Verdict]] = []
        for trial in order:
            verdict = self._look(trial)
            proven.append((trial, verdict))
            if verdict.passed:
                break
        winner, verdict = next((p for p in proven if p[1].passed), proven[0])
        return winner, verdict, timing

    def _order(self, finalists: Sequence[Trial]) -> list[Trial]:
        """Return who meets `test`, in turn: the leader, then ever likelier ones."""
        leader = self.leader
        safer = [t for t in finalists if t.row["promise"] > leader.row["promise"]]
        order = [leader]
        for trial in sorted(safer, key=self.objective.cost):
            if trial.row["promise"] > order[-1].row["promise"]:
                order.append(trial)
        return order[:LOOKS]

    def _look(self, trial: Trial) -> Verdict:
        self.progress.say(f"prove on test: {trial.recipe}")
        budget = self.looks.take(name_of(trial))
        reference, scores = (self.measuring.scores(t, "test") for t in (self.base, trial))
        for subject, found in ((self.base, reference), (trial, scores)):
            subject.proof["metric"] = metric_of(found, "test")
        found_verdict = verdict_of(reference, scores, budget)
        trial.proof["drop"] = found_verdict.drop.to_json()
        self.proofs.append({"recipe": str(trial.recipe), **found_verdict.to_json()})
        met = {"candidate": name_of(trial), "test": self.task.fingerprint("test")}
        self.workshop.store.journal.write("look", **self.proofs[-1], **met)
        return found_verdict

    def _finalists(self) -> list[Trial]:
        """Return the leader and those that are better than it in cost or in promise."""
        running = self._eligible_trials()
        by_cost = sorted(running, key=self.objective.cost)
        kept, best = [], -1.0
        for trial in by_cost:
            if trial.row["promise"] > best and trial.row["promise"] > 1 - LIKELY:
                best = trial.row["promise"]
                kept.append(trial)
        leader = self.leader
        return [leader, *[t for t in kept if t is not leader]][:FINALISTS]

    def _eligible_trials(self) -> list[Trial]:
        """Return the trials that may win: they run, as ONNX, and were asked for."""
        running = [t for t in self.trials if "promise" in t.row and t.runtime.takes == "onnx"]
        if not self.wish.only:
            return running
        return [t for t in running if t.recipe.steps] or running

    def _refuse(self, candidate: Candidate, why: str) -> None:
        self.refused.append((candidate, why))
        self.workshop.store.journal.write("refused", recipe=str(candidate.recipe), why=why)

    def _tell(self, trial: Trial) -> None:
        """Write a trial down, and say it."""
        row = trial.row
        if "promise" not in row:
            self.workshop.store.journal.write("trial", trial=str(trial.recipe), why=trial.refused)
            return
        self.workshop.store.journal.write(
            "trial",
            trial=str(trial.recipe),
            p50_ms=row["latency_ms"]["p50"],
            drop=row["drop"]["value"],
            promise=round(row["promise"], 4),
        )
        faster = self.base.row["comparable_ms"] / row["comparable_ms"]
        self.progress.say(
            f"  {trial.recipe}: {row['comparable_ms']:.3g} ms, {faster:.2f}× the untouched model,"
            f" drop {row['drop']['value']:+.4f}, likely to be proven {row['promise']:.0%}"
        )

    def _tell_sketch(self, trial: Trial) -> None:
        row, steps = trial.row, " > ".join(map(str, trial.recipe.steps))
        faster = self.base.row["comparable_ms"] / row["comparable_ms"]
        drop = row.get("drop", {}).get("value")
        self.workshop.store.journal.write(
            "sketch", trial=str(trial.recipe), ms=row["comparable_ms"], drop=drop
        )
        said = "" if drop is None else f", drop {drop:+.4f}"
        self.progress.say(f"  sketch {steps}: {faster:.2f}× the untouched model{said}")


def optimize(  # noqa: PLR0913 - the verb's own options, by name
    source: Source,
    task: Task,
    out: Path,
    setting: Setting,
    wish: Wish | None = None,
    *,
    candidates: Sequence[Candidate] = (),
    context: Context | None = None,
    teacher: Teachers = None,
) -> dict[str, Any]:
    """Search in the folder `out`, continuing what is there already; return the result.

    Raises:
        FettleError: as the message says; nothing that was finished before is lost.
    """
    wish = wish or Wish()
    check_wish(wish, source.is_onnx)
    check_data(task)
    context = context or Context()
    with sole_worker(out), opened(setting, context.progress) as crew:
        journal = Journal(out / "journal.jsonl")
        check_folder(out, journal, source, setting)
        journal.write("start", command=setting.command, model=source.spec, data=setting.data)
        # without a teacher, students learn from the model that they are made of
        taught_by = teacher or (None if source.is_onnx else source)
        store = Store(out, journal)
        workshop = workshop_of(crew, setting, source, task, store, context, taught_by)
        check_teachers(workshop)
        search = Search(workshop, setting, out, wish)
        with board(search.progress, lambda: drawn(standing(search))):
            return search.run(candidates)
