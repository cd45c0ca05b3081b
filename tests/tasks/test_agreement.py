from __future__ import annotations

import pickle

import numpy as np
import pytest

from fettle import tasks
from fettle.core.arrays import SPLITS
from fettle.core.errors import DataError, ModelError
from fettle.tasks import Agreement
from fettle.testing import TaskContract

WEIGHTS = np.random.default_rng(5).normal(size=(7, 4))


def inputs(n=800, seed=0):
    return np.random.default_rng(seed).normal(size=(n, 7))


def answers(task, weights=WEIGHTS):
    """What a linear model says of each split."""
    return {
        split: {
            "logits": np.concatenate([b.inputs["input"] @ weights for b in task.batches(split)])
        }
        for split in SPLITS
        if task.size(split)
    }


class TestAgreement(TaskContract):
    def task(self):
        bare = Agreement.from_arrays(inputs())
        return bare.answered(answers(bare))

    def outputs(self, batch, good):
        logits = (batch.inputs["input"] @ WEIGHTS).astype(np.float32)
        return logits if good else -logits


def test_the_original_agrees_with_itself_and_labels_are_its_classes():
    bare = tasks.Agreement.from_arrays(inputs())
    task = bare.answered(answers(bare))
    assert (bare.needs_original, task.needs_original) == (True, False)
    for split in SPLITS:
        for batch in task.batches(split, 50):
            logits = batch.inputs["input"] @ WEIGHTS
            assert task.score({"y": logits}, batch).tolist() == [1.0] * len(batch)
            np.testing.assert_array_equal(batch.targets, logits.argmax(1))
    assert task.signature.classes == 4
    assert bare.signature.classes == 0


def test_the_split_stays_and_the_fingerprint_sees_the_answers():
    bare = Agreement.from_arrays(inputs())
    one, other = (bare.answered(answers(bare, w)) for w in (WEIGHTS, -WEIGHTS))
    for split in SPLITS[1:]:
        inputs_of = [
            np.concatenate([b.inputs["input"] for b in task.batches(split)]) for task in (bare, one)
        ]
        np.testing.assert_array_equal(*inputs_of)
    assert one.fingerprint("test") != other.fingerprint("test") != bare.fingerprint("test")


def test_the_proof_comes_first_where_there_is_little():
    sizes = {n: [Agreement.from_arrays(inputs(n)).size(s) for s in SPLITS] for n in (20, 400, 3000)}
    assert sizes[400] == [0, 50, 50, 300]
    assert sizes[20][0] == 0
    assert min(sizes[20][1:]) >= 2
    assert sizes[3000] == [1250, 375, 375, 1000]
    assert all(sum(found) == n for n, found in sizes.items())


def test_labels_are_left_out_of_account_but_their_number_shapes_the_model():
    task = tasks.load("digits", task="agreement")
    assert task.signature.classes == 10
    assert next(task.batches("test")).targets.shape[1:] == (0,)


def test_its_own_test_set_is_judged_too(tmp_path):
    np.savez(tmp_path / "a.npz", x_train=inputs(100), x_test=inputs(60, seed=1))
    bare = tasks.load(f"npz:{tmp_path / 'a.npz'}", task="agreement")
    task = bare.answered(answers(bare))
    assert task.size("test") == 60
    batch = next(task.batches("test", 60))
    np.testing.assert_array_equal(batch.targets, (batch.inputs["input"] @ WEIGHTS).argmax(1))


def test_before_the_answers_nothing_can_be_judged():
    task = Agreement.from_arrays(inputs())
    batch = next(task.batches("test"))
    with pytest.raises(DataError, match="hasn't answered"):
        task.score({"y": np.zeros((len(batch), 4))}, batch)
    with pytest.raises(DataError, match="hasn't answered"):
        task.loss(None, batch)


def test_nothing_to_train_with_is_said():
    task = Agreement.from_arrays(inputs(100))
    assert task.size("train") == 0
    with pytest.raises(DataError, match="needs no training"):
        next(task.epoch(0, 0, 8))


@pytest.mark.parametrize("shape", [(), (1,), (4, 5, 5)])
def test_outputs_that_are_no_logits_are_refused(shape):
    task = Agreement.from_arrays(inputs(100))
    wrong = {split: {"y": np.zeros((task.size(split), *shape))} for split in SPLITS}
    with pytest.raises(ModelError, match="--task fidelity"):
        task.answered(wrong)


def test_an_original_that_answers_nan_is_refused():
    task = Agreement.from_arrays(inputs(100))
    wrong = answers(task)
    wrong["test"]["logits"][3, 1] = np.nan
    with pytest.raises(ModelError, match="`test`"):
        task.answered(wrong)


def test_it_goes_to_other_processes():
    bare = Agreement.from_arrays(inputs())
    task = bare.answered(answers(bare))
    assert pickle.loads(pickle.dumps(task)).fingerprint("test") == task.fingerprint("test")
