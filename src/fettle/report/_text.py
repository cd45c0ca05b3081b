"""The performance table as plain text, for terminals: aligned, at most 120 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Callable

from fettle.report import _format as form
from fettle.report._record import Interval, Record
from fettle.report._tables import TechniqueRow, technique_rows
from fettle.report._verdict import verdict_info

WIDTH = 120
_GAP = 2
_WORDS = 4  # the first columns hold words; the others hold numbers and are set to the right
_LONGEST = 12  # words of the runtime and type columns are cut past this
_NARROWEST = 8  # the technique column is never cut below this


def text_table(record: Record) -> str:
    """Return the verdict and one line a trial, fastest first."""
    info = verdict_info(record)
    verdict = textwrap.wrap(form.plain(f"{info.word.upper()}: {info.sentence}"), WIDTH)
    cells = [[form.plain(cell) for cell in _cells(row)] for row in technique_rows(record)]
    lines = _aligned([_header(record), *cells])
    rule = "-" * max(len(line) for line in lines)
    return "\n".join([*verdict, "", lines[0], rule, *lines[1:], "", *_notes(record)])


def _header(record: Record) -> list[str]:
    metric = f"{_cut(record.metric, _LONGEST)} %"
    words = ["", "technique", "runtime", "type"]
    return [*words, "size", "share", "p50 ms", "speed ×", metric, "drop pp"]


def _cells(row: TechniqueRow) -> list[str]:
    trial = row.trial
    return [
        "→" if row.best else "·" if row.baseline else "",
        trial.name,
        _cut(trial.runtime, _LONGEST),
        _cut(trial.precision, _LONGEST),
        form.size(trial.size_bytes),
        form.share(row.size),
        form.significant(trial.latency.p50),
        _bare(row.speed, form.times, form.times_bounds),
        _bare(trial.metric, form.percent, form.percent_bounds),
        _bare(row.drop, form.points, form.points_bounds),
    ]


def _bare(
    interval: Interval | None,
    value: Callable[[float | None], str],
    bounds: Callable[[Interval | None], str],
) -> str:
    """Return a value and its bounds without the unit, which the header names."""
    if interval is None:
        return form.DASH
    return f"{value(interval.value).rstrip(f'{form.NB}×%p')} {bounds(interval)}".rstrip()


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    spare = WIDTH - sum(widths) - _GAP * (len(widths) - 1)
    widths[1] = max(widths[1] + min(spare, 0), _NARROWEST)
    return [_line(row, widths) for row in rows]


def _line(row: list[str], widths: list[int]) -> str:
    words = [_cut(c, w).ljust(w) for c, w in zip(row[:_WORDS], widths, strict=False)]
    numbers = [c.rjust(w) for c, w in zip(row[_WORDS:], widths[_WORDS:], strict=True)]
    return (" " * _GAP).join([*words, *numbers])[:WIDTH].rstrip()


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _notes(record: Record) -> list[str]:
    notes = ["→ best  · baseline  speed: over the same runtime's FP32  [low, high]: the interval"]
    if record.noise:
        noise = f"{form.times(record.noise.value)} {form.times_bounds(record.noise)}"
        notes.append(form.plain(f"noise floor: the baseline against itself gives {noise}"))
    return [*notes, *textwrap.wrap(record.warning, WIDTH)]
