from __future__ import annotations

import numpy as np
import pytest

from fettle.core.arrays import SPLITS
from fettle.core.errors import ModelError
from fettle.tasks import Agreement, Fidelity
from fettle.tasks._unlabelled import Unlabelled
from fettle.testing import TaskContract

WEIGHTS = np.random.default_rng(5).normal(size=(7, 12))


def inputs(n=800, seed=0):
    return np.random.default_rng(seed).normal(size=(n, 7))


def boxes(x):
    """An output of several axes, far from zero."""
    return (x @ WEIGHTS + 50).reshape(-1, 4, 3)


def answered(task, model):
    answers = {}
    for split in SPLITS:
        parts = [model(batch.inputs["input"]) for batch in task.batches(split)]
        if parts:
            answers[split] = {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}
    return task.answered(answers)


class TestFidelity(TaskContract):
    def task(self):
        return answered(Fidelity.from_arrays(inputs()), lambda x: {"boxes": boxes(x)})

    def outputs(self, batch, good):
        return boxes(batch.inputs["input"] if good else -batch.inputs["input"]).astype(np.float32)


def test_a_hundredth_of_noise_is_20_db():
    task, rng = TestFidelity().task(), np.random.default_rng(0)
    scores, noise, signal = [], 0.0, []
    for batch in task.batches("test"):
        exact = boxes(batch.inputs["input"])
        off = 0.1 * np.sqrt((WEIGHTS**2).sum(0)).reshape(4, 3) * rng.normal(size=exact.shape)
        scores.append(task.score({"y": exact + off}, batch))
        noise += (off**2).sum()
        signal.append(exact)
    signal = np.concatenate(signal)
    ratio = noise / ((signal - signal.mean(0)) ** 2).sum()
    lost = 1 - np.concatenate(scores).mean()
    assert lost == pytest.approx(0.01, rel=0.1)
    assert lost == pytest.approx(ratio, rel=0.1)  # of this split; the task's signal is of all
    assert -10 * np.log10(lost) == pytest.approx(20, abs=0.5)


def test_always_the_same_answer_keeps_nothing_however_large_it_is():
    task = TestFidelity().task()
    kept = []
    for batch in task.batches("test"):
        constant = np.broadcast_to(np.full((4, 3), 50.0), (len(batch), 4, 3))
        kept.append(task.score({"y": constant}, batch))
    assert np.concatenate(kept).mean() < 0.3  # uncentred, it would be 0.995


def test_scores_lie_between_0_and_1_and_nan_loses_all():
    task = TestFidelity().task()
    batch = next(task.batches("test", 6))
    found = boxes(batch.inputs["input"])
    found[0], found[1], found[2] = np.nan, 1e30, np.inf
    scores = task.score({"y": found}, batch)
    assert scores[:3].tolist() == [0, 0, 0]
    assert scores[3:] == pytest.approx(1)


def test_each_output_counts_alike_whatever_its_size():
    def model(x):
        return {"small": 1e-3 * x @ WEIGHTS, "large": 1e3 * boxes(x)}

    task = answered(Fidelity.from_arrays(inputs()), model)
    batch = next(task.batches("test", 5))
    exact = model(batch.inputs["input"])
    assert task.score(exact, batch) == pytest.approx(1, abs=1e-6)
    other = {"small": 1e30 * np.ones_like(exact["small"]), "large": exact["large"]}
    assert task.score(other, batch) == pytest.approx(0.5, abs=1e-6)
    with pytest.raises(ModelError, match="2 outputs"):
        task.score({"small": exact["small"]}, batch)


def test_states_without_a_row_an_example_are_left_out():
    def model(x):
        return {"y": x @ WEIGHTS, "state": np.zeros((2, 1, 3))}

    bare = Fidelity.from_arrays(inputs(100))
    answers = {s: model(next(bare.batches(s)).inputs["input"]) for s in SPLITS[1:]}
    task = bare.answered(answers)
    batch = next(task.batches("test", 5))
    assert task.score(model(batch.inputs["input"]), batch) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda x: {"y": np.ones((len(x), 3))}, "no signal"),
        (lambda x: {"y": np.full((len(x), 3), np.inf)}, "NaN or infinity"),
        (lambda x: {"y": x[:, 0]}, r"shape \(examples, …\)"),
    ],
)
def test_answers_that_say_nothing_are_refused(model, message):
    with pytest.raises(ModelError, match=message):
        answered(Fidelity.from_arrays(inputs()), model)


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        (lambda x: {"y": x @ WEIGHTS}, Agreement),
        (lambda x: {"y": boxes(x)}, Fidelity),
        (lambda x: {"y": x @ WEIGHTS[:, :1]}, Fidelity),
        (lambda x: {"y": x @ WEIGHTS + 1e3 * (np.arange(12) == 3)}, Fidelity),  # always class 3
    ],
)
def test_what_suits_the_outputs_is_chosen(model, kind):
    task = answered(Unlabelled.from_arrays(inputs()), model)
    assert type(task) is kind
    assert task.metric == kind.metric
