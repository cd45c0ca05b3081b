"""Outer choices on a search that is played: the space, what is asked, and what is told."""

import math
from types import SimpleNamespace

import pytest

pytest.importorskip("optuna")

from fettle.core.knobs import Choice, Range
from fettle.core.recipe import Recipe
from fettle.core.verdict import Budget
from fettle.search._store import Stage
from fettle.search.journal import Journal
from fettle.search.objective import Latency
from fettle.search.optimize import Wish
from fettle.search.strategies._asking import Asking
from fettle.search.strategies._space import SCHEDULES, ends_of, options_of, space_of
from fettle.search.strategies.outer import NO_GAIN, Outer, starts


class Played:
    """A search in which time and loss follow from a recipe, as one on a real model might.

    Width costs less time than depth saves; what was lost is halved by each rung.
    """

    least_gain = 0.05
    objective = Latency()

    def __init__(self, folder, wish=None, seed=0, left=math.inf, hardness=0.05):
        self.wish, self.hardness = wish or Wish(), hardness
        self.setting = SimpleNamespace(budget=Budget(max_drop=0.02))
        self.clock = SimpleNamespace(left=left)
        self.task = SimpleNamespace(size=lambda split: 100)
        self.journal = Journal(folder / "journal.jsonl")
        self.workshop = SimpleNamespace(
            source=SimpleNamespace(is_onnx=False),
            context=SimpleNamespace(seed=seed),
            store=SimpleNamespace(journal=self.journal),
        )
        self.progress = SimpleNamespace(say=lambda line: None)
        self.base = self._trial(Recipe())
        self.trials, self.sketched, self.attempted = [self.base], [], []

    @property
    def leader(self):
        likely = [t for t in self.trials if t.row["promise"] >= 0.8]
        return min(likely, key=lambda t: t.row["comparable_ms"])

    def sketch(self, recipe, score=False):
        if any(step.name() in ("prune.heads", "prune.ffn") for step in recipe.steps):
            return None
        self.sketched.append((recipe, score))
        trial = self._trial(recipe)
        self.clock.left -= sum(s.epochs for s in recipe.steps if s.name().startswith("distill."))
        return trial

    def attempt(self, candidate):
        self.attempted.append(candidate.recipe)
        self.trials.append(self._trial(candidate.recipe))
        return [self.trials[-1]]

    def _trial(self, recipe):
        gone = {s.name(): s.ratio for s in recipe.steps if s.name().startswith("prune.")}
        kept = math.prod(1 - ratio for ratio in gone.values())
        rungs = sum(s.name().startswith("distill.") for s in recipe.steps)
        drop = self.hardness * sum(r**2 for r in gone.values()) / 2**rungs
        row = {
            "comparable_ms": 10 * kept**0.8,
            "latency_ms": {"p50": 10 * kept**0.8},
            "drop": {"value": drop},
            "promise": 1.0 if drop <= 0.016 else 0.0,
        }
        stages = [Stage(str(s), float(getattr(s, "epochs", 0)), cached=False) for s in recipe.steps]
        return SimpleNamespace(recipe=recipe, row=row, stages=stages)


def events(search):
    return [e for e in search.journal.read() if e["event"] == "outer"]


def test_the_space_is_what_removes_teaches_and_ends():
    space = space_of(Wish())
    assert {"prune.blocks", "prune.channels"} <= {cls.name() for cls in space.shapers}
    assert "prune.magnitude" not in {cls.name() for cls in space.shapers}
    assert "distill.logits" in {cls.name() for cls in space.teachers}
    assert {cls.name() for cls in space.lasts} == {"quantize.static", "quantize.aware"}


@pytest.mark.parametrize("skip", ["prune", "distill", "quantize"])
def test_without_one_of_them_there_is_nothing_to_choose(skip, tmp_path):
    wish = Wish(skip=(skip,))
    assert not space_of(wish)
    assert not Outer().applies(Played(tmp_path, wish))


def test_bounds_of_knobs_are_the_ranges():
    (cls,) = (c for c in space_of(Wish()).teachers if c.name() == "distill.logits")
    knobs = {knob.name: knob for knob in cls.knobs()}
    low, high, log = ends_of(knobs["lr"])
    assert knobs["lr"].bounds.low <= low < knobs["lr"].default < high <= knobs["lr"].bounds.high
    assert log
    assert ends_of(knobs["alpha"]) == (0, 1, False)
    assert ends_of(knobs["epochs"]) is None
    assert options_of(knobs["standardize"]) == [False, True]
    for shaper in space_of(Wish()).shapers:
        for knob in shaper.knobs():
            assert "random" not in options_of(knob)
            assert not (options_of(knob) and isinstance(knob.bounds, Range))
            assert not options_of(knob) or isinstance(knob.bounds, Choice)


def test_points_are_sound_recipes_that_parse_back(tmp_path):
    asking = Asking(Played(tmp_path), space_of(Wish()), [])
    seen = set()
    for _ in range(30):
        found = asking.ask()
        recipe = Recipe((*found.shape, *found.rungs, found.last))
        assert Recipe.parse(str(recipe)) == recipe
        assert tuple(step.epochs for step in found.rungs) in SCHEDULES.values()
        seen.add(str(recipe))
        asking.tell(1.0, 0.0)
    assert len(seen) > 25


def test_it_finds_what_the_ladders_before_did_not(tmp_path):
    search = Played(tmp_path)
    Outer().explore(search)
    assert search.leader.row["comparable_ms"] < 6.0
    assert search.leader.row["drop"]["value"] <= 0.02


def test_what_is_no_faster_is_not_trained(tmp_path):
    search = Played(tmp_path)
    Outer().explore(search)
    best = 10.0
    for recipe, scored in search.sketched:
        if scored:
            assert search._trial(recipe).row["comparable_ms"] <= best
    timed = sum(not scored for _, scored in search.sketched)
    assert timed > len({r.steps[:2] for r, scored in search.sketched if scored})


def test_it_begins_with_the_best_recipes_so_far(tmp_path):
    search = Played(tmp_path)
    line = "prune.blocks(ratio=0.3, epochs=0) > distill.logits(epochs=3, lr=0.02) > quantize.static"
    search.attempt(SimpleNamespace(recipe=Recipe.parse(line)))
    assert starts(search) == [Recipe.parse(line)]
    Outer().explore(search)
    params = events(search)[0]["params"]
    assert params["prune.blocks.ratio"] == pytest.approx(0.3)
    assert params["distill.logits.lr"] == pytest.approx(0.02)
    assert params["prune.channels.ratio"] == 0


def test_the_same_seed_asks_the_same_and_another_does_not(tmp_path):
    asked = []
    for number, seed in enumerate((0, 0, 1)):
        search = Played(tmp_path / str(number), seed=seed)
        Outer().explore(search)
        asked.append([e["params"] for e in events(search)])
    assert asked[0] == asked[1]
    assert asked[0] != asked[2]


def test_a_resumed_search_asks_the_same_and_goes_on(tmp_path):
    whole = Played(tmp_path / "whole")
    Outer().explore(whole)
    part = Played(tmp_path / "part", left=30)
    Outer().explore(part)
    cut = len(events(part))
    assert 0 < cut < len(events(whole))
    again = Played(tmp_path / "part")
    Outer().explore(again)
    told = events(again)
    assert [e["number"] for e in told] == sorted({e["number"] for e in told})
    assert [e["params"] for e in told] == [e["params"] for e in events(whole)]


def test_journalled_numbers_are_told_again(tmp_path):
    search = Played(tmp_path)
    first = Asking(search, space_of(Wish()), [])
    first.ask()
    first.tell(3.0, 0.5)
    again = Asking(search, space_of(Wish()), [])
    again.ask()
    again.tell(99.0, -1.0)  # measured anew, a little otherwise
    assert again.study.trials[0].value == 3.0
    assert len(events(search)) == 1


def test_without_gain_it_ends(tmp_path):
    search = Played(tmp_path, hardness=50.0)
    Outer().explore(search)
    assert len(events(search)) == NO_GAIN
    assert not search.attempted


def test_a_clock_that_leaves_no_training_ends_it(tmp_path):
    search = Played(tmp_path, left=30)
    Outer().explore(search)
    assert search.clock.left > -13
    assert len(events(search)) < 40


def test_models_and_data_that_can_not_be_trained_are_not_for_it(tmp_path, monkeypatch):
    search = Played(tmp_path)
    assert Outer().applies(search)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    said = []
    search.progress.say = said.append
    assert not Outer().applies(search)
    assert "fettle[search]" in said[0]
    monkeypatch.undo()
    search.task.size = lambda split: 0
    assert not Outer().applies(search)
    search.workshop.source.is_onnx = True
    assert not Outer().applies(search)
