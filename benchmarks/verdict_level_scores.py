"""How often the verdict passes on the budget where scores are no zeros and ones.

Draws many paired studies whose true drop lies on the budget, and asks each bound whether it passes:
that is its level, and should be at most 5 %. In 0 … 1: fidelity, soft agreement. Without a range:
differences of squared errors (R²), heavy tails, pseudo-values of Spearman's ρ. Takes 3 minutes.

    python benchmarks/verdict_level_scores.py
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import numpy as np
from _results import record, table
from scipy import stats

from fettle.measure._bootstrap import mean_bounds
from fettle.measure._bounded import upper_mean
from fettle.tasks._rank import pseudo_values

ALPHA = 0.05
SIZES = {100: 400, 300: 200, 1000: 60}  # examples: studies
Draw = Callable[[np.random.Generator, int], np.ndarray]
Rule = Callable[[np.ndarray], float]


def student(differences: np.ndarray) -> float:
    """Return the upper bound of Student's t."""
    n = len(differences)
    return float(differences.mean() + stats.t.isf(ALPHA, n - 1) * differences.std(ddof=1) / n**0.5)


def bootstrap(differences: np.ndarray) -> float:
    """Return the studentised bootstrap's upper bound."""
    return mean_bounds(differences, 1.0, 1 - ALPHA, 0)[1]


def gaffke(differences: np.ndarray) -> float:
    """Return the bound for differences that can't exceed 1."""
    return upper_mean(differences, 1.0, ALPHA)


def squared_errors(rng: np.random.Generator, n: int, draw: Draw) -> np.ndarray:
    """Return what two models' squared errors differ by, one with a little noise added."""
    error = draw(rng, n)
    return (error + 0.3 * draw(rng, n)) ** 2 - error**2


def ranks(rng: np.random.Generator, n: int, noise: float = 0.5) -> np.ndarray:
    """Return differences of pseudo-values of ρ, of two models that judge the same pairs."""
    label = rng.integers(0, 26, n) / 5.0
    first = label + 1.5 * rng.normal(size=n)
    second = first + noise * rng.normal(size=n)
    return pseudo_values(first, label) - pseudo_values(second, label)


def rare(rng: np.random.Generator, n: int, share: float) -> np.ndarray:
    """Return losses of all, on a share of the examples, and nothing else."""
    return (rng.random(n) < share) * rng.uniform(0.5, 1, n)


def noisy(rng: np.random.Generator, n: int, spread: float) -> np.ndarray:
    """Return shares of noise, lognormal, at most 1."""
    return np.minimum(0.005 * np.exp(spread * rng.normal(size=n)), 1)


IN_RANGE: dict[str, Draw] = {
    "noise shares, lognormal σ = 0.5": partial(noisy, spread=0.5),
    "noise shares, lognormal σ = 1.5": partial(noisy, spread=1.5),
    "losses of ½ … 1 on 1 % of examples": partial(rare, share=0.01),
    "losses of ½ … 1 on 5 % of examples": partial(rare, share=0.05),
}
WITHOUT: dict[str, Draw] = {
    "normal": lambda rng, n: rng.normal(size=n),
    "Student's t, 3 degrees": lambda rng, n: rng.standard_t(3, n),
    "exponential": lambda rng, n: rng.exponential(size=n),
    "lognormal σ = 1": lambda rng, n: rng.lognormal(0, 1, n),
    "squared errors, normal": partial(squared_errors, draw=lambda rng, n: rng.normal(size=n)),
    "squared errors, t with 5 degrees": partial(
        squared_errors, draw=lambda rng, n: rng.standard_t(5, n)
    ),
    "pseudo-values of ρ": ranks,
}


def true_mean(draw: Draw) -> float:
    """Return the mean of a distribution, from many draws."""
    rng = np.random.default_rng(1)
    if draw is ranks:
        return float(np.mean([ranks(rng, 2000).mean() for _ in range(100)]))
    return float(np.mean([draw(rng, 1_000_000).mean() for _ in range(8)]))


def level(draw: Draw, rule: Rule, n: int, studies: int, budget: float) -> str:
    """Return the share of studies on the budget that pass."""
    rng = np.random.default_rng([n, 7])
    return f"{np.mean([rule(draw(rng, n)) <= budget for _ in range(studies)]):.1%}"


def lines(kinds: dict[str, Draw], rules: dict[str, Rule], most: int) -> list[list[str]]:
    """Return one line for each distribution and size."""
    found = []
    for name, draw in kinds.items():
        budget = true_mean(draw)
        for n, studies in SIZES.items():
            if n <= most:
                cells = [level(draw, rule, n, studies, budget) for rule in rules.values()]
                found.append([name, f"{n:,}", *cells])
                print(found[-1], flush=True)
    return found


def main() -> None:
    """Simulate, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--most", type=int, default=1000, help="examples in a study")
    most = parser.parse_args().most
    rules: dict[str, Rule] = {"Student's t": student, "bootstrap": bootstrap}
    head = ("differences", "n", *rules)
    note = (
        f"Share of studies that pass although their true drop lies on the budget; nominal"
        f" {ALPHA:.0%}. Studies: "
        + ", ".join(f"{s:,} of {n:,} examples" for n, s in SIZES.items())
        + ". The rules of a line share their studies; a cell of 60 has a standard error of 2.8"
        " points."
    )
    inside = lines(IN_RANGE, {**rules, "Gaffke": gaffke}, most)
    outside = lines(WITHOUT, rules, most)
    text = [note, "", "In 0 … 1:", "", *table((*head, "Gaffke"), inside), ""]
    text += ["Without a range:", "", *table(head, outside)]
    record("verdict-level-scores", "The verdict's level for scores other than 0 and 1", text)


if __name__ == "__main__":
    main()
