"""Strategies on a search that is played: what they propose, and whom they let go on."""

import math
from pathlib import Path
from types import SimpleNamespace

import pytest

from fettle.core.verdict import Budget
from fettle.search._store import Stage
from fettle.search.optimize import Wish
from fettle.search.strategies import strategies
from fettle.search.strategies._curves import Curves
from fettle.search.strategies._shapes import DEPTHS, WIDTHS, Shape, proposals, shapes
from fettle.search.strategies.in_rounds import InRounds, Trained, _spread, _survivors


@pytest.fixture(autouse=True)
def by_ratio_alone(monkeypatch):
    """Nothing is allocated: that takes a real network, as in `test_mixed_precision`."""
    monkeypatch.setattr("fettle.search.strategies._shapes.allocated_shapes", lambda search: [])


def task_of(shape):
    """Return a task of one input, of which only the shape is asked."""
    return SimpleNamespace(signature=SimpleNamespace(inputs=[SimpleNamespace(shape=(-1, *shape))]))


class Played:
    """A search in which time and loss follow from a recipe: a fake, for real ones take minutes.

    A shape takes (1 − depth)·(1 − width) of 10 ms and loses `hardness` times what went, halved by
    each tripling of the epochs.
    """

    least_gain = 0.05
    foretells = False

    def __init__(self, hardness=0.3, max_drop=0.02, wish=None):
        self.hardness, self.wish = hardness, wish or Wish()
        self.setting = SimpleNamespace(budget=Budget(max_drop=max_drop))
        self.leader = SimpleNamespace(row={"comparable_ms": 10.0})
        self.clock = SimpleNamespace(left=math.inf)
        self.task = task_of((3, 32, 32))
        self.sketched, self.attempted = [], []

    def sketch(self, recipe, score=False):
        self.sketched.append(recipe)
        ms, drop = self._of(recipe)
        row = {"comparable_ms": ms, "drop": {"value": drop}, "promise": self._promise(drop)}
        stages = [Stage(str(step), self._train(step), False) for step in recipe.steps]
        return SimpleNamespace(row=row, stages=stages)

    def predict(self, recipe):
        """Foretell exactly, where that was asked for."""
        ms = self._of(recipe)[0]
        return SimpleNamespace(ms=ms, low=0.9 * ms) if self.foretells else None

    def attempt(self, candidate):
        self.attempted.append(candidate.recipe)
        return [SimpleNamespace(row={"promise": self._promise(self._of(candidate.recipe)[1])})]

    def _promise(self, drop):
        return 1.0 if drop <= 0.8 * self.setting.budget.max_drop else 0.0

    def _train(self, step):
        """Take a second an epoch; what was trained before is found."""
        if step.name() != "distill.logits" or step is not self.sketched[-1].steps[-2]:
            return 0.0
        self.clock.left -= step.epochs
        return float(step.epochs)

    def _of(self, recipe):
        gone = {s.name(): s.ratio for s in recipe.steps if s.name().startswith("prune.")}
        depth, width = gone.get("prune.blocks", 0.0), gone.get("prune.channels", 0.0)
        rungs = sum(s.name() == "distill.logits" for s in recipe.steps)
        return 10 * (1 - depth) * (1 - width), self.hardness * (depth + width) / 2 ** (rungs - 1)


def epochs(recipe):
    return [s.epochs for s in recipe.steps if s.name() == "distill.logits"]


def test_the_cheapest_strategy_comes_first():
    orders = [strategy.order for strategy in strategies()]
    assert orders == sorted(orders)
    assert len({strategy.title for strategy in strategies()}) == len(orders)


def test_every_mix_of_depth_and_width_is_proposed_but_the_whole():
    found = proposals(Played())
    assert len(found) == len(DEPTHS) * len(WIDTHS) - 1
    assert all(step.epochs == 0 for steps in found for step in steps)


def test_what_is_skipped_is_not_proposed():
    found = proposals(Played(wish=Wish(skip=("prune.channels",))))
    assert {step.name() for steps in found for step in steps} == {"prune.blocks"}


def test_shapes_that_gain_too_little_are_left_out_and_the_fastest_come_first():
    search = Played()
    search.leader.row["comparable_ms"] = 5.0
    times = [shape.ms for shape in shapes(search)]
    assert times == sorted(times)
    assert max(times) < 5.0 * 0.95


def test_what_is_foretold_to_be_too_slow_is_not_sketched():
    blind, search = Played(), Played()
    search.foretells = True
    blind.leader.row["comparable_ms"] = search.leader.row["comparable_ms"] = 5.0
    assert shapes(search) == shapes(blind)
    assert len(search.sketched) < len(blind.sketched)
    assert all(0.9 * search._of(recipe)[0] < 4.75 for recipe in search.sketched)


def test_shapes_far_apart_are_sketched_first():
    search = Played()
    shapes(search)
    first = [search._of(recipe)[0] for recipe in search.sketched[:3]]
    assert max(first) > 7 > min(first)
    assert len(search.sketched) == len(proposals(search))


def test_rungs_continue_from_each_other_and_grow_threefold():
    search = Played()
    InRounds().explore(search)
    trained = [epochs(r) for r in search.sketched if epochs(r)]
    assert {tuple(rung) for rung in trained} == {(1,), (1, 3), (1, 3, 9), (1, 3, 9, 27)}


def test_fewer_go_on_at_every_rung():
    search = Played()
    InRounds().explore(search)
    trained = [len(epochs(r)) for r in search.sketched if epochs(r)]
    counts = [trained.count(rung) for rung in (1, 2, 3, 4)]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > 3 * counts[-1]


def test_the_fastest_that_came_through_is_attempted_quantized():
    search = Played(hardness=0.05)
    InRounds().explore(search)
    assert search.attempted
    assert all(
        r.steps[-1].name() in ("quantize.static", "quantize.aware") for r in search.attempted
    )


@pytest.mark.parametrize(
    ("operators", "last"),
    [({"MatMul": 9}, "graph.dynamic_int8"), ({"Conv": 9, "Gemm": 1}, "graph.static_int8")],
)
@pytest.mark.parametrize("hardness", [0.05, 0.3])
def test_free_lengths_are_quantized_on_the_graph(monkeypatch, operators, last, hardness):
    """Never as torch captures it, which is for a single length; nor trained for that."""
    monkeypatch.setattr(
        "fettle.search.strategies.training_free.operators_of", lambda model: operators
    )
    search = Played(hardness=hardness)
    search.task, search.wish = task_of((-1,)), Wish()
    search.workshop = SimpleNamespace(source=SimpleNamespace(is_onnx=False))
    search.trials = [SimpleNamespace(is_plain=True, model=Path("plain.onnx"))]
    InRounds().explore(search)
    made = search.sketched + search.attempted
    assert {recipe.steps[-1].name() for recipe in made} == {last}


@pytest.mark.parametrize("limit", [5, 20, 60, 200])
def test_rungs_end_with_the_clock_and_use_most_of_it(limit):
    search = Played(hardness=0.05, max_drop=0.0)
    search.clock.left = limit
    InRounds().explore(search)
    assert 0 <= search.clock.left <= max(0.6 * limit, limit - 50)
    longest = max(sum(epochs(r)) for r in search.sketched)
    assert longest >= min(limit / 5, 20)


def test_every_beginning_of_a_first_rung_is_spread_over_all_shapes():
    found = [shape.ms for shape in _spread([Shape((), float(ms)) for ms in range(15)])]
    assert found[:3] == [7, 3, 11]
    assert sorted(found) == list(range(15))


def test_far_from_the_budget_nothing_is_attempted():
    search = Played(hardness=50.0)
    InRounds().explore(search)
    assert not search.attempted


def test_when_all_lose_too_much_the_nearest_goes_on():
    search = Played(hardness=50.0)
    InRounds().explore(search)
    last = [r for r in search.sketched if len(epochs(r)) == 4]
    assert len(last) == 1
    assert last[0].steps[0].ratio == pytest.approx(min(w for w in WIDTHS if w))


def test_speed_that_cant_come_within_the_budget_is_worth_nothing():
    search = Played(max_drop=0.01)
    losses = {2.0: 0.6, 4.0: 0.04, 6.0: 0.03, 9.0: 0.001, 12.0: 0.0}  # by milliseconds
    trained = [Trained(Shape((), ms), (), loss, 0.0) for ms, loss in losses.items()]
    curves = Curves()
    for each in trained:
        curves.add(each.shape, 1, each.drop)
    order = {end: [s.ms for s in _survivors(search, trained, curves, end)] for end in (1, 40)}
    assert order[1][0] == 9.0  # no time to win anything back
    assert order[40] == [4.0, 6.0, 9.0, 2.0]  # and the leader itself takes 10


def test_onnx_files_and_tasks_without_training_data_are_not_for_it():
    task = SimpleNamespace(size=lambda split: 0)
    source = SimpleNamespace(is_onnx=False)
    search = SimpleNamespace(workshop=SimpleNamespace(source=source), task=task)
    assert not InRounds().applies(search)
    source.is_onnx, search.task = True, SimpleNamespace(size=lambda split: 9)
    assert not InRounds().applies(search)
