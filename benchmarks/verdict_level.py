"""How often the verdict passes: on the budget (its level) and inside it (its power).

Draws many paired studies of 0/1 scores for each setting and asks the exact test of
`fettle.measure` whether it passes. The normal approximations that it replaces are asked too, on
the same studies. Prints a table in Markdown.

    python benchmarks/verdict_level.py [--studies 20000]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from functools import cache

import numpy as np

from fettle.measure._paired_binary import p_value, score_statistic

ALPHA, Z = 0.05, 1.6448536269514722
SIZES = (100, 300, 1000, 10_000)
BUDGETS = (0.005, 0.01, 0.02)
DISAGREEMENTS = (0.005, 0.02, 0.1)
Rule = Callable[[int, int, int, float], bool]


@cache
def exact(b: int, c: int, n: int, budget: float) -> bool:
    """Pass by the exact test."""
    return p_value(b, c, n, budget, ALPHA) <= ALPHA


def tango(b: int, c: int, n: int, budget: float) -> bool:
    """Pass by Tango's score test with the normal quantile."""
    return float(score_statistic(np.array([b]), np.array([c]), n, budget)[0]) <= -Z


def wald(b: int, c: int, n: int, budget: float) -> bool:
    """Pass by mean + 1.645 standard errors."""
    drop = (b - c) / n
    return drop + Z * np.sqrt(((b + c) / n - drop**2) / n) <= budget


def pass_rate(rule: Rule, counts: np.ndarray, n: int, budget: float) -> float:
    """Return the share of studies, counts (b, c) of shape (studies, 2), that pass."""
    pairs, times = np.unique(counts, axis=0, return_counts=True)
    passed = [rule(int(b), int(c), n, budget) for b, c in pairs]
    return float(times[passed].sum() / times.sum())


def studies(n: int, drop: float, disagreement: float, many: int) -> np.ndarray:
    """Draw counts (lost, won) of `many` studies with this true drop, shape (many, 2)."""
    lost, won = (disagreement + drop) / 2, (disagreement - drop) / 2
    rng = np.random.default_rng([n, round(1e6 * drop), round(1e6 * disagreement)])
    return rng.multinomial(n, [lost, won, 1 - lost - won], size=many)[:, :2]


def settings() -> Iterable[tuple[int, float, float]]:
    """Yield n, budget and disagreement; a drop can't exceed the disagreement."""
    for n in SIZES:
        for budget in BUDGETS:
            for disagreement in DISAGREEMENTS:
                yield n, budget, max(disagreement, budget)


def row(n: int, budget: float, disagreement: float, many: int) -> str:
    """Return one line of the table."""
    on = studies(n, budget, disagreement, many)
    level = [pass_rate(rule, on, n, budget) for rule in (exact, tango, wald)]
    inside = studies(n, 0.0, disagreement, many)
    power = [pass_rate(rule, inside, n, budget) for rule in (exact, tango)]
    cells = [f"{n:,}", f"{budget:.1%}", f"{disagreement:.1%}"]
    cells += [f"{x:.4f}" for x in level] + [f"{x:.3f}" for x in power]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=20_000)
    many = parser.parse_args().studies
    print(
        "| n | budget | disagreement | level: exact | level: Tango | level: Wald"
        " | power at no drop: exact | power: Tango |\n|" + "---|" * 8
    )
    for n, budget, disagreement in dict.fromkeys(settings()):
        print(row(n, budget, disagreement, many), flush=True)


if __name__ == "__main__":
    main()
