import numpy as np
import pytest

from fettle.core.arrays import SPLITS, TensorSpec
from fettle.runtimes import Session
from fettle.testing import FakeSession, Recorder, TinyTask


@pytest.mark.parametrize(("image", "classes"), [((1, 8, 8), 4), ((3, 16, 12), 2)])
def test_a_tiny_task_is_a_sound_task(image, classes):
    task = TinyTask(image, classes)
    assert task.signature.image == image
    assert task.signature.classes == classes
    for split in SPLITS:
        (batch,) = task.batches(split)
        assert len(batch) == task.size(split) > 0
        assert batch.inputs["input"].shape == (len(batch), *image)
    assert sum(task.size(split) for split in SPLITS) == 120


def test_a_tiny_task_depends_on_its_arguments_alone():
    prints = [TinyTask(seed=seed).fingerprint("train") for seed in (0, 0, 1)]
    assert prints[0] == prints[1] != prints[2]


def test_a_linear_model_can_learn_it():
    task = TinyTask()
    train, test = (next(task.batches(split)) for split in ("train", "test"))
    x, unseen = (b.inputs["input"].reshape(len(b), -1) for b in (train, test))
    weights = np.linalg.lstsq(x, np.eye(4)[train.targets], rcond=None)[0]
    assert ((unseen @ weights).argmax(1) == test.targets).mean() > 0.9


def test_a_fake_session_computes_counts_and_closes():
    spec = TensorSpec("x", "float32", (-1,))
    session = FakeSession(lambda given: {"y": given["x"] + 1}, (spec,))
    assert isinstance(session, Session)
    assert session.run({"x": np.zeros(2)})["y"].tolist() == [1, 1]
    assert len(session.calls) == 1
    assert not session.closed
    session.close()
    assert session.closed


def test_a_recorder_counts_what_was_done_before():
    recorder = Recorder()
    with recorder.bar("train", 10, done=4) as bar:
        bar.step(amount=2)
    assert (recorder.bars[0].done, recorder.bars[0].notes) == (6, [])
