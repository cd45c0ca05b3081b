"""Why a search's winner won, as plain text for terminals, at most 120 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from fettle.core.errors import InputError
from fettle.report import _format as form
from fettle.report._record import Record
from fettle.report._search import LayerRow, LeftRow, SearchInfo, search_info

WIDTH = 120
MOST_LEFT = 20
_BAR = 16


def explanation_text(record: Record) -> str:
    """Return the sentences, then the tables that they are made of.

    Raises:
        InputError: the record holds no explanation.
    """
    info = search_info(record)
    if info is None:
        raise InputError(
            "this result says nothing of a search: it was made by another verb or an older fettle;"
            " run `fettle optimize` on its folder again, which repeats no finished stage"
        )
    said = [textwrap.fill(line, WIDTH) for line in info.sentences]
    parts = [*said, *_layers(info), *_stages(info), *_left(info.left), *_unknown(info)]
    return form.plain("\n".join(parts))


def _layers(info: SearchInfo) -> list[str]:
    if not info.layers:
        return []
    heads = ["layer", "before ms", "after ms", "change", "in", ""]
    rows = [
        [_cut(row.layer, 44), *map(form.significant, (row.before, row.after)), row.change, row.run,
         _bars(row)]
        for row in info.layers
    ]  # fmt: skip
    title = f"Time by layer: before on {info.before}, after on {info.after}"
    return ["", title, *_table(heads, rows, words=(0, 4, 5))]


def _bars(row: LayerRow) -> str:
    before, after = (round(_BAR * width / 100) for width in (row.before_width, row.after_width))
    return "█" * after + "░" * max(before - after, 0)


def _stages(info: SearchInfo) -> list[str]:
    if not info.stages:
        return []
    heads = ["lost by stage", "score", "lost", "in all"]
    rows = [
        [_cut(row.stage, 70), form.percent(row.score), *map(form.points, (row.lost, row.drop))]
        for row in info.stages
    ]
    n = f"On the first {info.examples:,} examples of select" if info.examples else "On select"
    return ["", n, *_table(heads, rows, words=(0,))]


def _left(rows: Sequence[LeftRow]) -> list[str]:
    if not rows:
        return []
    heads = ["tried and left", "ms", "drop", "why"]
    cells = [
        [_cut(row.recipe, 58), form.significant(row.ms), form.points(row.drop), _cut(row.text, 40)]
        for row in rows[:MOST_LEFT]
    ]
    more = len(rows) - len(cells)
    rest = [f"and {more} more, in result.json and report.html"] if more else []
    return ["", *_table(heads, cells, words=(0, 3)), *rest]


def _unknown(info: SearchInfo) -> list[str]:
    return [f"not known of {part}: {why}" for part, why in info.unknown]


def _table(heads: list[str], rows: list[list[str]], words: tuple[int, ...]) -> list[str]:
    """Return aligned lines; the columns `words` stand to the left, numbers to the right."""
    whole = [heads, *rows]
    widths = [max(len(row[i]) for row in whole) for i in range(len(heads))]
    lines = [
        "  ".join(
            cell.ljust(width) if i in words else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()[:WIDTH]
        for row in whole
    ]
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"
