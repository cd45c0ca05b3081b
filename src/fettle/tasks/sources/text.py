"""`text:FILE.csv`, `text:FILE.csv:LENGTH` or `text:DIR`: texts, or pairs of texts, with labels.

The file has a header with `text`, `label` and maybe `text2`; a folder holds `train.csv` and maybe
`test.csv`. Labels are any words or numbers, which are classes; with fractions among them they are
values to predict, and of pairs how alike both are. Without a column `label` there are none. Every
text becomes LENGTH tokens (64): longer ones are cut, shorter ones padded. Inputs are `input_ids`,
`attention_mask` and, for pairs, `token_type_ids`; but where the likeness of pairs is to be
predicted (`--task embedding`), the model gets each text by itself.

With `text:FILE.csv:1-LENGTH` a batch is only as long as its longest text, at most LENGTH tokens:
the model's inputs have a free length, and it is timed at the lengths that the texts have.

Without a network and without a tokenizer from elsewhere, a byte-level BPE is learned from the
`train` split alone, lower-cased (Sennrich et al. 2016, arXiv 1508.07909). A model that was trained
with another tokenizer needs that one: the knob `tokenizer` names its `tokenizer.json`, or the
folder. The tokenizer is kept whole in the task's preprocessing, and so in the bundle.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np

from fettle.core.errors import DataError
from fettle.core.knobs import Range, Text
from fettle.tasks._data import Data, no_labels
from fettle.tasks._source import DataSource
from fettle.tasks._texts import TextExamples, Tokenized, encoder, learned, opened, targets_of

_LENGTH = 64
_Table = tuple[tuple[str, ...], list[tuple[str, ...]], list[str]]


@dataclass(frozen=True, kw_only=True)
class TextFile(DataSource):
    """Labelled texts in CSV files."""

    tokenizer: Annotated[str, Text("a path"), "tokenizer.json or its folder; empty: learn one"] = ""
    vocabulary: Annotated[int, Range(300, 200_000, "tokens"), "to learn, at most"] = 8192

    def read(self) -> Data:
        """Return the texts; the tokenizer is learned once they are split.

        Raises:
            DataError: a file is missing, no CSV of these columns, or has empty texts or labels.
            MissingError: the package `tokenizers` is not installed.
        """
        where, length, variable = _place(self._need_where("a CSV file, as in `text:reviews.csv`"))
        files = [where / "train.csv", where / "test.csv"] if where.is_dir() else [where]
        tables = [_read(file) for file in files if file.is_file() or file == files[0]]
        if len({columns for columns, _, _ in tables}) > 1:
            raise DataError(f"the files in `{where}` are expected to have the same columns")
        names, labels = _targets(tables)
        parts = [TextExamples(t[1], y) for t, y in zip(tables, labels, strict=True)]
        test, pairs = parts[1] if len(parts) > 1 else None, parts[0].pairs
        data = Data(parts[0], len(names), test, labels=names, pairs=pairs)
        return replace(data, learn=partial(self._encode, data, length), variable=variable)

    def _encode(self, data: Data, length: int, train: np.ndarray, apart: bool = False) -> Data:
        """Return `data` as token ids; the tokenizer has seen the `train` rows alone."""
        assert isinstance(data.pool, TextExamples)
        made = (
            opened(Path(self.tokenizer))
            if self.tokenizer
            else learned(data.pool.rows(train), self.vocabulary)
        )
        encode = encoder(made, length, data.pool.pairs, apart)
        test = encode(data.test) if isinstance(data.test, TextExamples) else None
        return replace(
            data,
            pool=encode(data.pool),
            test=test,
            preprocessing=Tokenized(tokenizer=made.to_str(), length=length),
            vocabulary=made.get_vocab_size(),
            learn=None,
        )


def _place(where: str) -> tuple[Path, int, bool]:
    """Return the file or folder, the number of tokens behind it, and whether fewer will do."""
    path, colon, lengths = where.rpartition(":")
    least, dash, most = lengths.rpartition("-")
    if not colon or not most.isdecimal() or (dash and least != "1"):
        return Path(where), _LENGTH, False
    if not 4 <= int(most) <= 100_000:
        raise DataError(f"`text:{where}` expects 4 to 100,000 tokens, got {most}")
    return Path(path), int(most), bool(dash)


def _read(file: Path) -> _Table:
    """Return the names of the columns, the texts and the labels, if there are any."""
    if not file.is_file():
        raise DataError(f"a CSV file was expected at `{file}`, but there is none")
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"`{file}` is no sound CSV file in UTF-8 ({error})") from error
    has = set(rows[0]) if rows else set()
    columns = tuple(name for name in ("text", "text2", "label") if name in has)
    if "text" not in columns:
        raise DataError(
            f"`{file}` is expected to have rows under a header with `text`, maybe `text2`, and"
            f" `label` where there are labels, got {sorted(map(str, has)) or 'nothing'}"
        )
    for number, row in enumerate(rows, start=2):
        if any(not (row[name] or "").strip() for name in columns):
            raise DataError(f"row {number} of `{file}` lacks a text or a label; mend or drop it")
    texts = [tuple(row[name] for name in columns if name != "label") for row in rows]
    return columns, texts, [row["label"].strip() for row in rows if "label" in columns]


def _targets(tables: list[_Table]) -> tuple[tuple[str, ...], list[np.ndarray]]:
    if "label" in tables[0][0]:
        return targets_of([labels for _, _, labels in tables])
    return (), [no_labels(len(texts)) for _, texts, _ in tables]
