"""The integer program against trying every allocation there is."""

import itertools
import math

import numpy as np
import pytest

from fettle.core.errors import CheckFailed, InputError
from fettle.search.allocation import (
    Allocation,
    Cost,
    Problem,
    Term,
    fastest,
    frontier,
    least_damage,
)


def term(rng, options, *parts):
    keys = itertools.product(*(options[part] for part in parts))
    damage, ms = (lambda: float(rng.exponential())), (lambda: float(rng.uniform(0.1, 2)))
    return Term(parts, {key: Cost(damage(), ms()) for key in keys})


def network(seed):
    """Layers in a row: precision, two widths and a block each, as random as can be."""
    rng = np.random.default_rng(seed)
    options = {"w0": ("16", "8"), "w1": ("16", "12", "8"), "w2": ("16", "8")}
    options |= {"block": ("kept", "dropped"), "p0": ("int8", "float"), "p1": ("int8", "float")}
    terms = [term(rng, options, part) for part in options]
    terms += [term(rng, options, "w0", "w1", "p0", "block")]
    terms += [term(rng, options, "w1", "w2", "p1", "block"), term(rng, options, "w0", "w2")]
    return Problem(options, tuple(terms))


def every(problem):
    """Return all allocations, each with what it costs by plain addition."""
    found = []
    for choice in itertools.product(*problem.parts.values()):
        chosen = dict(zip(problem.parts, choice, strict=True))
        costs = [t.costs[tuple(chosen[p] for p in t.parts)] for t in problem.terms]
        found.append(Allocation(chosen, sum(c.damage for c in costs), sum(c.ms for c in costs)))
    return found


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("quantile", [0.0, 0.1, 0.5, 0.9])
def test_least_damage_is_that_of_enumeration(seed, quantile):
    problem = network(seed)
    known = every(problem)
    bound = float(np.quantile([a.ms for a in known], quantile)) * (1 + 1e-9)
    best = min((a for a in known if a.ms <= bound), key=lambda a: a.damage)
    found = least_damage(problem, bound)
    assert found.proven
    assert found.damage == pytest.approx(best.damage, rel=1e-5)
    assert found.ms <= bound * (1 + 1e-5)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("quantile", [0.0, 0.3, 0.8])
def test_the_fastest_within_a_damage_is_that_of_enumeration(seed, quantile):
    problem = network(seed)
    known = every(problem)
    bound = float(np.quantile([a.damage for a in known], quantile)) * (1 + 1e-9)
    best = min((a for a in known if a.damage <= bound), key=lambda a: a.ms)
    assert fastest(problem, bound).ms == pytest.approx(best.ms, rel=1e-5)


def test_costs_are_the_sums_of_what_was_chosen():
    problem = network(0)
    found = least_damage(problem, math.inf)
    same = next(a for a in every(problem) if a.chosen == found.chosen)
    assert (found.damage, found.ms) == pytest.approx((same.damage, same.ms))
    assert problem.unchanged.chosen == {part: o[0] for part, o in problem.parts.items()}


def test_tiny_damages_are_told_apart():
    """KL of int8 is a millionth; a solver's tolerance must not swallow it."""
    options = {f"l{i}": ("int8", "float") for i in range(12)}
    costs = {f"l{i}": 1e-7 * (1 + i) for i in range(12)}
    terms = [
        Term((p,), {("int8",): Cost(costs[p], 1.0), ("float",): Cost(0.0, 3.0)}) for p in options
    ]
    found = least_damage(Problem(options, tuple(terms)), 12 + 2 * 3)
    assert {p for p, o in found.chosen.items() if o == "float"} == {"l9", "l10", "l11"}


def test_what_is_forbidden_is_not_chosen():
    options = {"a": ("x", "y"), "b": ("x", "y")}
    costs = dict.fromkeys(itertools.product("xy", "xy"), Cost(1.0, 1.0))
    costs["x", "y"], costs["y", "y"] = Cost(math.inf, 0.0), Cost(math.inf, 0.0)
    problem = Problem(
        options, (Term(("a", "b"), costs), Term(("a",), {("x",): Cost(2), ("y",): Cost(3)}))
    )
    assert fastest(problem).chosen["b"] == "x"
    assert least_damage(problem, 5.0).chosen == {"a": "x", "b": "x"}


def test_what_can_not_be_met_says_what_could():
    problem = network(1)
    least = min(a.ms for a in every(problem))
    with pytest.raises(CheckFailed, match=f"the fastest takes {least:.4g} ms"):
        least_damage(problem, least / 2)
    with pytest.raises(CheckFailed, match="the least is"):
        fastest(problem, -1.0)
    with pytest.raises(CheckFailed, match="the fastest takes"):
        frontier(problem, [least / 2, least / 3])


def test_the_frontier_goes_down_in_time_and_up_in_damage():
    problem = network(2)
    times = [a.ms for a in every(problem)]
    found = frontier(problem, np.linspace(min(times) / 2, max(times), 12))
    assert len(found) > 3
    assert all(a.ms > b.ms for a, b in itertools.pairwise(found))
    assert all(a.damage <= b.damage for a, b in itertools.pairwise(found))


def test_a_constant_counts():
    problem = Problem({"a": ("x", "y")}, (Term((), {(): Cost(0.5, 7.0)}),))
    assert fastest(problem).ms == 7.0
    with pytest.raises(CheckFailed, match="7 ms"):
        least_damage(problem, 6.9)


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        ((Term(("b",), {("x",): Cost()}),), "different parts"),
        ((Term(("a", "a"), {}),), "different parts"),
        ((Term(("a",), {("x",): Cost()}),), "combinations"),
        ((Term(("a",), {("x",): Cost(math.nan), ("y",): Cost()}),), "NaN"),
        ((Term(("a",), {("x",): Cost(0, math.inf), ("y",): Cost()}),), "infinite ms"),
    ],
)
def test_wrong_problems_are_refused(terms, said):
    with pytest.raises(InputError, match=said):
        Problem({"a": ("x", "y")}, terms)


def test_a_problem_without_parts_is_refused():
    with pytest.raises(InputError, match="at least one part"):
        least_damage(Problem({}, ()), 1.0)
