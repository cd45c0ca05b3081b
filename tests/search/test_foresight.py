from types import SimpleNamespace

import numpy as np
import pytest

from fettle.runtimes.onnxruntime import OnnxRuntime
from fettle.search._foresight import Foresight
from fettle.search.journal import Journal

RUNTIME = OnnxRuntime(threads=1)


@pytest.fixture
def foresight(tmp_path, monkeypatch):
    monkeypatch.setenv("FETTLE_CACHE", str(tmp_path / "cache"))
    inputs = {"x": np.zeros((2, 3, 8, 8), np.float32)}
    return Foresight(inputs, Journal(tmp_path / "journal.jsonl"))


def sketched(path, lowering=()):
    return SimpleNamespace(model=path, runtime=RUNTIME, lowering=lowering)


def events(foresight):
    return [event["event"] for event in foresight.journal.read()]


def test_it_is_silent_until_it_knows_its_error(foresight, residual):
    wanted = residual(blocks=4, name="wanted.onnx")
    for blocks in (1, 2, 3):
        assert foresight.predict(wanted, RUNTIME) is None
        foresight.learn(sketched(residual(blocks=blocks, name=f"{blocks}.onnx")), 0.1 * blocks)
    found = foresight.predict(wanted, RUNTIME)
    assert 0 < found.low < found.ms < found.high
    assert events(foresight) == ["predicted"]


def test_the_truth_is_written_beside_the_prediction(foresight, residual):
    for blocks in (1, 2, 3):
        foresight.learn(sketched(residual(blocks=blocks, name=f"{blocks}.onnx")), 0.1 * blocks)
    path = residual(blocks=4, name="wanted.onnx")
    found = foresight.predict(path, RUNTIME)
    foresight.learn(sketched(path), 0.4)
    told = foresight.journal.read()[-1]
    assert (told["event"], told["ms"], told["truth_ms"]) == ("foreseen", found.ms, 0.4)


def test_what_cannot_be_predicted_is_said_once_and_left(foresight, tmp_path):
    (tmp_path / "bad.onnx").write_text("none")
    for _ in range(3):
        foresight.learn(sketched(tmp_path / "bad.onnx"), 1.0)
    assert events(foresight) == ["unpredictable"]
    assert foresight.predict(tmp_path / "bad.onnx", RUNTIME) is None


def test_a_live_module_is_passed_over(foresight):
    foresight.learn(sketched(object()), 1.0)
    assert events(foresight) == []
