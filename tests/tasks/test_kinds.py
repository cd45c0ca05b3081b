"""Which kind of task suits which data, whatever the source."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from fettle import tasks
from fettle.core.errors import DataError, UnknownName
from fettle.tasks import Classification, Regression
from fettle.tasks._unlabelled import Unlabelled

SCRIPT = """
import numpy as np

RNG = np.random.default_rng(0)

def values():
    return [(RNG.normal(size=3), float(i) / 7) for i in range(60)]

def several():
    return [(RNG.normal(size=3), np.array([i / 7, i / 3])) for i in range(60)]

def bare():
    return [RNG.normal(size=3).astype(np.float32) for i in range(60)]

def nothing():
    return [(RNG.normal(size=3), None) for i in range(60)]

def named():
    return [{"input_ids": RNG.integers(1, 9, 4), "labels": i % 2} for i in range(60)]
"""


def x(n=60, seed=0):
    return np.random.default_rng(seed).normal(size=(n, 3))


@pytest.fixture
def archive(tmp_path):
    def write(**arrays):
        np.savez(tmp_path / "a.npz", **arrays)
        return f"npz:{tmp_path / 'a.npz'}"

    return write


def test_every_file_of_the_folder_is_a_kind():
    assert tasks.kinds() == ("agreement", "classification", "embedding", "fidelity", "regression")


@pytest.mark.parametrize(
    ("arrays", "kind"),
    [
        ({"x": x(), "y": np.arange(60) % 3}, Classification),
        ({"x": x(), "y": np.arange(60) / 7}, Regression),
        ({"x": x(), "y": np.random.default_rng(0).normal(size=(60, 2))}, Regression),
        ({"x": x()}, Unlabelled),
        ({"samples": x()}, Unlabelled),
        ({"x_train": x(), "x_test": x(30, 1)}, Unlabelled),
        (
            {
                "x_train": x(),
                "y_train": np.arange(60) / 7,
                "x_test": x(30, 1),
                "y_test": np.arange(30) / 7,
            },
            Regression,
        ),
        ({"input_ids": np.arange(240).reshape(60, 4)}, Unlabelled),
        ({"a": x(), "b": x(60, 1)}, Unlabelled),
    ],
)
def test_the_labels_of_an_archive_decide(archive, arrays, kind):
    assert type(tasks.load(archive(**arrays))) is kind


def test_what_is_asked_for_is_taken(archive):
    place = archive(x=x(), y=np.arange(60) % 3)
    for name in ("classification", "regression", "agreement", "fidelity"):
        assert type(tasks.load(place, task=name)).__name__.lower() == name
    with pytest.raises(UnknownName, match="did you mean `regression`"):
        tasks.load(place, task="regresion")
    with pytest.raises(DataError, match="--task regression"):
        tasks.load(archive(x=x(), y=np.arange(60) / 7), task="classification")
    with pytest.raises(DataError, match="--task agreement"):
        tasks.load(archive(x=x()), task="classification")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("values", Regression),
        ("several", Regression),
        ("bare", Unlabelled),
        ("nothing", Unlabelled),
        ("named", Classification),
    ],
)
def test_a_function_may_give_any_labels_or_none(tmp_path, name, kind):
    (tmp_path / "mine.py").write_text(SCRIPT)
    assert type(tasks.load(f"{tmp_path / 'mine.py'}:{name}")) is kind


@pytest.mark.parametrize("folder", [".", "train"])
def test_images_without_folders_of_classes_have_no_labels(tmp_path, folder):
    (tmp_path / folder).mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for i in range(24):
        pixels = rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / folder / f"{i}.png")
    task = tasks.load(f"imagefolder:{tmp_path}", size=16)
    assert type(task) is Unlabelled
    assert sum(task.size(split) for split in ("calibrate", "select", "test")) == 24


def test_a_table_without_labels(tmp_path):
    pytest.importorskip("tokenizers")
    rows = "\n".join(f"some text number {i}" for i in range(60))
    (tmp_path / "a.csv").write_text(f"text\n{rows}\n")
    task = tasks.load(f"text:{tmp_path / 'a.csv'}:8", vocabulary=300)
    assert type(task) is Unlabelled
    assert list(task.example_inputs(2)) == ["input_ids", "attention_mask"]


def test_train_labels_without_test_labels_are_refused(archive):
    with pytest.raises(DataError, match="y_test"):
        tasks.load(archive(x_train=x(), y_train=np.arange(60) % 2, x_test=x()))


def test_arrays_of_different_lengths_are_refused(archive):
    with pytest.raises(DataError, match="expected to hold"):
        tasks.load(archive(a=x(), b=x(50)))


def test_too_few_for_a_test_says_how_to_get_one(archive):
    with pytest.raises(DataError, match=r"x_test"):
        tasks.load(archive(x=x(), y=np.arange(60) % 2), test=60)
    with pytest.raises(DataError, match="at least 20"):
        tasks.load(archive(x=x(9)))


def test_lengths_that_vary(tmp_path):
    pytest.importorskip("tokenizers")
    rows = [" ".join(["word"] * (1 + i % 20)) + f" x{i},{i % 2}" for i in range(200)]
    (tmp_path / "a.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    place = f"text:{tmp_path / 'a.csv'}"
    task, fixed = (tasks.load(f"{place}:{n}", vocabulary=300) for n in ("1-64", "64"))
    assert [spec.shape for spec in task.signature.inputs] == [(-1, -1), (-1, -1)]
    lengths = []
    for ours, theirs in zip(task.batches("test", 4), fixed.batches("test", 4), strict=True):
        ids, mask = ours.inputs["input_ids"], ours.inputs["attention_mask"]
        lengths.append(ids.shape[1])
        assert mask[:, -1].any()  # no column of padding alone
        np.testing.assert_array_equal(ids, theirs.inputs["input_ids"][:, : ids.shape[1]])
        assert not theirs.inputs["attention_mask"][:, ids.shape[1] :].any()
    assert len(set(lengths)) > 2
    own = next(fixed.batches("calibrate", 999)).inputs["attention_mask"].sum(1)
    one = task.example_inputs(1)["input_ids"].shape
    assert one == (1, np.sort(own)[len(own) // 2])
    many = task.example_inputs(8)["attention_mask"].sum(1)
    assert np.mean(many) == pytest.approx(np.mean(own), rel=0.25)
