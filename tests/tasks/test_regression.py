from __future__ import annotations

import pickle

import numpy as np
import pytest
from sklearn.metrics import r2_score

from fettle import tasks
from fettle.core.errors import DataError, ModelError
from fettle.tasks import Regression
from fettle.testing import TaskContract


def values(n=200, k=0, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 5))
    y = x @ rng.normal(size=(5, k or 1)) + 0.1 * rng.normal(size=(n, k or 1))
    return x, y if k else y[:, 0]


class TestOfOneValue(TaskContract):
    def task(self):
        return Regression.from_arrays(*values())

    def outputs(self, batch, good):
        wanted = batch.targets.reshape(len(batch), -1).astype(np.float32)
        return wanted if good else wanted + 3


class TestOfSeveral(TestOfOneValue):
    def task(self):
        return Regression.from_arrays(*values(k=3))


@pytest.mark.parametrize("k", [0, 1, 3])
def test_the_mean_contribution_is_r2(k):
    task = Regression.from_arrays(*values(k=k))
    rng = np.random.default_rng(1)
    for split in ("select", "test"):
        found, wanted, scores = [], [], []
        for batch in task.batches(split, 7):
            y = batch.targets.reshape(len(batch), -1)
            guess = y + rng.normal(size=y.shape)
            scores.append(task.score({"y": guess}, batch))
            found.append(guess)
            wanted.append(y)
        parts = task.contributions(np.concatenate(scores), split)
        pair = np.concatenate(wanted), np.concatenate(found)
        assert parts.mean() == pytest.approx(r2_score(*pair, multioutput="variance_weighted"))


def test_values_spread_alike_over_the_splits():
    x, y = values(3000)
    task = Regression.from_arrays(x, y)
    for split in ("select", "test"):
        assert np.median(task.targets(split)) == pytest.approx(np.median(y), abs=0.05)
        assert task.targets(split).std() == pytest.approx(y.std(), rel=0.1)


def test_the_signature_has_as_many_outputs_as_values():
    assert Regression.from_arrays(*values()).signature.classes == 1
    assert Regression.from_arrays(*values(k=3)).signature.classes == 3


def test_whole_numbers_are_values_when_asked_for(tmp_path):
    x, y = values()
    whole = np.round(y - y.min()).astype(np.int64)
    np.savez(tmp_path / "a.npz", x=x, y=whole)
    assert tasks.load(f"npz:{tmp_path / 'a.npz'}").metric == "top1"
    task = tasks.load(f"npz:{tmp_path / 'a.npz'}", task="regression")
    assert task.metric == "r2"
    assert set(task.targets("test")) <= set(whole.astype(float))
    np.savez(tmp_path / "b.npz", x=x, y=y)
    assert isinstance(tasks.load(f"npz:{tmp_path / 'b.npz'}"), Regression)


def test_numbers_of_a_table_count_as_they_are_written(tmp_path):
    pytest.importorskip("tokenizers")
    rows = [f"some words {i} and more,{10 * (i % 4) + 5}" for i in range(60)]
    (tmp_path / "a.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    task = tasks.load(f"text:{tmp_path / 'a.csv'}:8", task="regression", vocabulary=300)
    assert set(task.targets("test")) == {5.0, 15.0, 25.0, 35.0}
    assert next(task.batches("test")).targets.dtype == np.float64


def test_an_error_without_end_counts_as_a_large_one():
    task = Regression.from_arrays(*values())
    batch = next(task.batches("test"))
    guess = batch.targets[:, None].copy()
    guess[0] = np.nan
    guess[1] = 1e300
    parts = task.contributions(task.score({"y": guess}, batch), "test")
    assert np.isfinite(parts).all()
    assert parts[:2].max() < -1e5
    assert parts[2:] == pytest.approx(1)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (None, "got none"),
        (np.full(200, 0.5), "all the same"),
        (np.full(200, np.nan), "finite"),
    ],
)
def test_labels_that_tell_nothing_are_refused(y, message):
    with pytest.raises(DataError, match=message):
        Regression.from_arrays(values()[0], y)


def test_words_are_no_values(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\n" + "good,yes\nbad,no\n" * 30)
    with pytest.raises(DataError, match="--task classification"):
        tasks.load(f"text:{tmp_path / 'a.csv'}", task="regression")


def test_outputs_without_an_axis_for_values_are_refused():
    task = Regression.from_arrays(*values())
    batch = next(task.batches("test", 8))
    with pytest.raises(ModelError, match=r"\[8, 1\].*got \[8\]"):
        task.score({"y": batch.targets}, batch)


def test_it_goes_to_other_processes():
    task = Regression.from_arrays(*values())
    assert pickle.loads(pickle.dumps(task)).fingerprint("test") == task.fingerprint("test")
