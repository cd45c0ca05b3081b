"""A search without the work: what would be tried, in which order, and what it would cost.

The strategies are asked as in a search, and told what the folder knows already. What it doesn't
know is assumed: that a shape which wasn't tried is faster than the leader and inside the budget,
so that whoever could be trained is. The list is therefore what a search tries at most; what really
comes of an early try ends most of the later ones.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fettle.core.errors import FettleError
from fettle.core.recipe import Recipe
from fettle.runtimes import Runtime
from fettle.search._costs import Costs
from fettle.search._overlay import NotDone, Overlay
from fettle.search._promise import LIKELY
from fettle.search._store import Stage
from fettle.search._trial import Trial
from fettle.search.clock import Clock, OutOfTime
from fettle.search.optimize import Search, Wish
from fettle.search.strategies import Strategy, strategies
from fettle.search.study import Candidate, Setting
from fettle.search.workshop import Workshop

if TYPE_CHECKING:
    from fettle.core.plugin import Plugin

ASSUMED = (
    "assumed of what wasn't tried yet: INT8 takes half the time, and less by what is removed; all"
    " is inside the budget after its training; so this is about the most that would be tried"
)
_FASTER = 0.5  # of the untouched model's time: what is assumed of INT8 that wasn't timed


@dataclass(frozen=True)
class Foreseen:
    """One thing that would be done: `kind` is `trial`, `sketch` or `unknown`.

    `seconds` is what is left to do of it, as far as that is known; `unknown` names the steps of
    which it isn't; `there` says that nothing is left; `part` is the title of the strategy.
    """

    part: str
    kind: str
    what: str
    seconds: float = 0.0
    unknown: tuple[str, ...] = ()
    there: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {**asdict(self), "unknown": list(self.unknown)}


class Rehearsal(Search):
    """A search whose `attempt` and `sketch` note what is asked, and answer what is known."""

    def __init__(
        self, workshop: Workshop, setting: Setting, out: Path, wish: Wish, costs: Costs
    ) -> None:
        super().__init__(workshop, setting, out, wish)
        self.now, self.costs, self.part = 0.0, costs, "the model left alone"
        self.clock = Clock(wish.seconds, now=lambda: self.now)
        self.foreseen: list[Foreseen] = []
        assert isinstance(workshop.store, Overlay)
        self.overlay = workshop.store
        self._known = _outcomes(self.overlay.below.journal.read())
        self._planned: set[str] = set()

    def foresee(self) -> list[Foreseen]:
        """Return what would be done, in order."""
        self._meet_untouched()
        try:
            for strategy in strategies():
                self.part = strategy.title
                if strategy.applies(self):
                    self._ask(strategy)
        except OutOfTime:
            self._note("unknown", "here the time limit ends the search")
        return self.foreseen

    def attempt(self, candidate: Candidate) -> list[Trial]:
        """Note a candidate; return trials as they are known or assumed to come out."""
        recipe = candidate.recipe
        known = [t for t in self.trials if t.recipe.steps == recipe.steps]
        if known or not self.wish.allows(recipe):
            return known
        self.clock.check()
        if not self._can(recipe):
            return []
        made = [self._imagined(recipe.on(runtime)) for runtime in self._runtimes(recipe)]
        new = sum(str(trial.recipe) not in self._known for trial in made)
        self._cost("trial", recipe, self._measured(new))
        self.trials += made
        return made

    def sketch(self, recipe: Recipe, score: bool = False) -> Trial | None:
        """Note a sketch; return it as it is known or assumed to come out."""
        del score
        if not self.wish.allows(recipe):
            return None
        self.clock.check()
        if not self._can(recipe):
            return None
        trial = self._imagined(recipe.on(self._runtimes(recipe)[0]))
        new = not any(line.startswith(f"{recipe} @") for line in self._known)
        self._cost("sketch", recipe, self._measured(int(new)))
        return trial

    def promise(self, trial: Trial) -> float:
        """Return what is known or assumed."""
        return float(trial.row["promise"])

    def _ask(self, strategy: Strategy) -> None:
        if strategy.instead:
            self._note("unknown", strategy.instead)
            return
        try:
            strategy.explore(self)
        except NotDone as missing:
            self._note("unknown", f"what follows depends on `{missing}`, not yet done")
        except FettleError as error:
            self._note("unknown", f"what follows can't be foreseen: {error}")

    def _meet_untouched(self) -> None:
        self.overlay.works = True
        self.trials = self._trials(self._checked(()))
        self.overlay.works = False
        for trial in self.trials:
            trial.refused = trial.runtime.supports()
            if not trial.refused:
                trial.row = self._row(trial.recipe, 1.0)
        running = [t for t in self.trials if t.is_fp32 and t.row and isinstance(t.model, Path)]
        self._base = min(running or self.trials, key=lambda t: t.row.get("comparable_ms", 1.0))
        self.costs.learn(self.overlay.journal.read())  # the export that was made beside
        known = [str(t.recipe) in self._known for t in self.trials if t.row]
        what, new = f"on {len(known)} engines and precisions", known.count(False)
        self._note("trial", what, self._measured(new), there=not new)

    def _can(self, recipe: Recipe) -> bool:
        try:
            self.workshop.check(recipe)
        except FettleError:
            return False
        return True

    def _imagined(self, recipe: Recipe) -> Trial:
        last = recipe.steps[-1].name() if recipe.steps else ""
        precision = "int8" if last.startswith(("quantize.", "graph.")) else "f32"
        stages = tuple(Stage(str(s), self.costs.of(s) or 0.0, cached=False) for s in recipe.steps)
        assert isinstance(recipe.runtime, Runtime)
        trial = Trial("", recipe, recipe.runtime, "", Path(), precision, stages)
        kept = math.prod(1 - float(getattr(step, "ratio", 0.0)) for step in recipe.steps)
        trial.row = self._row(recipe, _FASTER * kept * float(self.base.row["comparable_ms"]))
        return trial

    def _row(self, recipe: Recipe, ms: float) -> dict[str, Any]:
        found = self._known.get(str(recipe), {})
        time, drop = float(found.get("ms") or ms), float(found.get("drop") or 0.0)
        return {
            "comparable_ms": time,
            "latency_ms": {"p50": time},
            "throughput": 1000 * self.setting.batch / time,
            "drop": {"value": drop},
            "promise": found.get("promise", LIKELY),
        }

    def _cost(self, kind: str, recipe: Recipe, measuring: float) -> None:
        steps = self._missing(recipe)
        costs = {str(step): self.costs.of(step) for step in steps}
        names = {str(step): step.name() for step in steps}
        if steps:
            costs["export"] = self.costs.named("export")
        unknown = tuple(names.get(name, name) for name, cost in costs.items() if cost is None)
        seconds = measuring + sum(cost or 0.0 for cost in costs.values())
        self._note(kind, str(recipe), seconds, unknown, there=not steps and not measuring)

    def _missing(self, recipe: Recipe) -> list[Plugin]:
        """Return the steps that are neither there nor planned before."""
        try:
            self.workshop.make(recipe)
        except (NotDone, FettleError):
            pass
        else:
            return []
        chains = [recipe.techniques[:end] for end in range(1, len(recipe.techniques) + 1)]
        keys = [self.workshop.key(chain) for chain in chains]
        new = [k not in self._planned and not self.overlay.has(k) for k in keys]
        self._planned.update(keys)
        missing = [chain[-1] for chain, is_new in zip(chains, new, strict=True) if is_new]
        return [*missing, *recipe.passes]

    def _measured(self, trials: int) -> float:
        """Return the seconds of timing so many trials; scoring them comes on top, and is short."""
        return trials * (self.quick.plan.seconds + (self.costs.named("score") or 0.0))

    def _note(
        self,
        kind: str,
        what: str,
        seconds: float = 0.0,
        unknown: tuple[str, ...] = (),
        there: bool = False,
    ) -> None:
        self.now += seconds
        self.foreseen.append(Foreseen(self.part, kind, what, seconds, unknown, there))


def _outcomes(events: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return ms, drop and promise by the line of each trial and sketch that the journal has."""
    found: dict[str, dict[str, Any]] = {}
    for event in events:
        if event.get("event") in ("trial", "sketch") and ("ms" in event or "p50_ms" in event):
            row = {"ms": event.get("ms", event.get("p50_ms")), "drop": event.get("drop")}
            if event.get("promise") is not None:
                row["promise"] = event["promise"]
            found[str(event["trial"])] = row
    return found
