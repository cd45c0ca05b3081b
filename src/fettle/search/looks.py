"""Several looks at `test`, at one level for all of them together.

The first candidate meets the test at most of the level; should it not be proven, the next gets
most of what is left, and so on. By Bonferroni's inequality, the probability that any candidate
passes whose true drop is over the budget is at most the sum of the levels, which never exceeds
1 − confidence. (Alpha spending: Lan & DeMets, Biometrika 70, 1983.)

A search that is continued looks at the same examples again, so candidates are counted over all
runs of a folder: whoever repeats a search until it passes has no more luck than the level allows.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fettle.core.hashing import fingerprint
from fettle.core.verdict import Budget

if TYPE_CHECKING:
    from fettle.search._trial import Trial

SHARE = 0.8  # of what is left of the level, for each look
_MOST = 15  # looks; the levels of further ones are no numbers that differ from 1


def budgets(budget: Budget) -> Iterator[Budget]:
    """Yield the budget of each look in turn; their levels never sum to more than the whole."""
    left = 1 - budget.confidence
    while True:
        spent = SHARE * left
        left -= spent
        yield replace(budget, confidence=1 - spent)


def name_of(trial: Trial) -> str:
    """Return what tells a trial's answers from those of any other."""
    return fingerprint(trial.identity)


class Looks:
    """Who has met `test`, in this run and in earlier ones, and at which level the next will.

    `seen` names the candidates in the order in which they first met it. One that meets it again
    does so at its own level: the same examples have nothing new to say of it.
    """

    def __init__(self, budget: Budget, seen: Iterable[str] = ()) -> None:
        self._budgets = list(itertools.islice(budgets(budget), _MOST))
        self.seen = list(dict.fromkeys(seen))

    @classmethod
    def of(cls, budget: Budget, events: Iterable[Mapping[str, Any]], test: str) -> Looks:
        """Return the looks at the split of fingerprint `test` that a journal's `events` tell of."""
        told = (e for e in events if e.get("event") == "look" and e.get("test") == test)
        return cls(budget, [str(event["candidate"]) for event in told if "candidate" in event])

    def budget_of(self, candidate: str) -> Budget:
        """Return the budget at the level at which `candidate` meets, or would meet, the test."""
        known = candidate in self.seen
        turn = self.seen.index(candidate) if known else len(self.seen)
        return self._budgets[min(turn, _MOST - 1)]

    def take(self, candidate: str) -> Budget:
        """Let `candidate` meet the test; return the budget at its level."""
        budget = self.budget_of(candidate)
        if candidate not in self.seen:
            self.seen.append(candidate)
        return budget
