"""What `--only` names, tried by itself, on a search that is played."""

from types import SimpleNamespace

import pytest

from fettle.core.shelf import PASSES, TECHNIQUES
from fettle.search.optimize import Wish
from fettle.search.strategies.by_name import STRENGTHS, ByName, ladder, plugins


class Played:
    """A search in which a step at strength s is promised 1 − s: a fake, for real ones take long."""

    def __init__(self, wish, is_onnx=False):
        self.wish = wish
        self.workshop = SimpleNamespace(source=SimpleNamespace(is_onnx=is_onnx))
        self.attempted = []

    def attempt(self, candidate):
        (step,) = candidate.recipe.steps
        self.attempted.append(str(step))
        strength = getattr(step, "ratio", getattr(step, "sparsity", 0.0))
        return [SimpleNamespace(row={"promise": 1.0 - strength - 0.4})]


def names(*only, skip=(), is_onnx=False):
    return {plugin.name() for plugin in plugins(Played(Wish(only=only, skip=skip), is_onnx))}


def test_it_is_for_searches_that_are_asked_for_something():
    assert not ByName().applies(Played(Wish()))
    assert not ByName().applies(Played(Wish(skip=("prune",))))
    assert ByName().applies(Played(Wish(only=("prune",))))


def test_milder_ones_come_first_and_hopeless_ones_are_not_made_stronger():
    search = Played(Wish(only=("prune.channels", "prune.blocks")))
    ByName().explore(search)
    assert search.attempted == [
        "prune.blocks(ratio=0.25)",
        "prune.channels(ratio=0.25)",
        "prune.blocks(ratio=0.5)",
        "prune.channels",  # half is its default
    ]


def test_a_candidate_that_can_not_be_made_ends_its_ladder():
    search = Played(Wish(only=("prune.heads",)))
    search.attempt = lambda candidate: search.attempted.append(candidate) or []
    ByName().explore(search)
    assert len(search.attempted) == 1


def test_masks_are_for_those_who_name_them():
    assert "prune.magnitude" not in names("prune")
    assert names("prune.magnitude") == {"prune.magnitude"}
    assert {"prune.channels", "prune.blocks"} <= names("prune")


def test_what_lowers_for_an_engine_is_left_to_its_sessions():
    found = names("graph")
    assert {"graph.static_int8", "graph.float16"} <= found
    assert not any(name.startswith("graph.lower_") for name in found)


def test_skipped_ones_and_for_onnx_files_techniques_are_left_out():
    assert "prune.blocks" not in names("prune", skip=("prune.blocks",))
    assert names("quantize", "graph.float16", is_onnx=True) == {"graph.float16"}


@pytest.mark.parametrize("name", [*TECHNIQUES.names(), "graph.static_int8", "graph.weight_only"])
def test_every_plugin_has_a_ladder_inside_its_bounds(name):
    steps = ladder((TECHNIQUES if name in TECHNIQUES.names() else PASSES).load(name))
    assert 1 <= len(steps) <= len(STRENGTHS)
    assert len({str(step) for step in steps}) == len(steps)
