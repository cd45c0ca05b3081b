"""Whole searches on problems whose truth is known: the benchmark of honesty, in small."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from fettle.core.recipe import Recipe
from fettle.core.verdict import Budget
from fettle.search import Candidate
from fettle.search.journal import Journal
from fettle.search.optimize import Wish

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def honesty():
    """The benchmark's own module, with what it imports from beside itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        spec = importlib.util.spec_from_file_location("honesty", BENCHMARKS / "honesty.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module


@pytest.fixture(scope="module")
def known(honesty):
    import _known  # importable while the benchmark is

    return _known


def lies(rows):
    return [row["seed"] for row in rows if row["outcome"] == "pass" and row["over"]]


def test_the_truth_is_what_many_labelled_examples_say(known):
    law = known.Law(3)
    (x, chances), *_ = law.fresh(20_000)
    labelled, y = law.draw(20_000, stream=7)
    likeliest = law.chances(labelled).argmax(axis=1)
    assert chances.sum(axis=1) == pytest.approx(1.0)
    assert np.mean(likeliest == y) == pytest.approx(chances.max(axis=1).mean(), abs=0.01)
    assert not np.array_equal(x, labelled)


def test_narrowing_loses_what_a_held_out_sample_says(honesty, known, tmp_path):
    """The true drop by integrated labels, against plain counting on as many labelled ones."""
    task = known.KnownTask(0, 300, 600)
    known.save_model(tmp_path / "model.onnx", task, 0)
    workshop = honesty.workshop_in(tmp_path, task)
    runtime = Recipe.parse("@ onnxruntime(threads=1)").runtime
    whole, narrow = (
        runtime.build(workshop.make(recipe).path, ())
        for recipe in (Recipe(), Recipe((known.Narrow(keep=8),)))
    )
    drop, error = known.true_drop(task.law, whole, narrow)
    x, y = task.law.draw(100_000, stream=9)
    right = [known.answers(session, x)[:, 0] == y for session in (whole, narrow)]
    assert drop == pytest.approx(right[0].mean() - right[1].mean(), abs=0.01)
    assert drop > 0.02
    assert error < 0.002


def test_a_pass_is_true(honesty, monkeypatch):
    monkeypatch.setattr(honesty, "DRAWS", 1)
    row = honesty.study("around", 0)
    assert (row["outcome"], lies([row])) == ("pass", [])
    assert row["trials"] > len(honesty.WIDTHS)
    assert row["measured"]["high"] <= row["budget"]


@pytest.mark.slow
def test_a_dozen_studies_of_each_kind_pass_nothing_that_lies_over_the_budget(honesty):
    rows = [honesty.study(kind, seed) for kind in ("around", "over", "again") for seed in range(12)]
    assert sum(row["outcome"] == "pass" for row in rows) >= 6
    assert len(lies(rows)) <= 1


@pytest.mark.slow
def test_a_search_that_peeks_is_caught(honesty):
    """The control: proven on the examples that chose, many a pass is a lie."""
    rows = [honesty.study("cheating", seed) for seed in range(12)]
    assert len(lies(rows)) >= 1


def test_looks_are_counted_over_all_runs_in_a_folder(honesty, known, tmp_path):
    """A repeated search meets `test` at the level that is left; who met it before keeps its own."""
    task, budget = known.KnownTask(1, 300, 600), Budget(max_drop=0.0)
    known.save_model(tmp_path / "model.onnx", task, 1)
    wish = Wish(objective="size", only=("graph.narrow",))
    told = []
    for keep in (8, 12, 8):
        field = [Candidate(Recipe((known.Narrow(keep=keep),)))]
        search, _ = honesty.searched(task, tmp_path, field, budget, wish)
        told.append([look["budget"]["confidence"] for look in search.proofs])
    assert told[0] == told[2] == pytest.approx([0.96])
    assert told[1] == pytest.approx([0.992])
    looks = [e for e in Journal(tmp_path / "journal.jsonl").read() if e["event"] == "look"]
    assert len({look["candidate"] for look in looks}) == 2
