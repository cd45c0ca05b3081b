"""The original's answers as labels: with torch and without, in every split, and only once."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fettle.core.context import Context
from fettle.core.errors import CheckFailed, DataError
from fettle.search import Source, Workshop
from fettle.search._original import judged_task
from fettle.search._store import Store
from fettle.search.journal import Journal
from fettle.tasks import Agreement, Fidelity
from fettle.tasks._unlabelled import Unlabelled
from fettle.testing.fakes import Recorder, TinyTask

WEIGHTS = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
TARGET = ("onnxruntime",)


def write(path, outputs=2, batch="n"):
    """A file with one matrix product for each output."""
    values = [
        helper.make_tensor_value_info(f"y{i}", TensorProto.FLOAT, [batch, 5])
        for i in range(outputs)
    ]
    nodes = [helper.make_node("MatMul", ["x", f"w{i}"], [f"y{i}"]) for i in range(outputs)]
    weights = [numpy_helper.from_array(WEIGHTS * (i + 1), f"w{i}") for i in range(outputs)]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 6])
    graph = helper.make_graph(nodes, "g", [x], values, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, path)
    return str(path)


def task_of(kind=Unlabelled, features=6):
    return kind.from_arrays(np.random.default_rng(1).normal(size=(200, features)))


def shop(spec, task, store, recorder=None):
    return Workshop(Source(spec), task, store, Context(progress=recorder or Recorder()))


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "out", Journal(tmp_path / "out" / "journal.jsonl"))


@pytest.mark.parametrize("batch", ["n", 1, 4])
def test_an_onnx_file_labels_its_own_calibration_samples(tmp_path, store, batch):
    spec, bare = write(tmp_path / "m.onnx", outputs=1, batch=batch), task_of()
    task = judged_task(shop(spec, bare, store), TARGET)
    assert isinstance(task, Agreement)
    for found in task.batches("test", 50):
        np.testing.assert_array_equal(found.targets, (found.inputs["input"] @ WEIGHTS).argmax(1))


def test_all_outputs_count_for_fidelity(tmp_path, store):
    task = judged_task(shop(write(tmp_path / "m.onnx"), task_of(Fidelity), store), TARGET)
    batch = next(task.batches("test", 9))
    y = batch.inputs["input"] @ WEIGHTS
    assert task.score({"y0": y, "y1": 2 * y}, batch) == pytest.approx(1, abs=1e-6)
    assert task.score({"y0": y, "y1": 0 * y}, batch).mean() < 0.8


def test_the_answers_are_asked_for_once(tmp_path, store):
    spec, recorder = write(tmp_path / "m.onnx", outputs=1), Recorder()
    first = judged_task(shop(spec, task_of(), store), TARGET)
    stages = sorted((store.root / "stages").iterdir())
    again = judged_task(shop(spec, task_of(), store, recorder), TARGET)
    assert sorted((store.root / "stages").iterdir()) == stages
    assert again.fingerprint("test") == first.fingerprint("test")
    assert "the budget is on agreement with the original" in recorder.lines


def test_other_weights_give_other_labels(tmp_path, store):
    one = judged_task(shop(write(tmp_path / "a.onnx", 1), task_of(), store), TARGET)
    WEIGHTS[:] = -WEIGHTS
    try:
        other = judged_task(shop(write(tmp_path / "b.onnx", 1), task_of(), store), TARGET)
    finally:
        WEIGHTS[:] = -WEIGHTS
    assert one.fingerprint("test") != other.fingerprint("test")


def test_a_task_with_labels_is_left_alone(store):
    task = TinyTask()
    assert judged_task(shop("absent.onnx", task, store), TARGET) is task


def test_data_of_another_shape_is_told(tmp_path, store):
    spec = write(tmp_path / "m.onnx")
    with pytest.raises((DataError, CheckFailed), match=r"other inputs|runs the model"):
        judged_task(shop(spec, task_of(features=9), store), TARGET)


def test_a_torch_model_keeps_its_stage_when_it_has_answered(linear, store):
    """The number of classes is learned from the answers, and changes no key."""
    images = np.random.default_rng(0).integers(0, 256, (200, 8, 8), dtype=np.uint8)
    workshop = shop(linear_of_four(linear), Unlabelled.from_arrays(images), store)
    before = workshop.key()
    workshop.task = judged_task(workshop, TARGET)
    assert workshop.key() == before
    assert workshop.task.signature.classes == 4


def linear_of_four(spec):
    """The linear model where the data doesn't say how many classes there are."""
    from pathlib import Path

    file = Path(spec.rpartition(":")[0])
    file.write_text(
        file.read_text()
        .replace("def net(classes, in_channels)", "def net(in_channels, classes=None)")
        .replace("classes))", "classes or 4))")
    )
    return spec
