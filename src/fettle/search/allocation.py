"""The allocation: which option each part of a network takes, as an integer program.

A part (the precision of a layer, the width of a group of channels, a block that can go) takes one
of its options. What that costs is told by *terms*: each depends on a few parts, and knows damage
and milliseconds for every combination of their options. A layer's time depends on its precision, on
two widths, and on whether its block is there; damage, on one part. Both are sums over the terms:
damage by assumption (small changes add up in KL and in squared error), milliseconds as engines run
one kernel after the other.

    minimise    Σ_t Σ_a damage_t(a) · z_ta
    subject to  Σ_t Σ_a ms_t(a) · z_ta ≤ bound
                Σ_o x_po = 1                        for each part p
                Σ_{a: a_p = o} z_ta = x_po          for each term t, part p of it and option o
                x binary, z ≥ 0

With x integral, the last rows leave z no choice: it is 1 for the one combination that x says. HiGHS
solves it (Huangfu & Hall 2018, Math. Prog. Comp. 10). The dual question, the fastest for a bound on
damage, is the same with both sums exchanged.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fettle.core.errors import CheckFailed, InputError

_SECONDS = 5.0  # for one program; what was found by then is taken
_GAP = 1e-7  # relative, to the bound on the optimum
_TIE = 1e-7  # weight of the other sum: of two equal allocations the cheaper one is taken
_SLACK = 1e-6  # relative; a solver's tolerance on the bound


@dataclass(frozen=True)
class Cost:
    """Damage (KL in nats, or NMSE) and milliseconds; infinite damage forbids a combination."""

    damage: float = 0.0
    ms: float = 0.0


@dataclass(frozen=True)
class Term:
    """What some parts cost together, for every combination of their options, in `parts`' order."""

    parts: tuple[str, ...]
    costs: Mapping[tuple[str, ...], Cost]


@dataclass(frozen=True)
class Problem:
    """The options of each part, the first of which leaves it as it is, and what they cost.

    Raises:
        InputError: a term that names no part, or lacks a combination, or a cost that is no number.
    """

    parts: Mapping[str, tuple[str, ...]]
    terms: tuple[Term, ...]

    def __post_init__(self) -> None:
        for term in self.terms:
            unknown = [part for part in term.parts if part not in self.parts]
            if unknown or len(set(term.parts)) < len(term.parts):
                raise InputError(
                    f"a term expects different parts of the problem, got {list(term.parts)};"
                    f" parts: {', '.join(self.parts)}"
                )
            wanted = set(itertools.product(*(self.parts[part] for part in term.parts)))
            if wanted != set(term.costs):
                odd = min(wanted ^ set(term.costs))
                raise InputError(
                    f"a term expects a cost for each of {len(wanted)} combinations of the options"
                    f" of {list(term.parts)}, and nothing else; {odd} is missing or strange"
                )
            if any(math.isnan(c.damage) or not math.isfinite(c.ms) for c in term.costs.values()):
                raise InputError(f"the costs of {list(term.parts)} hold NaN, or infinite ms")

    @property
    def unchanged(self) -> Allocation:
        """The allocation that leaves every part as it is."""
        return self.allocation({part: options[0] for part, options in self.parts.items()})

    def allocation(self, chosen: Mapping[str, str], proven: bool = True) -> Allocation:
        """Return what it costs to choose so."""
        costs = [term.costs[tuple(chosen[part] for part in term.parts)] for term in self.terms]
        damage, ms = math.fsum(c.damage for c in costs), math.fsum(c.ms for c in costs)
        return Allocation(dict(chosen), damage, ms, proven)


@dataclass(frozen=True)
class Allocation:
    """An option for each part, and what they cost together.

    `proven` says that no other is better; without it, the solver ran out of time.
    """

    chosen: Mapping[str, str]
    damage: float
    ms: float
    proven: bool = True


def least_damage(problem: Problem, ms: float) -> Allocation:
    """Return the allocation of least damage that takes at most `ms`.

    Raises:
        CheckFailed: there is none; says what the fastest takes.
    """
    found = _solve(problem, _Sums.of(problem), ms)
    if found is None:
        least = _solve(problem, _Sums.of(problem).swapped(), math.inf)
        told = f"the fastest takes {least.ms:.4g} ms" if least else "every one is forbidden"
        raise CheckFailed(f"no allocation takes at most {ms:.4g} ms: {told}; allow more")
    return found


def fastest(problem: Problem, damage: float = math.inf) -> Allocation:
    """Return the fastest allocation whose damage is at most `damage`.

    Raises:
        CheckFailed: there is none; says what the least damage is.
    """
    found = _solve(problem, _Sums.of(problem).swapped(), damage)
    if found is None:
        least = _solve(problem, _Sums.of(problem), math.inf)
        told = f"the least is {least.damage:.4g}" if least else "every one is forbidden"
        raise CheckFailed(f"no allocation does at most {damage:.4g} of damage: {told}; allow more")
    return found


def frontier(problem: Problem, budgets: Sequence[float]) -> list[Allocation]:
    """Return the allocations of least damage for a ladder of budgets in ms, the slowest first.

    Budgets that can't be met are passed over; two that lead to one allocation give it once.

    Raises:
        CheckFailed: no budget can be met.
    """
    reachable = fastest(problem).ms
    met = [ms for ms in sorted(budgets, reverse=True) if ms >= reachable]
    if not met:
        raise CheckFailed(
            f"no allocation takes at most {max(budgets, default=0.0):.4g} ms: the fastest takes"
            f" {reachable:.4g} ms; allow more"
        )
    found: list[Allocation] = []
    for ms in met:
        allocation = least_damage(problem, ms)
        if allocation.chosen not in [each.chosen for each in found]:
            found.append(allocation)
    return found


@dataclass(frozen=True)
class _Sums:
    """What every variable adds to the sum that is made small, and to the one that is bounded."""

    small: np.ndarray
    bounded: np.ndarray
    columns: _Columns

    @classmethod
    def of(cls, problem: Problem) -> _Sums:
        columns = _Columns(problem)
        damage, ms = np.zeros(len(columns)), np.zeros(len(columns))
        for column, cost in columns.costs():
            damage[column] += cost.damage
            ms[column] += cost.ms
        return cls(damage, ms, columns)

    def swapped(self) -> _Sums:
        return _Sums(self.bounded, self.small, self.columns)


class _Columns:
    """The numbers of the variables: first x, one for each option; then z, of terms of several."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        options = ((part, o) for part, every in problem.parts.items() for o in every)
        self.option = {pair: column for column, pair in enumerate(options)}
        self.joint: list[tuple[Term, tuple[str, ...]]] = [
            (term, key) for term in problem.terms if len(term.parts) > 1 for key in term.costs
        ]

    def __len__(self) -> int:
        return len(self.option) + len(self.joint)

    def costs(self) -> Iterator[tuple[int, Cost]]:
        """Yield what each variable costs; one may come several times."""
        for term in self.problem.terms:
            if len(term.parts) == 1:
                for (option,), cost in term.costs.items():
                    yield self.option[term.parts[0], option], cost
            elif not term.parts:  # a constant: every allocation has one option of the first part
                part, options = next(iter(self.problem.parts.items()))
                yield from ((self.option[part, o], term.costs[()]) for o in options)
        for column, (term, key) in enumerate(self.joint, start=len(self.option)):
            yield column, term.costs[key]

    def rows(self) -> tuple[Any, np.ndarray]:
        """Return the equations' matrix and right-hand side."""
        from scipy.sparse import csr_array

        number = {(part, option): i for i, (part, option) in enumerate(self.option)}
        entries: list[tuple[int, int, float]] = []
        sides: list[float] = []
        for part, options in self.problem.parts.items():
            entries += [(len(sides), number[part, option], 1.0) for option in options]
            sides.append(1.0)
        for term, columns in self._of_terms():
            for place, part in enumerate(term.parts):
                for option in self.problem.parts[part]:
                    alike = [c for key, c in columns.items() if key[place] == option]
                    entries += [(len(sides), column, 1.0) for column in alike]
                    entries.append((len(sides), number[part, option], -1.0))
                    sides.append(0.0)
        rows, cols, values = (list(each) for each in zip(*entries, strict=True))
        shape = (len(sides), len(self))
        return csr_array((values, (rows, cols)), shape=shape), np.array(sides)

    def _of_terms(self) -> Iterator[tuple[Term, dict[tuple[str, ...], int]]]:
        start = len(self.option)
        numbered = enumerate(self.joint, start=start)
        for _, group in itertools.groupby(numbered, key=lambda each: id(each[1][0])):
            pairs = list(group)
            yield pairs[0][1][0], {key: column for column, (_, key) in pairs}

    def chosen(self, x: np.ndarray) -> dict[str, str]:
        """Return the options that a solution takes."""
        return {
            part: max(options, key=lambda option, part=part: x[self.option[part, option]])  # type: ignore[misc]
            for part, options in self.problem.parts.items()
        }


def _solve(problem: Problem, sums: _Sums, bound: float) -> Allocation | None:
    """Return the allocation that makes one sum least while the other is bounded, None for none."""
    if not problem.parts:
        raise InputError("an allocation expects at least one part with options, got none")
    from scipy.optimize import Bounds, LinearConstraint, milp

    columns = sums.columns
    forbidden = ~(np.isfinite(sums.small) & np.isfinite(sums.bounded))
    small, bounded = (np.where(forbidden, 0.0, each) for each in (sums.small, sums.bounded))
    matrix, sides = columns.rows()
    rules = [LinearConstraint(matrix, sides, sides)]
    unit = _unit(bounded)
    if math.isfinite(bound):
        rules.append(LinearConstraint(bounded[None] / unit, -np.inf, bound / unit * (1 + _SLACK)))
    integral = np.arange(len(columns)) < len(columns.option)
    result = milp(
        small / _unit(small) + _TIE * bounded / unit,
        integrality=integral.astype(int),
        bounds=Bounds(0.0, np.where(forbidden, 0.0, 1.0)),
        constraints=rules,
        options={"time_limit": _SECONDS, "mip_rel_gap": _GAP},
    )
    if result.x is None:
        return None
    return problem.allocation(columns.chosen(result.x), proven=result.status == 0)


def _unit(costs: np.ndarray) -> float:
    """Return the largest size among the costs, in which they are counted."""
    return float(np.abs(costs).max(initial=0.0)) or 1.0
