"""What happens to rows before they are written: made, sampled, and blotted out."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from fettle.monitor._redaction import Redact, Withheld
from fettle.monitor._waiting import Load
from fettle.monitor.answered import predictions
from fettle.monitor.prediction import Prediction

_AT_ONCE = 256  # as many outputs are held twice for a moment


def sampled(request: str, share: float) -> bool:
    """Say whether a request is one of a sample: for all its rows alike, a shadow's too."""
    return zlib.crc32(request.encode("utf-8", "replace")) < share * 2**32


def prepared(load: Load, sample: float, redact: Redact | None) -> tuple[Load, Counter[str]]:
    """Return what is to be written, and what of it is withheld, by kind."""
    rows = [*load.predictions, *_made(load, sample)]
    rows, withheld = _redacted(rows, redact) if redact else (rows, Counter())
    return Load([], rows, load.labels, withheld + Counter(load.lost)), withheld


def _redacted(rows: Sequence[Prediction], redact: Redact) -> tuple[list[Prediction], Counter[str]]:
    kept: list[Prediction] = []
    withheld: Counter[str] = Counter()
    for row in rows:
        try:
            kept.append(redact(row))
        except Withheld as reason:
            withheld[reason.kind] += 1
    return kept, withheld


def _made(load: Load, sample: float) -> list[Prediction]:
    rows: list[Prediction] = []
    for start in range(0, len(load.answered), _AT_ONCE):
        piece = load.answered[start : start + _AT_ONCE]
        made = predictions(piece)
        if sample:
            pairs = zip(made, piece, strict=True)
            made = [
                replace(row, inputs=seen.inputs, outputs=seen.outputs)
                if seen.inputs and sampled(row.id, sample)
                else row
                for row, seen in pairs
            ]
        rows += made
    return rows
