"""Rows that are made many at once are the rows that would be made one by one."""

import dataclasses

import numpy as np
import pytest
from scipy.special import softmax

from fettle.monitor import answered
from fettle.monitor.answered import Answered, predictions, tops_of
from fettle.monitor.prediction import Prediction

SEEN = Answered(
    "r1", 7, "m", "2", "ab", "a", "me", "grpc", (0.00025, 0.001, 4), 0.0015,
    {"x": np.zeros((1, 3))}, {"y": np.array([[0.0, 3.0, 1.0]])},
)  # fmt: skip


def test_a_row_says_what_was_seen():
    (row,) = predictions([SEEN])
    confidence = softmax([0.0, 3.0, 1.0])[1]
    expected = Prediction(
        "r1", 7, "m", "2", "ab", "a", "me", batch=4, queue_us=250, compute_us=1000,
        total_us=1500, protocol="grpc", top=1, confidence=pytest.approx(confidence),
    )  # fmt: skip
    assert row == expected
    assert vars(row).keys() == {field.name for field in dataclasses.fields(Prediction)}
    with pytest.raises(dataclasses.FrozenInstanceError):
        row.key = "you"
    assert dataclasses.replace(row, route="b").route == "b"


def test_a_failure_is_told_in_the_engine_s_own_words():
    error = KeyError("broken")
    error.__cause__ = ValueError("index 7 is out of bounds")
    rows = predictions(
        [SEEN._replace(error=error, outputs=None), SEEN._replace(error=OSError("x"))]
    )
    assert [(row.status, row.error) for row in rows] == [
        ("KeyError", "index 7 is out of bounds"),
        ("OSError", "x"),
    ]
    assert rows[0].top is None


def test_no_rows():
    assert predictions([]) == []


@pytest.mark.parametrize("most", [1 << 18, 10, 1])
def test_tops_agree_with_scipy_in_whatever_company(most, monkeypatch):
    monkeypatch.setattr(answered, "_MOST_SCORES", most)
    rng = np.random.default_rng(0)
    outputs, expected = [], []
    for at in range(200):
        scores = rng.normal(0, 5, size=(1, rng.integers(2, 5))).astype(
            (np.float32, np.float64)[at % 2]
        )
        if at % 3 == 0:
            scores = softmax(scores, axis=1)
        probabilities = scores[0] if at % 3 == 0 else softmax(scores[0].astype(np.float64))
        outputs.append({"y": scores, "z": np.zeros(3)})
        expected.append((int(probabilities.argmax()), probabilities.max()))
    for found, (top, confidence) in zip(tops_of(outputs), expected, strict=True):
        assert found == (top, pytest.approx(float(confidence), rel=1e-6))


def test_scores_too_large_for_a_naive_softmax():
    ((top, confidence),) = tops_of([{"y": np.array([[1e4, 1e4 - 1, -1e4]])}])
    assert (top, confidence) == (0, pytest.approx(1 / (1 + np.exp(-1))))


@pytest.mark.parametrize(
    "outputs",
    [
        None,
        {},
        {"y": np.zeros((2, 3))},
        {"y": np.zeros(3)},
        {"y": np.zeros((1, 0))},
        {"y": np.zeros((1, 2, 2))},
        {"y": np.array([["a", "b"]], dtype=object)},
        {"y": np.array([[0.0, np.nan]])},
        {"y": np.array([[0.0, np.inf]])},
    ],
)
def test_what_has_no_top(outputs):
    known = {"y": np.array([[0.0, 3.0, 1.0]])}
    found = tops_of([known, outputs, known])
    assert found[1] is None
    assert found[0] == found[2] == (1, pytest.approx(softmax([0.0, 3.0, 1.0])[1]))
