from types import SimpleNamespace

import numpy as np
import pytest

from fettle.core.errors import ModelError
from fettle.runtimes.onnxruntime import OnnxRuntime
from fettle.search._foresight import Foresight, general
from fettle.search.journal import Journal

RUNTIME = OnnxRuntime(threads=1)


class Shop:
    """Makes of a number so many blocks."""

    def __init__(self, residual, path):
        self.residual, self.made = residual, []
        self.store = SimpleNamespace(journal=Journal(path))
        self.task = SimpleNamespace(
            example_inputs=lambda n: {"x": np.zeros((min(n, 1), 3, 8, 8), np.float32)}
        )

    def make(self, blocks):
        self.made.append(blocks)
        if blocks < 1:
            raise ModelError("no blocks")
        return SimpleNamespace(path=self.residual(blocks=blocks, name=f"{blocks}.onnx"))


@pytest.fixture
def foresight(tmp_path, monkeypatch, residual):
    monkeypatch.setenv("FETTLE_CACHE", str(tmp_path / "cache"))
    return Foresight(Shop(residual, tmp_path / "journal.jsonl"), batch=2)


@pytest.fixture
def learn(foresight):
    """Let it learn a network of so many blocks, which takes 0.1 ms each."""

    def learn(*several, lowering=()):
        for blocks in several:
            path = foresight.workshop.make(blocks).path
            trial = SimpleNamespace(model=path, runtime=RUNTIME, lowering=lowering)
            foresight.learn(trial, 0.1 * blocks)

    return learn


def events(foresight):
    return [event["event"] for event in foresight.workshop.store.journal.read()]


def test_it_is_silent_until_it_knows_its_error(foresight, learn):
    for blocks in (1, 2, 3):
        assert not foresight.ready
        assert foresight.predict(4, RUNTIME) is None
        learn(blocks)
    assert foresight.workshop.made == [1, 2, 3]  # nothing is made for a prediction that can't be
    assert foresight.ready
    found = foresight.predict(4, RUNTIME)
    assert 0 < found.low < found.ms < found.high
    assert events(foresight) == ["predicted"]


def test_another_lowering_is_another_model(foresight, learn):
    learn(1, 2, 3)
    assert foresight.predict(4, RUNTIME, ("graph.lower_ort_x86",)) is None


def test_the_truth_is_written_beside_the_prediction(foresight, learn):
    learn(1, 2, 3)
    found = foresight.predict(4, RUNTIME)
    learn(4)
    told = foresight.workshop.store.journal.read()[-1]
    assert (told["event"], told["recipe"]) == ("foretold", "4")
    assert (told["ms"], told["truth_ms"]) == (found.ms, 0.4)


def test_what_cannot_be_predicted_is_said_once_and_left(foresight, learn, tmp_path):
    learn(1, 2, 3)
    (tmp_path / "bad.onnx").write_text("none")
    bad = SimpleNamespace(model=tmp_path / "bad.onnx", runtime=RUNTIME, lowering=())
    for _ in range(3):
        foresight.learn(bad, 1.0)
    assert events(foresight) == ["unpredictable"]
    assert foresight.predict(4, RUNTIME) is None


def test_what_cannot_be_made_is_not_predicted(foresight, learn):
    learn(1, 2, 3)
    assert foresight.predict(0, RUNTIME) is None
    assert events(foresight) == []


def test_a_live_module_is_passed_over(foresight):
    foresight.learn(SimpleNamespace(model=object(), runtime=RUNTIME, lowering=()), 1.0)
    assert events(foresight) == []
    assert not foresight.ready


def test_passes_that_name_layers_are_for_one_shape_only():
    lowering = ("graph.lower_float(nodes='a,b')", "graph.lower_ort_x86")
    assert general(lowering) == ("graph.lower_ort_x86",)
