from __future__ import annotations

import csv
import json
import subprocess
import sys

import numpy as np
import pytest

from fettle import tasks
from fettle.core.arrays import SPLITS
from fettle.core.errors import DataError

MASK = "attention_mask"
WORDS = ["good", "fine", "great", "lovely", "bad", "poor", "awful", "dull", "film", "plot", "cast"]


def write(path, n=120, pairs=False, seed=0, labels=("neg", "pos")):
    rng = np.random.default_rng(seed)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["label", "text", *(["text2"] if pairs else [])])
        for i in range(n):
            tone = WORDS[:4] if i % 2 else WORDS[4:8]
            texts = [
                f"A {rng.choice(tone)} {rng.choice(WORDS[8:])}, {i} “{rng.choice(WORDS)}” é"
                for _ in range(2 if pairs else 1)
            ]
            writer.writerow([labels[i % 2], *texts])
    return path


def test_texts_become_ids_that_read_back(tmp_path):
    task = tasks.load(f"text:{write(tmp_path / 'a.csv')}:24")
    names = [(s.name, s.shape) for s in task.signature.inputs]
    assert names == [("input_ids", (-1, 24)), ("attention_mask", (-1, 24))]
    assert (task.labels, task.signature.classes) == (("neg", "pos"), 2)
    import tokenizers

    kept = json.loads(json.dumps(task.preprocessing["tokenizer"]))
    own = tokenizers.Tokenizer.from_str(json.dumps(kept))
    assert own.get_vocab_size() == task.signature.vocabulary
    (batch,) = task.batches("train", 1000)
    for ids, mask, y in zip(*batch.inputs.values(), batch.targets, strict=True):
        words = own.decode(ids.tolist())
        assert any(word in words for word in (WORDS[:4] if y else WORDS[4:8]))
        assert (own.id_to_token(ids[0]), own.id_to_token(ids[mask.sum() - 1])) == ("[CLS]", "[SEP]")
        assert (ids[mask == 0] == 0).all()


def test_the_tokenizer_learns_from_the_train_split_alone(tmp_path):
    path = tmp_path / "a.csv"
    letters = np.random.default_rng(0).integers(97, 123, (90, 8))
    words = ["".join(map(chr, row)) for row in letters]
    with path.open("w", encoding="utf-8") as stream:
        stream.write("text,label\n")
        stream.writelines(f"{word} {word},{i % 2}\n" for i, word in enumerate(words))
    task = tasks.load(f"text:{path}:16")
    lengths = {
        split: [mask.sum() for batch in task.batches(split) for mask in batch.inputs[MASK]]
        for split in ("train", "test")
    }
    assert set(lengths["train"]) == {4}  # each word is one token, with [CLS] and [SEP]
    assert min(lengths["test"]) > 4
    known = task.preprocessing["tokenizer"]["model"]["vocab"]
    assert sum(f"\u0120{word}" in known for word in words) == task.size("train")


def test_it_is_the_same_in_every_process(tmp_path):
    path = write(tmp_path / "a.csv")
    code = (
        "from fettle import tasks\n"
        f"t = tasks.load('text:{path}')\n"
        "print([t.fingerprint(s) for s in ('train', 'calibrate', 'select', 'test')])"
    )
    found = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    here = tasks.load(f"text:{path}")
    assert found[0].stdout == found[1].stdout == f"{[here.fingerprint(s) for s in SPLITS]}\n"


def test_pairs_have_segments_and_a_folder_its_own_test_set(tmp_path):
    write(tmp_path / "train.csv", pairs=True)
    write(tmp_path / "test.csv", 30, pairs=True, seed=1)
    task = tasks.load(f"text:{tmp_path}:32")
    (batch,) = task.batches("test", 1000)
    segments, mask = batch.inputs["token_type_ids"], batch.inputs["attention_mask"]
    assert (len(batch), set(np.unique(segments))) == (30, {0, 1})
    assert ((segments == 1) <= (mask == 1)).all()


def test_a_tokenizer_from_elsewhere(tmp_path):
    path = write(tmp_path / "a.csv")
    first = tasks.load(f"text:{path}:16")
    (tmp_path / "tokenizer.json").write_text(json.dumps(first.preprocessing["tokenizer"]))
    second = tasks.load(f"text:{path}:16", tokenizer=str(tmp_path), seed=1)
    assert second.signature.vocabulary == first.signature.vocabulary
    with pytest.raises(DataError, match="no tokenizer"):
        tasks.load(f"text:{path}", tokenizer=str(path))


def test_numbers_are_sorted_as_numbers(tmp_path):
    write(tmp_path / "a.csv", labels=("10", "9"))
    assert tasks.load(f"text:{tmp_path / 'a.csv'}").labels == ("9", "10")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "got nothing"),
        ("text,label\n", "got nothing"),
        ("words,label\na,b\n", r"\['label', 'words'\]"),
        ("text,label\na,x\n,y\n", "row 3"),
        ("text,label\na\n", "row 2"),
        ('text,label\n"a,b\n', "no sound CSV"),
    ],
)
def test_what_is_no_table_of_texts_is_refused(tmp_path, content, message):
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        tasks.load(f"text:{tmp_path / 'a.csv'}")


def test_bytes_that_are_no_text_and_lengths_that_are_none(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"text,label\n\xff\xfe,1\n")
    with pytest.raises(DataError, match="UTF-8"):
        tasks.load(f"text:{tmp_path / 'a.csv'}")
    with pytest.raises(DataError, match="4 to 100,000"):
        tasks.load("text:a.csv:3")
