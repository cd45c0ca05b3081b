"""Texts as examples, and the tokenizers that turn them into ids."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fettle.core.errors import DataError, MissingError
from fettle.core.shelf import INSTALL
from fettle.tasks._data import ArrayExamples, Preprocessing, digest
from fettle.tasks._named import pack

_SPECIAL = ["[PAD]", "[CLS]", "[SEP]"]


@dataclass(frozen=True)
class TextExamples:
    """Texts, or pairs of texts, and their labels, until they become ids."""

    texts: Sequence[tuple[str, ...]]
    y: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one raw example."""
        return ()

    @property
    def pairs(self) -> bool:
        """Whether an example is a pair of texts."""
        return len(self.texts[0]) > 1

    def __len__(self) -> int:
        return len(self.y)

    def rows(self, indices: np.ndarray) -> list[tuple[str, ...]]:
        """Return the texts at `indices`."""
        return [self.texts[int(i)] for i in indices]

    def take(self, indices: np.ndarray) -> np.ndarray:
        """Return raw examples, an array of strings (n, texts)."""
        return np.array(self.rows(indices))

    def digests(self) -> np.ndarray:
        """Return a hash of each example's words, whatever their case, uint64, shape (n,)."""
        plain = ("\0".join(" ".join(t.lower().split()) for t in texts) for texts in self.texts)
        return np.array([digest(text.encode()) for text in plain], dtype=np.uint64)


@dataclass(frozen=True)
class Tokenized(Preprocessing):
    """How texts became ids: the whole tokenizer (JSON), and the length they are padded to."""

    tokenizer: str = ""
    length: int = 0

    def to_json(self) -> Mapping[str, Any]:
        """Return the JSON form, for the bundle."""
        return {**asdict(self), "tokenizer": json.loads(self.tokenizer)}


def learned(texts: Sequence[tuple[str, ...]], vocabulary: int) -> Any:
    """Return a byte-level BPE tokenizer learned from `texts`, with at most `vocabulary` tokens.

    WordPiece would be BERT's own, but its trainer numbers tokens in another order in each process.

    Raises:
        MissingError: the package `tokenizers` is not installed.
    """
    package = _tokenizers()
    made = package.Tokenizer(package.models.BPE())
    made.normalizer = package.normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = package.pre_tokenizers.ByteLevel(add_prefix_space=True)
    made.decoder = package.decoders.ByteLevel()
    trainer = package.trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        special_tokens=_SPECIAL,
        initial_alphabet=sorted(package.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    made.train_from_iterator((text for row in texts for text in row), trainer)
    marks = [(mark, made.token_to_id(mark)) for mark in ("[SEP]", "[CLS]")]
    made.post_processor = package.processors.BertProcessing(*marks)
    return made


def opened(path: Path) -> Any:
    """Return the tokenizer in `path`, a `tokenizer.json` or a folder with one.

    Raises:
        DataError: there is none.
    """
    file = path / "tokenizer.json" if path.is_dir() else path
    try:
        return _tokenizers().Tokenizer.from_str(file.read_text(encoding="utf-8"))
    except MissingError:
        raise
    except Exception as error:  # the package raises bare Exceptions
        raise DataError(f"`{file}` is no tokenizer ({error}); a tokenizer.json was expected") from (
            error
        )


def encoder(
    tokenizer: Any, length: int, pairs: bool, apart: bool = False
) -> Callable[[TextExamples], ArrayExamples]:
    """Return what turns texts into ids, masks and, for pairs, segments, each (n, length) int64.

    Pairs that are kept `apart` become ids and masks of shape (n, 2, length).
    """
    pad = tokenizer.token_to_id(_SPECIAL[0])
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(length=length, pad_id=_padding(tokenizer) if pad is None else pad)

    def encode_apart(examples: TextExamples) -> ArrayExamples:
        found = tokenizer.encode_batch([text for row in examples.texts for text in row])
        each = {
            "input_ids": np.array([one.ids for one in found], np.int64),
            "attention_mask": np.array([one.attention_mask for one in found], np.int64),
        }
        arrays = {name: array.reshape(-1, 2, length) for name, array in each.items()}
        return ArrayExamples(pack(arrays), examples.y)

    def encode(examples: TextExamples) -> ArrayExamples:
        inputs = [row if pairs else row[0] for row in examples.texts]
        found = tokenizer.encode_batch(inputs)
        arrays = {
            "input_ids": np.array([one.ids for one in found], np.int64),
            "attention_mask": np.array([one.attention_mask for one in found], np.int64),
        }
        if pairs:
            arrays["token_type_ids"] = np.array([one.type_ids for one in found], np.int64)
        return ArrayExamples(pack(arrays), examples.y)

    return encode_apart if apart else encode


def targets_of(parts: Sequence[list[str]]) -> tuple[tuple[str, ...], list[np.ndarray]]:
    """Return the names of the classes, if the labels are any, and the labels of each part.

    Words and whole numbers are classes, numbers by size, words by the alphabet. Numbers with
    fractions among them are values, which have no names.
    """
    values = [_floats(labels) for labels in parts]
    if all(v is not None for v in values) and any((v % 1).any() for v in values if v is not None):
        return (), [found for found in values if found is not None]
    names = _in_order({label for labels in parts for label in labels})
    number = {name: i for i, name in enumerate(names)}
    return names, [np.array([number[label] for label in labels], np.int64) for labels in parts]


def _floats(labels: list[str]) -> np.ndarray | None:
    """Return finite numbers, or None where a label is none."""
    try:
        found = np.array([float(label) for label in labels])
    except ValueError:
        return None
    return found if np.isfinite(found).all() else None


def _in_order(distinct: set[str]) -> tuple[str, ...]:
    if all(label.isdecimal() for label in distinct):
        return tuple(sorted(distinct, key=lambda label: (int(label), label)))
    return tuple(sorted(distinct))


def _padding(tokenizer: Any) -> int:
    """Return the id that a tokenizer without `[PAD]` pads with: its own choice, `<pad>`, or 0."""
    own = (tokenizer.padding or {}).get("pad_id")
    named = tokenizer.token_to_id("<pad>")
    return int(next((i for i in (own, named) if i is not None), 0))


def _tokenizers() -> Any:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # it forks badly with threads
    try:
        import tokenizers
    except ModuleNotFoundError as error:
        raise MissingError(
            "texts need the package `tokenizers`", INSTALL["transformers"]
        ) from error
    return tokenizers
