from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from fettle import tasks
from fettle.core.errors import DataError, ModelError
from fettle.tasks import Embedding
from fettle.testing import TaskContract

N = 120


def pairs(seed=0):
    rng = np.random.default_rng(seed)
    left = rng.normal(size=(N, 6))
    right = left + rng.uniform(0, 3, size=(N, 1)) * rng.normal(size=(N, 6))
    x = np.stack([left, right], axis=1)  # (n, 2, 6)
    return x, 5 * cosine(left, right)


def cosine(a, b):
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


class TestEmbedding(TaskContract):
    def task(self):
        return Embedding.from_arrays(*pairs())

    def outputs(self, batch, good):
        both = batch.inputs["input"]
        if good:
            return both.copy()
        rng = np.random.default_rng(len(both))
        return rng.normal(size=both.shape).astype(np.float32) - both


def test_the_mean_contribution_is_spearmans_correlation_of_cosines():
    task, rng = Embedding.from_arrays(*pairs()), np.random.default_rng(0)
    scores, labels = [], []
    for batch in task.batches("test", 7):
        noisy = batch.inputs["input"] + rng.normal(size=batch.inputs["input"].shape)
        scores.append(task.score({"e": noisy}, batch))
        np.testing.assert_allclose(scores[-1], cosine(noisy[0::2], noisy[1::2]))
        labels.append(batch.targets)
    parts = task.contributions(np.concatenate(scores), "test")
    rho = spearmanr(np.concatenate(scores), np.concatenate(labels)).statistic
    assert parts.shape == (task.size("test"),)
    assert parts.mean() == pytest.approx(rho)
    assert rho < 0.999


def test_a_batch_of_pairs_is_twice_as_many_inputs():
    task = Embedding.from_arrays(*pairs())
    batch = next(task.batches("test", 5))
    assert len(batch) == 5
    assert batch.inputs["input"].shape == (10, 6)
    assert task.signature.inputs[0].shape == (-1, 6)


def test_an_embedding_of_nothing_is_like_nothing():
    task = Embedding.from_arrays(*pairs())
    batch = next(task.batches("test", 4))
    assert task.score({"e": np.zeros((8, 6))}, batch).tolist() == [-1.0] * 4


def test_the_loss_is_of_cosines_and_labels_scaled():
    task = Embedding.from_arrays(*pairs())
    batch = next(task.batches("train", 16))
    outputs = torch.tensor(batch.inputs["input"])
    labels = np.concatenate([task.targets("train"), task.targets("calibrate")])
    wanted = (batch.targets - labels.min()) / (labels.max() - labels.min())
    cosines = cosine(*(batch.inputs["input"][side::2] for side in (0, 1)))
    assert float(task.loss(outputs, batch)) == pytest.approx(
        np.mean((cosines - wanted) ** 2), rel=1e-4
    )


@pytest.fixture
def table(tmp_path):
    pytest.importorskip("tokenizers")
    rng = np.random.default_rng(0)
    words = [f"word{i}" for i in range(30)]
    rows = []
    for i in range(90):
        text = " ".join(rng.choice(words, 6))
        rows.append(f"{text} a{i},{text if i % 2 else 'other'} b{i},{1 + 3 * (i % 2) + i / 100}")
    (tmp_path / "pairs.csv").write_text("text,text2,label\n" + "\n".join(rows) + "\n")
    return f"text:{tmp_path / 'pairs.csv'}:12"


class TestOfTexts(TaskContract):
    @pytest.fixture(autouse=True)
    def _table(self, table):
        self.table = table

    def task(self):
        return tasks.load(self.table, vocabulary=400)

    def outputs(self, batch, good):
        ids, mask = batch.inputs["input_ids"], batch.inputs["attention_mask"]
        counts = np.stack(
            [np.bincount(i[m > 0], minlength=400) for i, m in zip(ids, mask, strict=True)]
        )
        rng = np.random.default_rng(len(ids))
        bad = rng.normal(size=counts.shape)
        return (counts if good else bad).astype(np.float32)


def test_pairs_of_texts_with_values_are_embedded_one_by_one(table):
    task = tasks.load(table, vocabulary=400)
    assert isinstance(task, Embedding)
    batch = next(task.batches("test", 3))
    assert list(batch.inputs) == ["input_ids", "attention_mask"]
    assert batch.inputs["input_ids"].shape == (6, 12)
    assert batch.targets.dtype == np.float64
    together = tasks.load(table, task="regression", vocabulary=400)
    assert "token_type_ids" in next(together.batches("test", 3)).inputs


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((40, 3)), np.arange(40) / 7, r"\(n, 2, …\); got .*\[3\]"),
        (np.random.default_rng(0).random((40, 2, 3)), None, "got none"),
        (
            np.random.default_rng(0).random((40, 2, 3)),
            np.random.default_rng(0).random((40, 2)),
            "one label a pair",
        ),
    ],
)
def test_what_is_no_pair_with_a_label_is_refused(x, y, message):
    with pytest.raises(DataError, match=message):
        Embedding.from_arrays(x, y)


def test_one_embedding_a_pair_is_refused():
    task = Embedding.from_arrays(*pairs())
    batch = next(task.batches("test", 4))
    with pytest.raises(ModelError, match=r"\[8, 6\].*got \[4, 6\]"):
        task.score({"e": np.zeros((4, 6))}, batch)
