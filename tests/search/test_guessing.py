"""Originals that know nothing are told apart from those that do."""

import numpy as np
import pytest

from fettle import tasks
from fettle.search._guessing import only_guesses


def metric(value, half=0.03):
    return {"value": value, "low": value - half, "high": value + half, "split": "test"}


@pytest.fixture(scope="module")
def digits():
    return tasks.load("digits")


def test_the_guess_is_the_share_of_the_most_frequent_class(digits):
    targets = digits.targets("test")
    _, counts = np.unique(targets, return_counts=True)
    assert digits.guess("test") == pytest.approx(counts.max() / len(targets))


def test_a_model_that_guesses_is_told(digits):
    text = only_guesses(digits, metric(0.11))
    assert "always answering the most frequent class" in text
    assert "--weights" in text


def test_a_model_that_knows_something_is_not(digits):
    assert only_guesses(digits, metric(0.97)) is None


def test_nine_of_ten_is_a_guess_where_nine_of_ten_are_of_one_class(tmp_path):
    rng = np.random.default_rng(0)
    y = (rng.random(1200) < 0.1).astype(np.int64)
    np.savez(tmp_path / "skewed.npz", x=rng.normal(size=(1200, 1, 8, 8)).astype(np.float32), y=y)
    task = tasks.load(f"npz:{tmp_path}/skewed.npz")
    assert only_guesses(task, metric(0.91)) is not None
    assert only_guesses(task, metric(0.98)) is None


def test_where_nothing_can_be_guessed_nothing_is_said():
    agreement = tasks.load("digits", task="agreement")
    assert agreement.guess("test") is None
    assert only_guesses(agreement, metric(0.0)) is None
