from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from fettle import tasks
from fettle.core.arrays import SPLITS, Batch
from fettle.core.errors import DataError, KnobError, ModelError
from fettle.tasks import ArrayExamples, Classification, Data, Options, Preprocessing


def pixels(n=120, shape=(6, 6, 3), seed=0, classes=4):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, *shape), dtype=np.uint8), np.arange(n) % classes


@pytest.fixture(scope="module")
def digits():
    return tasks.load("digits")


def contents(task, split):
    return {row.tobytes() for batch in task.batches(split) for row in batch.inputs["input"]}


def test_importing_tasks_and_reading_digits_needs_no_torch():
    code = (
        "import sys; from fettle import tasks; tasks.load('digits'); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_splits_of_digits_are_disjoint_by_content_and_stratified(digits):
    parts = [contents(digits, split) for split in SPLITS]
    assert len(set.union(*parts)) == sum(len(part) for part in parts)
    assert [digits.size(split) for split in SPLITS] == [800, 99, 299, 599]
    y = np.concatenate([batch.targets for batch in digits.batches("test")])
    counts = np.bincount(y, minlength=10)
    assert counts.min() >= 57
    assert counts.max() <= 62


def test_inputs_are_the_sources_pixels_normalised(digits):
    from sklearn.datasets import load_digits

    raw = load_digits().images
    seen = contents(digits, "test")
    expected = ((raw / 16 - 0.3053) / 0.3760).astype(np.float32)
    found = [
        min(np.abs(expected - np.frombuffer(row, np.float32).reshape(8, 8)).max(axis=(1, 2)))
        for row in list(seen)[:20]
    ]
    assert max(found) < 1e-6


def test_signature_matches_what_batches_hold(digits):
    spec = digits.signature.inputs[0]
    inputs = digits.example_inputs(3)
    spec.check(inputs[spec.name])
    assert len(inputs[spec.name]) == 3
    assert digits.signature.image == (1, 8, 8)
    assert digits.signature.classes == len(digits.labels) == 10


def test_the_seed_decides_the_split():
    same, other = tasks.load("digits", seed=0), tasks.load("digits", seed=1)
    again = tasks.load("digits")
    assert [again.fingerprint(s) for s in SPLITS] == [same.fingerprint(s) for s in SPLITS]
    assert same.fingerprint("test") != other.fingerprint("test")


def test_fingerprint_knows_labels_and_augmentation():
    x, y = pixels()
    flipped = y.copy()
    flipped[[0, 1]] = flipped[[1, 0]]
    one, two = (
        Classification(Data(ArrayExamples(x, labels), 4, ArrayExamples(x[:9], labels[:9])))
        for labels in (y, flipped)
    )
    assert one.fingerprint("test") != two.fingerprint("test")
    plain, shifted = (tasks.load("digits", augment=kind) for kind in ("none", "shift"))
    assert plain.fingerprint("train") != shifted.fingerprint("train")
    assert plain.fingerprint("select") == shifted.fingerprint("select")


def test_an_epoch_depends_on_seed_epoch_and_position_only(digits):
    first = list(digits.epoch(3, 1, 64))
    np.random.default_rng(0).random(5)
    torch.manual_seed(7)
    again = list(digits.epoch(3, 1, 64))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a.inputs["input"], b.inputs["input"])
    later = next(iter(digits.epoch(3, 2, 64)))
    assert not np.array_equal(first[0].inputs["input"], later.inputs["input"])


def test_batch_size_does_not_change_the_order(digits):
    small = np.concatenate([b.inputs["input"] for b in digits.epoch(0, 0, 50)])
    large = np.concatenate([b.inputs["input"] for b in digits.epoch(0, 0, 200)])
    np.testing.assert_array_equal(small, large)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_shards_interleave_to_the_common_order(digits, world):
    whole = np.concatenate([b.targets for b in digits.epoch(5, 0, 1)])
    shards = [list(digits.epoch(5, 0, 30, (rank, world))) for rank in range(world)]
    assert {len(shard) for shard in shards} == {digits.steps(30, world)}
    for rank, shard in enumerate(shards):
        mine = np.concatenate([b.targets for b in shard])
        np.testing.assert_array_equal(mine, whole[rank::world][: len(mine)])


def test_a_short_batch_is_dropped_unless_it_is_the_only_one(digits):
    assert all(len(batch) == 300 for batch in digits.epoch(0, 0, 300))
    (only,) = digits.epoch(0, 0, 5000)
    assert len(only) == digits.size("train")


def test_score_is_top1_and_never_rewards_nan():
    x, y = pixels()
    task = Classification.from_arrays(x, y)
    batch = Batch({}, np.array([1, 2, 0]))
    logits = np.array([[0, 9, 1, 1], [5, 1, 2, 0], [np.nan, 0, 0, 0]], np.float32)
    np.testing.assert_array_equal(task.score({"out": logits}, batch), [1.0, 0.0, 0.0])
    with pytest.raises(ModelError, match=r"\[3, 4\].*got \[3, 7\]"):
        task.score({"out": np.zeros((3, 7))}, batch)


def test_loss_is_the_formula_of_smoothed_cross_entropy():
    x, y = pixels()
    task = Classification.from_arrays(x, y)
    rng = np.random.default_rng(0)
    logits, targets, smooth = rng.normal(size=(5, 4)), np.array([0, 3, 1, 2, 2]), 0.1
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    wanted = np.full((5, 4), smooth / 4)
    wanted[np.arange(5), targets] += 1 - smooth
    got = task.loss(torch.tensor(logits), Batch({}, targets), smooth)
    assert got.item() == pytest.approx(-(wanted * log_p).sum(1).mean())


def test_own_test_set_is_kept_whole_and_its_twins_leave_the_pool():
    x, y = pixels(200)
    x[5], x[50] = x[199], x[198]
    pool, test = ArrayExamples(x[:150], y[:150]), ArrayExamples(x[150:], y[150:])
    task = Classification(Data(pool, 4, test, Preprocessing("nhwc", 1 / 255)))
    assert task.size("test") == 50
    assert sum(task.size(split) for split in SPLITS) == 198
    assert not contents(task, "test") & contents(task, "train")


def test_twins_in_the_pool_never_straddle_splits():
    x, y = pixels(100)
    task = Classification.from_arrays(np.repeat(x, 3, axis=0), np.repeat(y, 3))
    parts = [contents(task, split) for split in SPLITS]
    assert len(set.union(*parts)) == sum(len(part) for part in parts) == 100
    assert task.size("train") == 3 * len(parts[0])


def test_counts_can_be_asked_for():
    task = tasks.load("digits", test=100, select=50, calibrate=20)
    assert [task.size(split) for split in SPLITS] == [1627, 20, 50, 100]


@pytest.mark.parametrize("count", [{"test": 1797}, {"select": 5000}])
def test_counts_that_leave_nothing_are_refused(count):
    with pytest.raises(DataError, match="distinct examples"):
        tasks.load("digits", **count)


@pytest.mark.parametrize(
    ("n", "classes", "message"), [(10, 2, "at least 20 examples"), (40, 1, "of 1")]
)
def test_too_few_examples_or_classes(n, classes, message):
    with pytest.raises(DataError, match=message):
        Classification.from_arrays(*pixels(n, classes=classes))


def test_augmenting_what_is_no_image_is_refused():
    x = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
    data = Data(ArrayExamples(x, np.arange(60) % 3), 3)
    with pytest.raises(KnobError, match="augment=none"):
        Classification(data, options=Options(augment="shift"))
    assert Classification(data).signature.inputs[0].shape == (-1, 5)
