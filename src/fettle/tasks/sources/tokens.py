"""`tokens:128` or `tokens:128:2:30522`: random token ids with their mask, for speed alone.

The numbers are the length, the classes (2) and the vocabulary (30,522, BERT's). Inputs are
`input_ids` and `attention_mask`, int64 (n, length); a quarter to all of a row is text, the rest is
padding: id 0, mask 0. Labels are random too, so a verdict on it says nothing about accuracy.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from fettle.core.errors import DataError
from fettle.core.knobs import Range
from fettle.tasks._data import Data
from fettle.tasks._named import named_data
from fettle.tasks._source import DataSource

_FORM = re.compile(r"([1-9]\d{0,4})(?::([1-9]\d{0,5}))?(?::([1-9]\d{0,6}))?")
_VOCABULARY = 30_522


@dataclass(frozen=True, kw_only=True)
class Tokens(DataSource):
    """Seeded random token ids with random labels."""

    examples: Annotated[int, Range(64, 100_000, "examples"), "how many to make"] = 160

    def read(self) -> Data:
        """Return ids and masks (n, length), int64, and labels.

        Raises:
            DataError: the numbers are no `LENGTH`, `LENGTH:CLASSES` or `LENGTH:CLASSES:VOCABULARY`.
        """
        match = _FORM.fullmatch(self._need_where("`tokens:128` or `tokens:128:2:30522`"))
        length, classes, words = (
            (int(match[1]), int(match[2] or 2), int(match[3] or _VOCABULARY))
            if match
            else (0, 0, 0)
        )
        if words < 2:
            raise DataError(
                f"`tokens:{self.where}` expects a length, and maybe classes and a vocabulary of at"
                " least 2, as in `tokens:128:2:30522`"
            )
        rng = np.random.default_rng(0)
        ids = rng.integers(1, words, (self.examples, length))
        lengths = rng.integers(-(-length // 4), length + 1, (self.examples, 1))
        mask = (np.arange(length) < lengths).astype(np.int64)  # (n, length)
        labels = np.arange(self.examples, dtype=np.int64) % classes
        inputs = {"input_ids": ids * mask, "attention_mask": mask}
        return named_data(inputs, labels, classes=classes, vocabulary=words)
