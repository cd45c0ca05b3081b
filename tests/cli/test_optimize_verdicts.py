"""`fettle optimize` where the budget can't be met or can't be proven: exit code 1, and why."""

import json

import pytest

from fettle import models, tasks
from fettle.core.bundle import Bundle
from fettle.core.context import Context
from fettle.train import FitPlan, fit

MODEL = "cifar:resnet8x0.5"
QUICK = ["--target", "onnxruntime", "--batch", "8", "--threads", "1", "--seconds", "0.2"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weights that know the digits well enough to have something to lose."""
    task, path = tasks.load("digits"), tmp_path_factory.mktemp("model") / "w.safetensors"
    module = models.load(MODEL, signature=task.signature)
    fit(module, task, FitPlan(epochs=8, lr=0.1), Context())
    models.save_weights(module, path)
    return path


@pytest.fixture
def optimize(fettle, weights, tmp_path):
    def run(*options, data="digits", out="out"):
        words = ["optimize", "--model", MODEL, "--weights", weights, "--data", data, *QUICK]
        return fettle(*words, *options, "--out", tmp_path / out)

    return run


@pytest.mark.slow
def test_a_budget_that_the_examples_can_not_resolve_says_how_many_would(optimize, tmp_path):
    said, out = optimize("--max-drop", "0.001", "--only", "quantize.static"), tmp_path / "out"
    result = json.loads((out / "result.json").read_text())
    assert said.code == 1
    assert result["verdict"] == "inconclusive"
    assert result["needed"] > result["best"]["drop"]["n"]
    assert f"about {result['needed']:,} examples would settle it" in result["verdict_text"]
    assert said.out.startswith("INCONCLUSIVE")
    assert f"{result['needed']:,}" in said.out
    assert result["best"]["recipe"].startswith("quantize.static")
    assert Bundle.open(out / "best").manifest.verdict["outcome"] == "inconclusive"


@pytest.mark.slow
def test_more_examples_in_test_resolve_more(optimize):
    """The same budget passes where the data gives `test` more."""
    words = ["--max-drop", "0.015", "--only", "quantize.static", "--json"]
    few, many = (optimize(*words, data=f"digits?test={n}", out=str(n)) for n in (100, 1200))
    assert (few.code, few.json["verdict"]) == (1, "inconclusive")
    assert many.json["best"]["drop"]["n"] == 1200
    assert many.json["best"]["drop"]["high"] < few.json["best"]["drop"]["high"]


@pytest.mark.slow
@pytest.mark.parametrize("shelf", ["prune", "prune.channels"])
def test_an_impossible_budget_saves_the_best_effort_and_says_why(optimize, tmp_path, shelf):
    """Nothing may be lost, and strong pruning is all that is allowed."""
    said = optimize("--max-drop", "0", "--only", shelf, "--json")
    assert said.code == 1, said.err
    result, out = said.json, tmp_path / "out"
    assert result["verdict"] in ("fail", "inconclusive")
    assert result["budget"]["max_drop"] == 0
    assert result["best"]["recipe"].startswith("prune.")
    assert result["best"]["drop"]["high"] > 0
    assert result["verdict_text"].startswith(result["verdict"])
    assert "budget 0.0000" in result["verdict_text"]
    assert result["search"]["looks"][0]["outcome"] == result["verdict"]
    assert json.loads((out / "result.json").read_text())["verdict"] == result["verdict"]
    assert Bundle.open(out / "best").manifest.verdict["outcome"] == result["verdict"]
    assert result["verdict"] in (out / "report.html").read_text()
    if result["verdict"] == "inconclusive" and result["needed"] is None:
        assert "no number of examples would settle it" in result["verdict_text"]


@pytest.mark.slow
def test_where_nothing_can_be_made_of_what_was_named_that_is_said(optimize, tmp_path):
    """The untouched model would be inside any budget, and isn't what was asked for."""
    said = optimize("--max-drop", "0.5", "--only", "prune.heads")
    assert (said.code, said.out) == (1, "")
    told = said.err.splitlines()[-1]
    assert told.startswith("fettle: nothing came of what `only` names (prune.heads")
    assert "name something else" in told
    assert not (tmp_path / "out" / "best").exists()
