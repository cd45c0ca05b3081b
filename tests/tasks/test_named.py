from __future__ import annotations

import numpy as np
import pytest

from fettle import tasks
from fettle.core.arrays import SPLITS
from fettle.core.errors import DataError
from fettle.tasks import Classification
from fettle.tasks._named import named_data, pack, specs, unpack

Y = np.arange(60) % 3


def tokens(n=60, length=6, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "input_ids": rng.integers(0, 50, (n, length), dtype=np.int32),
        "attention_mask": np.ones((n, length), bool),
    }


def test_packing_loses_nothing():
    arrays = {"a": np.arange(6).reshape(3, 2), "b": np.ones((3, 1, 4), np.float32)}
    found = unpack(pack(arrays)[[2, 0]])
    assert list(found) == ["a", "b"]
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array[[2, 0]])
        assert found[name].dtype == array.dtype
    kinds = [(s.name, s.dtype, s.shape) for s in specs(pack(arrays).dtype)]
    assert kinds == [("a", "int64", (-1, 2)), ("b", "float32", (-1, 1, 4))]


def test_a_task_of_named_inputs():
    x = tokens()
    task = Classification.from_arrays(x, Y, classes=4)
    names = [(s.name, s.dtype, s.shape) for s in task.signature.inputs]
    assert names == [("input_ids", "int64", (-1, 6)), ("attention_mask", "int64", (-1, 6))]
    assert (task.signature.classes, task.signature.vocabulary) == (4, x["input_ids"].max() + 1)
    assert [list(task.example_inputs(3)), len(task.example_inputs(3)["input_ids"])] == [list(x), 3]
    everything = [batch for split in SPLITS for batch in task.batches(split)]
    rows = np.concatenate([batch.inputs["input_ids"] for batch in everything])
    assert sorted(map(tuple, rows)) == sorted(map(tuple, x["input_ids"]))
    label = {tuple(row): y for row, y in zip(x["input_ids"], Y, strict=True)}
    for batch in (*everything, *task.epoch(0, 0, 8)):
        wanted = [label[tuple(row)] for row in batch.inputs["input_ids"]]
        np.testing.assert_array_equal(batch.targets, wanted)


def test_twins_never_part_and_the_fingerprint_sees_every_input():
    x = tokens()
    other = {**x, "attention_mask": x["attention_mask"].copy()}
    other["attention_mask"][7, 3] = 0
    twice = {name: np.concatenate([array, array]) for name, array in x.items()}
    task = Classification.from_arrays(twice, np.tile(Y, 2))
    seen = [
        {row.tobytes() for batch in task.batches(split) for row in batch.inputs["input_ids"]}
        for split in SPLITS
    ]
    assert sum(map(len, seen)) == len(set().union(*seen)) == 60
    one, two = (Classification.from_arrays(data, Y) for data in (x, other))
    assert [one.fingerprint(s) for s in SPLITS] != [two.fingerprint(s) for s in SPLITS]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_ids": np.full((60, 6), -1)}, "from 0 on, got -1"),
        ({"attention_mask": np.full((60, 6), 2)}, "`attention_mask` expects whole numbers 0 … 1"),
        ({"extra": np.full((60, 2), np.nan)}, "NaN"),
        ({"extra": np.full((60, 2), "word")}, "convert it"),
        ({"extra": np.zeros(60, np.int64)}, r"shape \(n, …\)"),
        ({"extra": np.zeros((59, 2))}, "59 examples"),
        ({"extra": np.full((60, 2), 2**63, np.uint64)}, "whole numbers"),
    ],
)
def test_unsound_inputs_are_refused(change, message):
    with pytest.raises(DataError, match=message):
        named_data({**tokens(), **change}, Y)


def test_ids_past_the_vocabulary_are_refused():
    with pytest.raises(DataError, match=r"0 … 19, got \d\d"):
        named_data(tokens(), Y, vocabulary=20)
    with pytest.raises(DataError, match="expected to be alike"):
        named_data(tokens(), Y, (tokens(length=7), Y))


def test_npz_of_named_inputs(tmp_path):
    np.savez(tmp_path / "one.npz", **tokens(), y=Y)
    one = tasks.load(f"npz:{tmp_path / 'one.npz'}", vocabulary=99)
    parts = {"train": tokens(), "test": tokens(30, seed=1)}
    both = {f"{k}_{part}": v for part, arrays in parts.items() for k, v in arrays.items()}
    np.savez(tmp_path / "two.npz", **both, y_train=Y, y_test=Y[:30])
    two = tasks.load(f"npz:{tmp_path / 'two.npz'}")
    assert [s.name for s in two.signature.inputs] == ["input_ids", "attention_mask"]
    assert (one.signature.vocabulary, two.size("test")) == (99, 30)
    (batch,) = two.batches("test")
    np.testing.assert_array_equal(batch.inputs["input_ids"], parts["test"]["input_ids"])


def test_a_function_may_give_named_inputs(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n"
        "def data():\n"
        "    return [({'ids': np.full(5, i), 'more': np.ones(2)}, i % 3) for i in range(50)]\n"
        "def mixed():\n"
        "    return [({'ids' if i else 'id': np.full(5, i)}, i % 3) for i in range(50)]\n"
    )
    task = tasks.load(f"{tmp_path / 'mine.py'}:data")
    assert [(s.name, s.dtype) for s in task.signature.inputs] == [
        ("ids", "int64"),
        ("more", "float32"),
    ]
    with pytest.raises(DataError, match="the same inputs"):
        tasks.load(f"{tmp_path / 'mine.py'}:mixed")


def test_tokens_are_padded_as_a_tokenizer_would():
    task = tasks.load("tokens:20:4:77")
    assert (task.signature.classes, task.signature.vocabulary) == (4, 77)
    (batch,) = task.batches("train", batch_size=1000)
    ids, mask = batch.inputs["input_ids"], batch.inputs["attention_mask"]
    assert ((ids > 0) == (mask == 1)).all()
    assert (mask[:, :-1] >= mask[:, 1:]).all()
    assert mask.sum(1).min() >= 5
    assert ids.max() < 77


@pytest.mark.parametrize("where", ["0", "x", "12:0", "12:2:1", "12:2:30:4"])
def test_tokens_of_no_shape_are_refused(where):
    with pytest.raises(DataError, match="expects a length"):
        tasks.load(f"tokens:{where}")


def test_rows_are_those_of_the_image():
    image, rows = tasks.load("digits"), tasks.load("rows:digits")
    assert rows.signature.inputs[0].shape == (-1, 8, 8)
    x, seq = (next(iter(t.epoch(1, 2, 16))).inputs["input"] for t in (image, rows))
    np.testing.assert_array_equal(seq, x[:, 0])
    assert rows.fingerprint("train") != image.fingerprint("train")
    two = tasks.load("rows:noise:3x4x5:7").example_inputs(2)["input"]
    wide = tasks.load("noise:3x4x5:7").example_inputs(2)["input"]
    np.testing.assert_array_equal(two, np.concatenate([wide[:, c] for c in range(3)], axis=2))


def test_rows_of_what_is_no_image_are_refused():
    with pytest.raises(DataError, match="source of images"):
        tasks.load("rows:tokens:12")
