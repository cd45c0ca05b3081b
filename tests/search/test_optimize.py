"""A whole search on scikit-learn's digits, with a small network."""

import json
from dataclasses import replace

import pytest
import torch

from fettle import models, tasks
from fettle.core.bundle import Bundle
from fettle.core.context import Context
from fettle.core.errors import InputError, KnobError
from fettle.core.recipe import Recipe
from fettle.core.verdict import Budget
from fettle.search import Candidate, Setting, Source
from fettle.search._result import result_of
from fettle.search.journal import Journal
from fettle.search.optimize import Wish, optimize
from fettle.search.strategies import Strategy, strategies
from fettle.testing.fakes import Recorder
from fettle.train import FitPlan, fit

# on one thread: several spin, and take turns of many ms where other programs run
SETTING = Setting(
    Budget(max_drop=0.2), batch=16, threads=1, seconds=0.2, command="fettle optimize …"
)
ON_ONE = replace(SETTING, target=("onnxruntime",))
MODEL = "cifar:resnet8x0.5"
TRAINING_FREE = Wish(skip=("prune", "distill", "quantize.aware"))


@pytest.fixture(scope="module")
def search(tmp_path_factory):
    """A search in a folder, of a network that was trained once."""
    torch.set_num_threads(1)
    task, weights = tasks.load("digits"), tmp_path_factory.mktemp("model") / "w.safetensors"
    module = models.load(MODEL, signature=task.signature)
    fit(module, task, FitPlan(epochs=3, lr=0.1), Context())
    models.save_weights(module, weights)

    def run(out, wish=TRAINING_FREE, setting=SETTING, candidates=()):
        source, context = Source(MODEL, str(weights)), Context(progress=Recorder())
        return optimize(source, task, out, setting, wish, candidates=candidates, context=context)

    return run


@pytest.fixture(scope="module")
def findings():
    """What the finished search found, from which its result was written."""
    return []


@pytest.fixture(scope="module")
def done(search, findings, tmp_path_factory):
    def noted(finished, found):
        findings.append(found)
        return result_of(finished, found)

    out = tmp_path_factory.mktemp("search") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fettle.search.optimize.result_of", noted)
        return search(out), out


def test_the_result_is_the_contracts_and_says_how_the_search_went(done):
    result, out = done
    assert result == json.loads((out / "result.json").read_text())
    assert result["verdict"] == "pass"
    assert result["search"]["stopped"] == "nothing was left to try"
    assert result["search"]["looks"][-1]["outcome"] == "pass"
    assert result["search"]["looks"][0]["budget"]["confidence"] == pytest.approx(0.96)


def test_the_winner_is_the_fastest_of_those_likely_to_be_proven(done, findings):
    (found,) = findings
    rivals = [t for t in found.trials if t.runtime.takes == "onnx" and not t.refused]
    assert len(rivals) >= 4
    assert all(trial.row["promise"] > 0.99 for trial in rivals)  # the budget is wide
    assert found.winner is min(rivals, key=lambda trial: trial.row["comparable_ms"])
    assert done[0]["best"]["recipe"] == str(found.winner.recipe)


def test_the_bundle_of_the_winner_opens(done):
    _, out = done
    assert Bundle.open(out / "best").manifest.verdict["outcome"] == "pass"


def test_nothing_is_made_twice(search, done):
    _, out = done
    before = [e for e in Journal(out / "journal.jsonl").read() if e["event"] == "stage"]
    search(out)
    after = [e for e in Journal(out / "journal.jsonl").read() if e["event"] == "stage"]
    assert [e["key"] for e in after[len(before) :] if e["name"] != "time"] == []


def test_a_candidate_that_cannot_be_made_is_noted_and_the_search_goes_on(search, tmp_path):
    given = [Candidate(Recipe.parse("prune.heads(ratio=0.5)"))]
    wish = Wish(skip=("distill", "quantize", "graph"))
    result = search(tmp_path / "out", wish, ON_ONE, given)
    (refused,) = result["search"]["refused"]
    assert refused["recipe"] == "prune.heads(ratio=0.5)"
    assert "head" in refused["why"]
    assert result["best"]["recipe"].startswith("@ ")


def test_an_impossible_budget_is_never_a_pass(search, tmp_path):
    setting = replace(ON_ONE, budget=Budget(max_drop=0.0))
    result = search(tmp_path / "out", Wish(only=("quantize.static",)), setting)
    assert result["verdict"] in ("fail", "inconclusive")
    assert result["best"]["recipe"].startswith("quantize.static")
    assert (tmp_path / "out" / "best" / "manifest.json").is_file()
    assert len(result["search"]["looks"]) >= 1


def test_a_limit_shorter_than_the_first_measurement_is_wrong_input(search, tmp_path):
    with pytest.raises(InputError, match="give at least"):
        search(tmp_path / "out", Wish(seconds=0.01))


def test_when_the_time_is_up_the_best_so_far_is_proven(search, tmp_path, monkeypatch):
    class Slow(Strategy):
        order, title = 0, "never ends"

        def explore(self, search):
            search.clock.limit = 0.01
            search.attempt(Candidate(Recipe.parse("quantize.static")))

    monkeypatch.setattr("fettle.search.optimize.strategies", lambda: [Slow(), *strategies()])
    result = search(tmp_path / "out", Wish(seconds=1000.0), ON_ONE)
    assert result["search"]["stopped"].startswith("the time limit")
    assert result["verdict"] == "pass"


def test_an_interrupt_proves_the_best_so_far(search, tmp_path, monkeypatch):
    class Interrupted(Strategy):
        order, title = 99, "Ctrl-C"

        def explore(self, search):
            raise KeyboardInterrupt

    monkeypatch.setattr("fettle.search.optimize.strategies", lambda: [Interrupted()])
    result = search(tmp_path / "out", setting=ON_ONE)
    assert result["interrupted"]
    assert result["verdict"] == "pass"
    assert (tmp_path / "out" / "best" / "manifest.json").is_file()


def test_the_smallest_is_found_when_size_is_asked_for(search, tmp_path):
    wish = Wish(objective="size", skip=("prune", "distill", "quantize.aware"))
    result = search(tmp_path / "out", wish, ON_ONE)
    sizes = [row["size_bytes"] for row in result["trials"] if not row["refused"]]
    assert result["best"]["size_bytes"] == min(sizes)


def test_an_unknown_objective_is_named(search, tmp_path):
    with pytest.raises(KnobError, match="`objective` expects one of latency"):
        search(tmp_path / "out", Wish(objective="beauty"))


@pytest.mark.parametrize(
    ("only", "skip", "line", "allowed"),
    [
        ((), (), "quantize.static", True),
        (("prune",), (), "quantize.static", False),
        (("prune", "quantize.static"), (), "prune.blocks > quantize.static", True),
        ((), ("quantize",), "prune.blocks > quantize.static", False),
        ((), ("quantize.aware",), "quantize.static", True),
        (("quant",), (), "quantize.static", False),
    ],
)
def test_only_and_skip_name_shelves_or_plugins(only, skip, line, allowed):
    assert Wish(only=only, skip=skip).allows(Recipe.parse(line)) is allowed
