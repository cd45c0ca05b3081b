"""A study: several recipes for one model, measured, and the winner proven on unseen data.

`select` chooses; `test` is read once, for the verdict. Leaving the model alone, on every engine and
in every floating-point precision, is always among the candidates.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fettle.core.errors import CheckFailed, InputError, ModelError
from fettle.core.recipe import Recipe
from fettle.core.shelf import RUNTIMES
from fettle.core.verdict import Budget, Verdict
from fettle.measure.noninferiority import drop_of, verdict_of
from fettle.runtimes import Runtime
from fettle.search._guessing import only_guesses
from fettle.search._original import judged_task
from fettle.search._result import Findings, metric_of, result_of
from fettle.search._sealing import seal
from fettle.search._trial import Trial, name_of, precision_of
from fettle.search.executors import Executor
from fettle.search.workshop import Workshop
from fettle.tasks import AUTO


@dataclass(frozen=True)
class Candidate:
    """A recipe to try, under a name for people; without one, its steps name it."""

    recipe: Recipe
    name: str = ""


@dataclass(frozen=True)
class Setting:
    """Under which circumstances a study decides.

    `target` names the runtimes; `batch` and `threads` are what the artifact will be served with;
    `seconds` is how long all trials together are timed; `only_given` says that the winner must be
    one of the given recipes, not the model left alone; `command` is for the record;
    `data` and `kind` name the task where nodes load it for themselves, for an `executor` other than
    this process.
    """

    budget: Budget = field(default_factory=Budget)
    target: tuple[str, ...] = ("onnxruntime", "openvino")
    batch: int = 1
    threads: int = 0
    seconds: float = 20.0
    only_given: bool = False
    command: str = ""
    data: str = ""
    kind: str = AUTO
    executor: Executor | None = None


class Study:
    """Makes, measures and judges candidates; `run` returns the result of the contract."""

    def __init__(self, workshop: Workshop, setting: Setting, out: Path) -> None:
        workshop.task = judged_task(workshop, setting.target)
        budget = replace(setting.budget, metric=workshop.task.metric)
        self.workshop, self.setting, self.out = workshop, replace(setting, budget=budget), out
        self.progress = workshop.context.progress
        self.measuring = workshop.measuring(setting.batch, setting.seconds, self.progress)

    def run(self, candidates: Sequence[Candidate]) -> dict[str, Any]:
        """Try all candidates and return the result, as `fettle optimize --json` prints it.

        Writes `result.json`, `report.html` and the bundle `best` into the study's folder.

        Raises:
            CheckFailed: no runtime could run the model as it is, or what the recipes made of it.
            InputError: a recipe that can't work, which is said before any of them is begun.
        """
        started = time.perf_counter()
        trials = self._trials(self._checked(candidates))
        self.open(trials)
        running = [trial for trial in trials if trial.session is not None]
        eligible = self._eligible(trials, candidates)
        timing = self._time(running)
        base = min((t for t in running if t.is_fp32), key=_latency)
        self._score(running, base)
        winner = choose(eligible, self.setting.budget)
        verdict = self._prove(winner, base)
        seconds = time.perf_counter() - started
        findings = Findings(trials, base, winner, verdict, timing, seconds)
        return seal(self, findings, result_of(self, findings))

    def _checked(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Return the candidates, the model left alone among them, found fit to be begun."""
        lines = [str(candidate.recipe) for candidate in candidates]
        if len(set(lines)) < len(lines):
            raise InputError(f"`candidates` expects different recipes, got {lines}")
        for candidate in candidates:
            self.workshop.check(candidate.recipe)
            for runtime in self._runtimes(candidate.recipe):
                _need_onnx(runtime)
        if Recipe() in [candidate.recipe for candidate in candidates]:
            return list(candidates)
        return [Candidate(Recipe()), *candidates]

    def open(self, trials: Sequence[Trial]) -> None:
        """Build the session of each trial.

        Raises:
            InputError: the model is quantized already; told before anything is tried.
            ModelError: the runtimes that are here refuse the model as it is.
            CheckFailed: there is no runtime for it here.
        """
        plain = [trial for trial in trials if trial.is_fp32]
        if not plain:
            raise InputError(
                "the model is quantized already, so there is no FP32 to compare with: give the"
                " model that it was made of; `fettle bench` and `fettle inspect` take it as it is"
            )
        for trial in trials:
            self.measuring.open(trial)
        if not any(trial.session for trial in plain):
            _refuse_all(plain)

    def _trials(self, candidates: Sequence[Candidate]) -> list[Trial]:
        self.workshop.begin(candidate.recipe for candidate in candidates)
        trials = [] if self.workshop.source.is_onnx else [self._torch_trial()]
        for candidate in candidates:
            trials += self._trials_of(candidate)
        by_label = {trial.label: trial for trial in trials}
        return list(by_label.values())

    def _trials_of(self, candidate: Candidate) -> list[Trial]:
        made = self.workshop.make(candidate.recipe)
        trials = []
        for runtime in self._runtimes(candidate.recipe):
            precision = precision_of(made.path, runtime)
            name = candidate.name if candidate.recipe.steps else ""
            name = name or name_of(candidate.recipe, precision)
            recipe = candidate.recipe.on(runtime)
            trials.append(Trial(name, recipe, runtime, made.key, made.path, precision, made.stages))
        return trials

    def _runtimes(self, recipe: Recipe) -> list[Runtime]:
        """Return the recipe's own runtime, or all of the target's; the plain model in bf16 too."""
        if isinstance(recipe.runtime, Runtime):
            threads = recipe.runtime.threads or self.setting.threads
            return [recipe.runtime.but(threads=threads)]
        runtimes = [self._runtime(name) for name in self.setting.target]
        if not recipe.steps and "openvino" in self.setting.target:
            runtimes.append(self._runtime("openvino", precision="bf16"))
        return runtimes

    def _runtime(self, name: str, **knobs: Any) -> Runtime:
        runtime = RUNTIMES.make(name, threads=self.setting.threads, **knobs)
        assert isinstance(runtime, Runtime)
        return runtime

    def _torch_trial(self) -> Trial:
        """Return the untouched module where the target runs: a reference, which never wins."""
        on_gpu = any(self._runtime(name).runs_on == "cuda" for name in self.setting.target)
        runtime = self._runtime("pytorch", device="cuda" if on_gpu else "as_is")
        module, key = self.workshop.module(), self.workshop.key()
        return Trial("FP32", Recipe((), runtime), runtime, key, module, "f32")

    def _time(self, trials: Sequence[Trial]) -> dict[str, Any]:
        self.progress.say(f"time {len(trials)} artifacts, interleaved")
        timing = self.measuring.timing(trials)
        for trial in trials:
            trial.row.update(timing["rows"][trial.label])
        if timing["warning"]:
            self.progress.say(timing["warning"])
        return timing

    def _score(self, trials: Sequence[Trial], base: Trial) -> None:
        reference = self.measuring.scores(base, "select")
        confidence = self.setting.budget.confidence
        with self.progress.bar("score", len(trials)) as bar:
            for trial in trials:
                scores = self.measuring.scores(trial, "select")
                trial.row["metric"] = metric_of(scores, "select")
                trial.row["drop"] = drop_of(reference, scores, confidence).to_json()
                bar.step(f"{trial.name} @ {trial.runtime}")
        if base in trials:
            self._doubt(base)

    def _doubt(self, base: Trial) -> None:
        doubt = only_guesses(self.workshop.task, base.row["metric"])
        if doubt is not None:
            self.progress.say(doubt)

    def _eligible(self, trials: Sequence[Trial], given: Sequence[Candidate]) -> list[Trial]:
        """Return the trials that may win.

        Raises:
            CheckFailed: no runtime runs any of them.
        """
        pool = [t for t in trials if t.runtime.takes == "onnx"]
        if self.setting.only_given and given:
            pool = [t for t in pool if any(self._is_of(t, c.recipe) for c in given)]
        running = [t for t in pool if t.session is not None]
        if not running:
            reasons = "; ".join(f"{t.recipe}: {t.refused}" for t in pool)
            raise CheckFailed(f"no runtime runs what came out ({reasons}); try another target")
        return running

    def _is_of(self, trial: Trial, recipe: Recipe) -> bool:
        return trial.recipe.steps == recipe.steps and trial.runtime in self._runtimes(recipe)

    def _prove(self, winner: Trial, base: Trial) -> Verdict:
        self.progress.say(f"prove on test: {winner.recipe}")
        reference, scores = (self.measuring.scores(t, "test") for t in (base, winner))
        for trial, found in ((base, reference), (winner, scores)):
            trial.proof["metric"] = metric_of(found, "test")
        verdict = verdict_of(reference, scores, self.setting.budget)
        winner.proof["drop"] = verdict.drop.to_json()
        return verdict


def choose(trials: Sequence[Trial], budget: Budget) -> Trial:
    """Return the fastest trial that is likely to be proven inside the budget.

    Likely means that its drop on `select` is at most half of the budget, which leaves the other
    half to the uncertainty of the test. Without such a one, the trial with the smallest drop.
    """
    likely = [t for t in trials if t.row["drop"]["value"] <= budget.max_drop / 2]
    if likely:
        return min(likely, key=_latency)
    return min(trials, key=lambda t: (t.row["drop"]["value"], _latency(t)))


def _latency(trial: Trial) -> float:
    return float(trial.row["latency_ms"]["p50"])


def _need_onnx(runtime: Runtime) -> None:
    if runtime.takes != "onnx":
        raise InputError(
            f"`{runtime}` can't run what a study makes, which is ONNX; give another runtime, such"
            " as onnxruntime or openvino (PyTorch is always measured beside them)"
        )


def _refuse_all(plain: Sequence[Trial]) -> None:
    """Say why no runtime runs the model as it is."""
    reasons = "; ".join(f"{t.runtime}: {t.refused}" for t in plain)
    present = any(trial.runtime.supports() is None for trial in plain)
    raise (ModelError if present else CheckFailed)(
        "no runtime runs the model as it is, so there is nothing to compare with"
        f" ({reasons}); "
        + ("give a model that one of them takes" if present else "see `fettle doctor`")
    )
