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
    """Texts, or pairs of texts, and their classes (n,), until they become ids."""

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


def encoder(tokenizer: Any, length: int, pairs: bool) -> Callable[[TextExamples], ArrayExamples]:
    """Return what turns texts into ids, masks and, for pairs, segments, each (n, length) int64."""
    pad = tokenizer.token_to_id(_SPECIAL[0])
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(length=length, pad_id=_padding(tokenizer) if pad is None else pad)

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

    return encode


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
