"""Smaller shapes, trained in rounds: short for many, long for the few that can still win.

Successive halving (Jamieson & Talwalkar 2016, arXiv 1502.07943): each rung trains the survivors
`GROWTH` times as long as the one before, with distillation from the original, and continues from
its weights: a cosine schedule with a warm restart (Loshchilov & Hutter 2017, arXiv 1608.03983).
Those go on that promise most: the speed that a shape would win times the chance that its loss on
`select`, foretold to the last epoch that time allows, comes within the budget. Whoever is likely to
be proven is attempted at once; whoever came near in the last rung, quantized with training for it,
which takes three times as long as training without.

Under a time limit each rung takes its share of what is left, as in Hyperband (Li et al. 2018, arXiv
1603.06560), and the last one trains for as long as there is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from fettle.core.machine import this_machine
from fettle.core.recipe import Recipe, parse_step
from fettle.search._promise import LIKELY
from fettle.search.strategies._curves import Curves
from fettle.search.strategies._pace import Pace
from fettle.search.strategies._shapes import Shape, shapes
from fettle.search.strategies._strategy import Strategy
from fettle.search.strategies.training_free import has_free_lengths, last_for
from fettle.search.study import Candidate

if TYPE_CHECKING:
    from fettle.core.plugin import Plugin
    from fettle.search._trial import Trial
    from fettle.search.optimize import Search

RUNGS = (1, 3, 9, 27)  # epochs
# the peak of each rung: a large restart pays only where there is time to come down from it
RATES = (0.01, 0.02, 0.05, 0.05)
GROWTH = 3
NEAR = 2.0  # times the budget: what quantization-aware training may win back
LEAST_BUDGET = 0.002
_AWARE = "quantize.aware(epochs=2)"


@dataclass(frozen=True)
class Trained:
    """A shape, what taught it, and what came out: timed and scored, quantized without training."""

    shape: Shape
    steps: tuple[Plugin, ...]
    drop: float
    promise: float


class InRounds(Strategy):
    """Depth and width by measured time, then training by successive halving."""

    order: ClassVar[int] = 30
    title: ClassVar[str] = "smaller shapes: time them untrained, train in rounds"

    def applies(self, search: Search) -> bool:
        """Say whether there is a torch module to prune and data to train it with."""
        source = search.workshop.source
        return not source.is_onnx and search.task.size("train") > 0

    def explore(self, search: Search) -> None:
        """Train what is faster than the leader, rung by rung; quantize what comes near."""
        field = _spread(shapes(search))
        most, pace, curves = len(field), Pace(search.clock), Curves()
        taught: tuple[Plugin, ...] = ()
        trained: list[Trained] = []
        total = 0
        for rung, wanted in enumerate(RUNGS):
            epochs = pace.epochs(wanted, RUNGS[rung - 1] if rung else 0)
            if not epochs:
                break
            total += epochs
            taught = (*taught, parse_step(f"distill.logits({_knobs(epochs, RATES[rung])})"))
            until = pace.until(len(RUNGS) - rung)
            trained = self._rung(search, field[:most], taught, pace, until)
            self._finish(search, [t for t in trained if t.promise >= LIKELY], last_for(search))
            for each in trained:
                curves.add(each.shape, total, each.drop)
            end = total + pace.epochs(sum(RUNGS[rung + 1 :]), 0)
            field = _survivors(search, trained, curves, end)
            most = max(most // GROWTH, 1)
        if has_free_lengths(search):  # training for it captures one length
            return
        near = NEAR * _budget(search)
        missed = [t for t in trained if t.promise < LIKELY and t.drop <= near]
        self._finish(search, missed, _AWARE)

    def _rung(
        self,
        search: Search,
        field: list[Shape],
        taught: tuple[Plugin, ...],
        pace: Pace,
        until: float,
    ) -> list[Trained]:
        """Train one shape after the other to this rung, while its share of the time lasts."""
        trained: list[Trained] = []
        for shape in field:
            if trained and search.clock.left < until:
                break
            steps = shape.trained(*taught)
            trial = search.sketch(Recipe((*steps, parse_step(last_for(search)))), score=True)
            if trial is None:
                continue
            pace.observe(trial, taught[-1])
            row = trial.row
            trained.append(Trained(shape, steps, row["drop"]["value"], row["promise"]))
        return trained

    def _finish(self, search: Search, trained: list[Trained], last: str) -> None:
        """Attempt what is faster than the leader, the fastest first, until one is likely."""
        bar = search.leader.row["comparable_ms"] * (1 - search.least_gain)
        for each in sorted(trained, key=lambda t: t.shape.ms):
            if each.shape.ms > bar:
                return
            made = search.attempt(Candidate(Recipe((*each.steps, parse_step(last)))))
            if any(_is_likely(trial) for trial in made):
                return


def _spread(field: list[Shape]) -> list[Shape]:
    """Return the shapes in an order whose every beginning is spread over all of them.

    The middle comes first, then the middles of both halves: time may end anywhere.
    """
    order, waiting = [], [field]
    while waiting:
        part = waiting.pop(0)
        if part:
            middle = len(part) // 2
            order.append(part[middle])
            waiting += [part[:middle], part[middle + 1 :]]
    return order


def _survivors(search: Search, trained: list[Trained], curves: Curves, end: int) -> list[Shape]:
    """Return the shapes that would be faster than the leader, the most promising first.

    Args:
        search: tells the budget, and who leads.
        trained: the shapes of this rung.
        curves: what they have lost so far.
        end: how many epochs in all a shape may be trained for.
    """
    leader = float(search.leader.row["comparable_ms"])
    budget = _budget(search)
    gains = {
        each.shape: (leader / each.shape.ms - 1) * curves.chance(each.shape, end, budget)
        for each in trained
        if each.shape.ms < leader
    }
    return sorted(gains, key=lambda shape: gains[shape], reverse=True)


def _knobs(epochs: int, rate: float) -> str:
    """Return the knobs of a training: in 16 bits where the processor multiplies them faster."""
    half = ", precision='bf16-mixed'" if this_machine().has_bf16 else ""
    return f"epochs={epochs}, lr={rate}{half}"


def _budget(search: Search) -> float:
    return max(search.setting.budget.max_drop, LEAST_BUDGET)


def _is_likely(trial: Trial) -> bool:
    return float(trial.row.get("promise", 0.0)) >= LIKELY
