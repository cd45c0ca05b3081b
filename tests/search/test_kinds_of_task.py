"""Whole studies of tasks that are no classification: with labels of values and of pairs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fettle.core.recipe import Recipe
from fettle.core.verdict import Budget
from fettle.search import Setting, Source
from fettle.search.compress import compress
from fettle.tasks import Embedding, Fidelity, Regression

pytestmark = pytest.mark.slow

MODEL = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, {outputs}))
"""


def judged(tmp_path, task, outputs, steps):
    (tmp_path / "net.py").write_text(MODEL.format(outputs=outputs))
    setting = Setting(
        budget=Budget(max_drop=0.05),
        target=("onnxruntime",),
        seconds=0.5,
        threads=1,
        only_given=True,
    )
    source = Source(f"{tmp_path / 'net.py'}:net")
    return compress(source, task, Recipe.parse(steps), tmp_path / "out", setting)


def original(x, outputs):
    """What the model of the file says."""
    scope = {}
    exec(MODEL.format(outputs=outputs), scope)
    with torch.inference_mode():
        return scope["net"]()(torch.tensor(x, dtype=torch.float32)).numpy()


@pytest.mark.parametrize("steps", ["quantize.static", "distill.logits(epochs=1, lr=0.0001)"])
def test_regression(tmp_path, steps):
    x = np.random.default_rng(0).normal(size=(1200, 16))
    y = original(x, 1)[:, 0].astype(np.float64)
    y += 0.2 * y.std() * np.random.default_rng(1).normal(size=len(y))
    found = judged(tmp_path, Regression.from_arrays(x, y), 1, steps)
    assert found["budget"]["metric"] == "r2"
    assert found["baseline"]["metric"]["value"] == pytest.approx(1 / 1.04, abs=0.02)
    assert found["verdict"] == "pass"
    assert "r2" in found["verdict_text"]


def test_embedding(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(800, 2, 16))
    x[:, 1] = x[:, 0] + rng.uniform(0, 2, (800, 1)) * x[:, 1]
    a, b = (original(x[:, side], 8) for side in (0, 1))
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    task = Embedding.from_arrays(x, 5 * cosine.astype(np.float64) + 0.3 * rng.normal(size=800))
    found = judged(tmp_path, task, 8, "quantize.static")
    assert found["budget"]["metric"] == "spearman"
    assert 0.7 < found["baseline"]["metric"]["value"] < 1
    assert found["verdict"] == "pass"
    assert found["best"]["drop"]["n"] == task.size("test")


@pytest.mark.parametrize("steps", ["quantize.static", "distill.logits(epochs=1, lr=0.0001)"])
def test_fidelity(tmp_path, steps):
    task = Fidelity.from_arrays(np.random.default_rng(0).normal(size=(2400, 16)))
    found = judged(tmp_path, task, 8, steps)
    assert found["budget"]["metric"] == "fidelity"
    assert found["baseline"]["metric"]["value"] == pytest.approx(1, abs=1e-6)
    assert found["verdict"] == "pass"
