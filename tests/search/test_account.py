"""How a search went, and what is said where nothing came of what was asked for."""

from types import SimpleNamespace

import pytest

from fettle.core.errors import CheckFailed
from fettle.core.recipe import Recipe
from fettle.search import Candidate
from fettle.search._account import account, check_fruit
from fettle.search.optimize import Wish

HEADS = Recipe.parse("prune.heads(ratio=0.25)")


def search(*trials, only=("prune",), refused=()):
    return SimpleNamespace(trials=list(trials), wish=Wish(60.0, only=only), refused=list(refused),
                           proofs=[{"outcome": "pass"}])  # fmt: skip


def trial(recipe, refused=None):
    return SimpleNamespace(recipe=recipe, refused=refused)


def test_the_record_says_why_it_stopped_and_what_could_not_be_made():
    found = account(search(refused=[(Candidate(HEADS), "no attention")]), "interrupted")
    assert found == {
        "stopped": "interrupted", "objective": "latency", "time_limit": 60.0,
        "looks": [{"outcome": "pass"}],
        "refused": [{"recipe": str(HEADS), "why": "no attention"}],
    }  # fmt: skip


@pytest.mark.parametrize("only", [(), ("prune",)])
def test_what_was_made_is_fruit_and_so_is_the_model_where_nothing_was_named(only):
    made = trial(HEADS) if only else trial(Recipe())
    check_fruit(search(trial(Recipe()), made, only=only))


@pytest.mark.parametrize(
    ("trials", "refused"),
    [
        ([trial(HEADS, "no attention")], []),
        ([], [(Candidate(HEADS), "no attention")]),
    ],
)
def test_where_nothing_came_of_it_each_reason_is_said(trials, refused):
    with pytest.raises(CheckFailed, match=r"prune\.heads\(ratio=0\.25\): no attention\): name"):
        check_fruit(search(trial(Recipe()), *trials, refused=refused))


def test_and_where_nothing_was_even_tried():
    with pytest.raises(CheckFailed, match="none of it fits the model"):
        check_fruit(search(trial(Recipe())))
