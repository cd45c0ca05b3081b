"""`--objective`, `--skip` and `--teacher` in whole searches by the command line."""

import pytest

from fettle import models, tasks
from fettle.core.context import Context
from fettle.search.journal import Journal
from fettle.train import FitPlan, fit

pytestmark = pytest.mark.slow

MODEL = "cifar:resnet8x0.5"
WORDS = ["optimize", "--model", MODEL, "--data", "digits", "--target", "onnxruntime",
         "--batch", "16", "--threads", "1", "--seconds", "0.3", "--json"]  # fmt: skip
FREE = ["--max-drop", "0.3", "--skip", "prune", "--skip", "distill", "--skip", "quantize.aware"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weights of two networks: one knows the digits, the other has seen them once."""
    task, folder = tasks.load("digits"), tmp_path_factory.mktemp("models")
    for name, epochs in (("wise", 8), ("green", 1)):
        module = models.load(MODEL, signature=task.signature)
        fit(module, task, FitPlan(epochs=epochs, lr=0.1), Context())
        models.save_weights(module, folder / f"{name}.safetensors")
    return {name: folder / f"{name}.safetensors" for name in ("wise", "green")}


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One folder for the searches that differ in what they make small: stages are found again."""
    return tmp_path_factory.mktemp("shared") / "out"


@pytest.fixture
def optimize(fettle, weights):
    def run(out, *options, who="wise"):
        said = fettle(*WORDS, "--weights", weights[who], *options, "--out", out)
        assert said.code in (0, 1), said.err
        return said.json

    return run


def rivals(result):
    return [r for r in result["trials"] if not r["refused"] and r["runtime"] != "pytorch"]


@pytest.mark.parametrize(
    ("objective", "of"),
    [
        ("size", lambda row: row["size_bytes"]),
        ("throughput", lambda row: -row["throughput"]),
    ],
)
def test_what_is_asked_for_is_made_small(optimize, shared, objective, of):
    result = optimize(shared, *FREE, "--objective", objective)
    assert result["verdict"] == "pass", result["verdict_text"]
    assert result["search"]["objective"] == objective
    assert len(rivals(result)) >= 2
    assert of(result["best"]) == min(of(row) for row in rivals(result))


def test_and_so_is_the_memory_of_a_fresh_process(optimize, shared):
    """Each trial is run in a process of its own, and what leads takes no more than the others."""
    result = optimize(shared, *FREE, "--objective", "memory")
    assert result["search"]["objective"] == "memory"
    best, before = (result[side]["peak_memory_bytes"] for side in ("best", "baseline"))
    assert 1e6 < best <= before
    stages = [e["name"] for e in Journal(shared / "journal.jsonl").read() if e["event"] == "stage"]
    assert stages.count("peak memory") >= len(rivals(result))


def test_what_is_skipped_is_not_tried(optimize, shared):
    skipped = [word for shelf in ("prune", "distill", "quantize", "graph")
               for word in ("--skip", shelf)]  # fmt: skip
    result = optimize(shared, "--max-drop", "0.3", *skipped)
    assert {row["recipe"].partition("@")[0] for row in result["trials"]} == {""}
    assert result["best"]["recipe"].startswith("@ ")
    assert result["verdict"] == "pass"


def test_a_teacher_teaches(optimize, weights, tmp_path):
    """One who knows makes a better student; one's own former self is another teacher."""
    out, only = tmp_path / "out", ["--max-drop", "0.05", "--only", "distill.logits"]
    taught = optimize(
        out, *only, "--teacher", MODEL, "--teacher-weights", weights["wise"], who="green"
    )
    assert taught["best"]["recipe"].startswith("distill.logits")
    assert taught["verdict"] == "pass"
    assert taught["best"]["drop"]["high"] < 0  # it gained
    optimize(out, *only, who="green")
    events = Journal(out / "journal.jsonl").read()
    keys = [e["key"] for e in events if e["event"] == "stage" and e["name"] == "distill.logits"]
    assert len(set(keys)) == len(keys) == 2
