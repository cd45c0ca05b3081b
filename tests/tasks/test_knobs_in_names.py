"""Knobs behind the name of a data source, and sources that bring a set to choose with."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fettle import tasks
from fettle.core.errors import DataError, KnobError
from fettle.tasks import ArrayExamples, Classification, Data
from fettle.tasks.sources.cifar10 import _held_out

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("FETTLE_DATA", ROOT.parent / "shared" / "data"))


@pytest.fixture
def archive(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "d.npz", x=rng.normal(size=(200, 5)), y=np.arange(200) % 4)
    return f"npz:{tmp_path / 'd.npz'}"


def test_knobs_of_the_task_and_of_the_source(archive):
    plain, asked = tasks.load(archive), tasks.load(f"{archive}?test=37&classes=6")
    assert plain.size("test") == 66
    assert (asked.size("test"), asked.signature.classes) == (37, 6)
    assert tasks.load(f"{archive}?test=37").fingerprint("test") == tasks.load(
        archive, test=37
    ).fingerprint("test")


def test_a_source_without_a_file_takes_them_too():
    assert tasks.load("digits?test=100").size("test") == 100


def test_what_a_caller_gives_counts_more(archive):
    assert tasks.load(f"{archive}?test=37", test=20).size("test") == 20


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ("tset=3", "no knob `tset`"),
        ("where=x", "no knob `where`"),
        ("test=", "expects int, got ''"),
        ("test=1.5", "expects int, got '1.5'"),
        ("test=-1", "from 0 to"),
        ("layout=abc", "'nchw'"),
    ],
)
def test_wrong_ones_are_named(archive, knobs, said):
    with pytest.raises(KnobError, match=said):
        tasks.load(f"{archive}?{knobs}")


def test_a_file_may_have_a_question_mark_in_its_name(archive, tmp_path):
    (tmp_path / "d.npz").rename(tmp_path / "d.npz?test=5")
    assert tasks.load(f"npz:{tmp_path / 'd.npz'}?test=5").size("test") == 66
    with pytest.raises(DataError, match=r"d\.npz`, but there is none"):
        tasks.load(f"npz:{tmp_path / 'd.npz'}?test=6")


def test_no_value_is_no_knob(archive):
    with pytest.raises(DataError, match=r"d\.npz\?test`, but there is none"):
        tasks.load(f"{archive}?test")


@pytest.fixture
def data():
    """300 examples to train with, 100 of a test set, some of them twice."""
    rng = np.random.default_rng(1)
    pool, test = (
        ArrayExamples(rng.normal(size=(n, 3)).astype(np.float32), np.arange(n) % 5)
        for n in (300, 100)
    )
    test.x[90:] = test.x[:10]
    test.x[80] = pool.x[7]
    return Data(pool, 5, test)


def test_the_held_out_choose_and_are_no_longer_tested(data):
    found = Classification(_held_out(data, 40), seed=3)
    plain = Classification(data, seed=3)
    assert (found.size("select"), plain.size("test")) == (40, 100)
    assert 50 <= found.size("test") <= 60  # less the twins of what was held out
    digests = {split: contents(found, split) for split in ("train", "calibrate", "select", "test")}
    assert not digests["select"] & digests["test"]
    assert not (digests["train"] | digests["calibrate"]) & (digests["select"] | digests["test"])
    assert digests["select"] | digests["test"] == contents(plain, "test")
    assert found.size("train") > plain.size("train")  # which gave its own to choose with


def test_the_same_are_held_out_whatever_the_seed(data):
    prints = {Classification(_held_out(data, 40), seed=s).fingerprint("select") for s in (0, 1)}
    assert len(prints) == 1


def test_the_held_out_are_of_every_class_alike(data):
    (batch,) = Classification(_held_out(data, 40)).batches("select")
    assert np.bincount(batch.targets).tolist() == [8] * 5


def test_a_source_with_its_own_set_to_choose_with_but_no_test(data):
    task = Classification(replace(data, test=None, select=data.test))
    assert task.size("select") == 100
    assert 0 < task.size("test") < 300
    assert not contents(task, "select") & contents(task, "test")


def contents(task, split):
    return {row.tobytes() for b in task.batches(split) for row in b.inputs["input"]}


@pytest.mark.data
@pytest.mark.skipif(not (DATA / "cifar10").is_dir(), reason="no benchmark data here")
def test_cifar_holds_out_of_its_official_test_images():
    task = tasks.load(f"cifar10:{DATA / 'cifar10'}?held_out=2000")
    assert task.size("select") == 2000
    assert 7990 <= task.size("test") <= 8000
    (batch,) = task.batches("select", batch_size=2000)
    assert np.bincount(batch.targets).tolist() == [200] * 10
