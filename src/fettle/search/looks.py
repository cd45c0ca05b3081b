"""Several looks at `test`, at one level for all of them together.

The first candidate meets the test at most of the level; should it not be proven, the next gets
most of what is left, and so on. By Bonferroni's inequality, the probability that any candidate
passes whose true drop is over the budget is at most the sum of the levels, which never exceeds
1 − confidence. (Alpha spending: Lan & DeMets, Biometrika 70, 1983.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from fettle.core.verdict import Budget

SHARE = 0.8  # of what is left of the level, for each look


def budgets(budget: Budget) -> Iterator[Budget]:
    """Yield the budget of each look in turn; their levels never sum to more than the whole."""
    left = 1 - budget.confidence
    while True:
        spent = SHARE * left
        left -= spent
        yield replace(budget, confidence=1 - spent)
