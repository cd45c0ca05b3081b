"""Predictions and logs to try the monitor on."""

import dataclasses

import pytest

from fettle.monitor.log import PredictionLog
from fettle.monitor.prediction import Prediction

START = 4_102_444_800_000_000_000  # 2100, in nanoseconds of the epoch: nothing is too old to keep
ONE = Prediction(
    "r", START, "digits", "2", "0123456789abcdef", "only", "me", batch=4, queue_us=30,
    compute_us=200, total_us=400, top=3, confidence=0.75,
)  # fmt: skip


@pytest.fixture
def make():
    """Make a prediction: the `at`-th, a millisecond after the one before."""

    def prediction(at=0, **changes):
        plain = {"id": f"r{at}", "time": START + at * 1_000_000}
        return dataclasses.replace(ONE, **{**plain, **changes})

    return prediction


@pytest.fixture
def path(tmp_path):
    return tmp_path / "log.db"


@pytest.fixture
def written(path):
    """Write predictions, and labels by id, into a log; return its path."""

    def write(predictions, labels=(), **settings):
        with PredictionLog(path, **settings) as log:
            taken = [log.add(prediction) for prediction in predictions]
            assert all(taken)
            for label in labels:
                log.label(*label)
            assert log.flush()
        return path

    return write
