"""Whole searches by the command line: one for each kind of model and data that it is for.

What a result says of its metric is computed again from the bundle's own file by another library.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from scipy.stats import spearmanr
from sklearn.datasets import load_digits
from sklearn.metrics import accuracy_score, r2_score

from fettle import models, tasks
from fettle.core.bundle import Bundle
from fettle.core.context import Context
from fettle.train import FitPlan, fit

pytestmark = pytest.mark.slow

DATA = Path(os.environ.get("FETTLE_DATA", Path(__file__).parents[3] / "shared" / "data"))
QUICK = ["--target", "onnxruntime", "--batch", "8", "--threads", "1", "--seconds", "0.2",
         "--skip", "prune", "--skip", "distill", "--skip", "quantize.aware", "--json"]  # fmt: skip
SMALL = "cifar:resnet8x0.5"

NETS = """
import torch
from torch import nn

def reader():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))

class Embedder(nn.Module):
    def __init__(self, words):
        super().__init__()
        self.words, self.head = nn.Embedding(words, 64), nn.Linear(64, 64)

    def forward(self, ids, mask):
        kept = mask.unsqueeze(-1).float()
        return self.head((self.words(ids) * kept).sum(1) / kept.sum(1).clamp(min=1.0))

def embedder(vocabulary):
    return Embedder(vocabulary)
"""


@pytest.fixture(scope="module")
def nets(tmp_path_factory):
    path = tmp_path_factory.mktemp("nets") / "nets.py"
    path.write_text(NETS)
    return path


@pytest.fixture
def taught(tmp_path):
    """Train a model on a task for a moment; return the file of its weights."""

    def teach(spec, task, **plan):
        module = models.load(str(spec), signature=task.signature)
        fit(module, task, FitPlan(**plan), Context())
        models.save_weights(module, tmp_path / "w.safetensors")
        return tmp_path / "w.safetensors"

    return teach


@pytest.fixture
def optimized(fettle, tmp_path):
    """Search; return the result, and what the best and the untouched file say of `test`."""

    def run(model, data, *options, task="auto"):
        words = ["optimize", "--model", model, "--data", data, "--task", task, *QUICK, *options]
        said = fettle(*words, "--out", tmp_path / "out")
        assert said.code in (0, 1), said.err
        assert (said.code == 0) is (said.json["verdict"] == "pass")
        bundle = Bundle.open(tmp_path / "out" / "best")
        assert bundle.manifest.recipe == said.json["best"]["recipe"]
        return said.json, lambda: answers(bundle.model_path, data, task)

    return run


def answers(path, data, task):
    """Return the first output for the whole of `test`, and its labels, by ONNX Runtime alone."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    found, labels = [], []
    for batch in tasks.load(data, task=task).batches("test", 64):
        given = [np.asarray(array) for array in batch.inputs.values()]
        found.append(session.run(None, dict(zip(names, given, strict=True)))[0])
        labels.append(batch.targets)
    return np.concatenate(found), np.concatenate(labels)


def tried(result):
    return {row["recipe"].partition(" @")[0] for row in result["trials"] if not row["refused"]}


def has_int8(result):
    """Say whether an INT8 file was really made, ran, and was judged."""
    return [r for r in result["trials"] if r["precision"] == "int8" and not r["refused"]]


def test_values_are_judged_by_r2(optimized, taught, nets, tmp_path):
    """Where the ink of a digit has its centre, from left to right."""
    x = load_digits().images.astype(np.float32)[:, None] / 16
    y = (x[:, 0] * np.arange(8)).sum((1, 2)) / x.sum((1, 2, 3))
    np.savez(tmp_path / "ink.npz", x=x, y=y.astype(np.float64))
    data = f"npz:{tmp_path / 'ink.npz'}"
    weights = taught(f"{nets}:reader", tasks.load(data), epochs=20, lr=0.01)
    result, said = optimized(
        f"{nets}:reader", data, "--weights", weights, "--max-drop", "0.05", "--only", "quantize"
    )
    found, labels = said()
    assert result["budget"]["metric"] == "r2"
    assert result["verdict"] == "pass", result["verdict_text"]
    assert result["best"]["recipe"].startswith("quantize.static")
    assert result["baseline"]["metric"]["value"] > 0.9
    assert result["best"]["metric"]["value"] == pytest.approx(
        r2_score(labels.ravel(), found.ravel()), abs=0.01
    )


@pytest.mark.data
def test_pairs_of_texts_are_judged_by_spearmans_correlation(optimized, nets, tmp_path):
    """STS-B, with word vectors that nobody trained: they tell which words two sentences share."""
    source = DATA / "text" / "stsb-en-dev.csv"
    if not source.is_file():
        pytest.skip(f"the benchmark data is not at {DATA}")
    text = source.read_text(encoding="utf-8")
    (tmp_path / "pairs.csv").write_text(f"text,text2,label\n{text}", encoding="utf-8")
    result, said = optimized(
        f"{nets}:embedder", f"text:{tmp_path / 'pairs.csv'}:24", "--max-drop", "0.03",
        task="embedding",
    )  # fmt: skip
    found, labels = said()
    a, b = found[0::2].astype(np.float64), found[1::2].astype(np.float64)
    cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert result["budget"]["metric"] == "spearman"
    assert result["verdict"] == "pass", result["verdict_text"]
    assert result["best"]["drop"]["n"] == len(labels)
    assert has_int8(result)
    assert result["best"]["metric"]["value"] == pytest.approx(
        spearmanr(cosines, labels).statistic, abs=0.01
    )


def test_samples_without_labels_are_judged_by_agreement(optimized, taught, tmp_path):
    """A few hundred images, and a network that knows them."""
    weights = taught(SMALL, tasks.load("digits"), epochs=8, lr=0.1)
    task = tasks.load("digits")
    x = np.concatenate([batch.inputs["input"] for batch in task.batches("train")])[:800]
    np.savez(tmp_path / "bare.npz", x=x)
    data = f"npz:{tmp_path / 'bare.npz'}"
    result, said = optimized(SMALL, data, "--weights", weights, "--max-drop", "0.05")
    assert result["budget"]["metric"] == "agreement"
    assert result["verdict"] == "pass", result["verdict_text"]
    assert result["baseline"]["metric"]["value"] == 1.0
    assert "quantize.static" in tried(result)
    original = models.load(SMALL, weights=weights, signature=task.signature)
    assert result["best"]["metric"]["value"] == pytest.approx(
        agreement_with(original, data, said()[0]), abs=0.01
    )


def agreement_with(module, data, found):
    import torch

    with torch.inference_mode():
        theirs = [
            module(*map(torch.from_numpy, batch.inputs.values()))
            for batch in tasks.load(data).batches("test", 64)
        ]
    return accuracy_score(torch.cat(theirs).argmax(1), found.argmax(1))


@pytest.mark.data
def test_an_onnx_file_with_calibration_samples_alone(optimized, tmp_path):
    """The keyword spotter of MLPerf Tiny, a file made by others, and unlabelled clips."""
    model, clips = DATA / "kws" / "kws_dscnn.onnx", DATA / "kws" / "kws_test.npz"
    if not model.is_file():
        pytest.skip(f"the benchmark data is not at {DATA}")
    with np.load(clips) as archive:
        np.savez(tmp_path / "clips.npz", x=archive["x"])
    result, said = optimized(model, f"npz:{tmp_path / 'clips.npz'}", "--max-drop", "0.05")
    assert result["budget"]["metric"] == "agreement"
    assert result["verdict"] == "pass", result["verdict_text"]
    assert "graph.static_int8" in tried(result)
    assert not any(row["runtime"] == "pytorch" for row in result["trials"])
    before = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    name = before.get_inputs()[0].name
    theirs = np.concatenate([
        before.run(None, {name: batch.inputs["input"]})[0]
        for batch in tasks.load(f"npz:{tmp_path / 'clips.npz'}").batches("test", 64)
    ])  # fmt: skip
    assert result["best"]["metric"]["value"] == pytest.approx(
        accuracy_score(theirs.argmax(1), said()[0].argmax(1)), abs=0.01
    )
