"""Whether two answers say the same."""

import numpy as np
import pytest

from fettle.core.errors import CheckFailed
from fettle.serve.rollout._agreement import compare


def of(first, second, tolerance=0.05):
    return compare({"y": np.asarray(first)}, {"y": np.asarray(second)}, tolerance)


def test_classes_are_compared_by_the_largest_score():
    found = of([[1.0, 2, 3], [3, 1, 2]], [[0.0, 5, 9], [1, 2, 0]])
    assert (found.disagreement, found.classes) == (0.5, True)
    assert found.difference == pytest.approx((10 / 3 + 5 / 3) / 2 / 2)


def test_bounds_on_accuracy_hold_for_any_labels():
    rng = np.random.default_rng(0)
    for _ in range(50):
        a, b, labels = rng.random((40, 3)), rng.random((40, 3)), rng.integers(0, 3, 40)
        loss = (a.argmax(1) == labels).mean() - (b.argmax(1) == labels).mean()
        assert abs(loss) <= of(a, b).disagreement


def test_one_number_a_row_is_compared_within_the_tolerance():
    found = of([[1.0], [2.0]], [[1.04], [2.2]])
    assert (found.disagreement, found.classes) == (0.5, False)


def test_other_shapes_are_compared_row_by_row():
    answer = np.ones((2, 3, 4), np.float16)
    other = answer.copy()
    other[1] *= 2
    assert of(answer, other).disagreement == 0.5


@pytest.mark.parametrize("kind", [np.int64, object])
def test_labels_are_the_same_or_not(kind):
    found = of(np.array([1, 2, 3, 4], kind), np.array([1, 2, 3, 5], kind))
    assert (found.disagreement, found.classes, found.difference) == (0.25, True, None)


def test_text_in_rows_is_compared_whole():
    found = of(np.array([[b"a", b"b"], [b"c", b"d"]], object), [[b"a", b"b"], [b"c", b"e"]])
    assert (found.disagreement, found.classes) == (0.5, False)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_disagrees(value):
    scores = np.array([[1.0, 2.0], [value, 0.0]])
    found = of(scores, scores)
    assert (found.disagreement, found.difference) == (0.5, None)


@pytest.mark.parametrize("other", [{}, {"y": np.zeros((1, 3))}, {"z": np.zeros((2, 3))}])
def test_what_can_not_be_compared_is_said(other):
    with pytest.raises(CheckFailed, match="same shape"):
        compare({"y": np.zeros((2, 3))}, other, 0.05)


def test_nothing_can_not_be_compared():
    with pytest.raises(CheckFailed):
        of(np.zeros((0, 3)), np.zeros((0, 3)))
