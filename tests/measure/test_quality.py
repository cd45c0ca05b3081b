import numpy as np
import pytest

from fettle.core.arrays import Batch, TensorSpec
from fettle.core.errors import DataError
from fettle.measure.quality import agreement, outputs_of, run_batch, scores_of
from fettle.runtimes import Session


class Doubler(Session):
    """Logits are twice the inputs; insists on `batch` rows when told to."""

    def __init__(self, batch=-1):
        self.inputs = (TensorSpec("x", "float32", (batch, 3)),)
        self.outputs = (TensorSpec("logits", "float32", (batch, 3)),)
        self.seen = []

    def run(self, inputs):
        self.inputs[0].check(inputs["x"])
        self.seen.append(len(inputs["x"]))
        return {"logits": 2 * inputs["x"]}

    def close(self):
        pass


class Rows:
    """Ten rows; the score is 1 where the largest logit is the target."""

    x = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)
    y = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 0])

    def batches(self, split, batch_size=256):
        for at in range(0, len(self.x), batch_size):
            yield Batch({"x": self.x[at : at + batch_size]}, self.y[at : at + batch_size])

    def score(self, outputs, batch):
        return (outputs["logits"].argmax(axis=1) == batch.targets).astype(np.float32)

    def contributions(self, scores, split):
        return scores


class Empty(Rows):
    x, y = Rows.x[:0], Rows.y[:0]


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_one_score_an_example_in_order(batch_size):
    expected = (Rows.x.argmax(axis=1) == Rows.y).astype(float)
    assert 0 < expected.mean() < 1
    found = scores_of(Doubler(), Rows(), "test", batch_size)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.float64


def test_a_fixed_batch_is_filled_and_its_filling_dropped():
    session = Doubler(batch=4)
    found = outputs_of(session, Rows(), "test")
    np.testing.assert_array_equal(found["logits"], 2 * Rows.x)
    assert session.seen == [4, 4, 4]
    np.testing.assert_array_equal(run_batch(session, {"x": Rows.x[:5]})["logits"], 2 * Rows.x[:5])


def test_outputs_stop_at_the_limit():
    session = Doubler()
    assert outputs_of(session, Rows(), "test", batch_size=4, limit=6)["logits"].shape == (6, 3)
    assert session.seen == [4, 4]


def test_scores_of_the_wrong_shape_or_nan_are_refused():
    class OneNumber(Rows):
        def score(self, outputs, batch):
            return np.float32(1)

    class NotANumber(Rows):
        def score(self, outputs, batch):
            return np.full(len(batch), np.nan)

    with pytest.raises(DataError, match="one number an example"):
        scores_of(Doubler(), OneNumber(), "test")
    with pytest.raises(DataError, match="finite"):
        scores_of(Doubler(), NotANumber(), "test")
    with pytest.raises(DataError, match="batch_size"):
        scores_of(Doubler(), Rows(), "test", batch_size=0)


@pytest.mark.parametrize("reader", [scores_of, outputs_of])
def test_an_empty_split_is_refused(reader):
    with pytest.raises(DataError, match="no examples"):
        reader(Doubler(), Empty(), "test")


def test_agreement_counts_the_same_largest_logit():
    a = {"y": np.array([[1.0, 2.0], [3.0, 0.0], [0.0, 1.0], [5.0, 4.0]])}
    b = {"other": np.array([[1.0, 2.5], [0.0, 3.0], [0.0, 1.0], [5.0, 4.0]])}
    found = agreement(a, b)
    assert found.to_json() == {"top1": 0.75, "max_abs": 3.0, "mean_abs": 6.5 / 8, "n": 4}


def test_what_is_no_number_agrees_with_nothing():
    a = {"y": np.array([[np.nan, 1.0], [0.0, 1.0]])}
    found = agreement(a, a)
    assert found.top1 == 0.5
    assert found.max_abs == np.inf
    assert found.to_json()["max_abs"] is None


@pytest.mark.parametrize("other", [np.zeros((2, 3)), np.zeros((3, 2)), np.zeros(4)])
def test_agreement_of_different_shapes_is_refused(other):
    with pytest.raises(DataError, match="same shape"):
        agreement({"y": np.zeros((2, 2))}, {"y": other})
    with pytest.raises(DataError, match="same shape"):
        agreement({}, {})
