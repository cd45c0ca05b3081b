"""Why a search's winner won, as rows: layers before and after, losses by stage, what was left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fettle.report import _format as form
from fettle.report._record import Record, integer, number, section, text

MOST_LAYERS = 24  # those with the longest times are shown, in their order; the others as one row


@dataclass(frozen=True)
class LayerRow:
    """One layer: ms before and after (None where there is none), and bars in percent."""

    layer: str
    before: float | None
    after: float | None
    before_width: float
    after_width: float
    change: str
    run: str


@dataclass(frozen=True)
class StageRow:
    """One step of the recipe: the score after it, lost by it, lost since the beginning."""

    stage: str
    score: float | None
    lost: float | None
    drop: float | None


@dataclass(frozen=True)
class LeftRow:
    """One candidate that is not the winner, and why."""

    recipe: str
    why: str
    text: str
    ms: float | None
    drop: float | None
    promise: float | None


@dataclass(frozen=True)
class SearchInfo:
    """Everything about a search but its trials; `examples` is what the stages were scored on."""

    stopped: str
    sentences: tuple[str, ...]
    before: str
    after: str
    layers: tuple[LayerRow, ...]
    stages: tuple[StageRow, ...]
    examples: int | None
    left: tuple[LeftRow, ...]
    unknown: tuple[tuple[str, str], ...]


def search_info(record: Record) -> SearchInfo | None:
    """Return what the record says of a search, or None when it is no search's."""
    told = section(record.search, "explanation")
    if not told:
        return None
    stages = _rows(told.get("stages"))
    return SearchInfo(
        stopped=text(record.search.get("stopped")),
        sentences=tuple(text(line) for line in _list(told.get("why")) if text(line)),
        before=_engine(section(told, "before")),
        after=_engine(section(told, "after")),
        layers=tuple(layer_rows(_rows(told.get("layers")))),
        stages=tuple(map(_stage, stages)),
        examples=next((integer(row.get("n")) for row in stages), None),
        left=tuple(map(_left, _rows(told.get("rejected")))),
        unknown=tuple((text(k), text(v)) for k, v in section(told, "unknown").items()),
    )


def layer_rows(rows: Sequence[Mapping[str, Any]], most: int = MOST_LAYERS) -> list[LayerRow]:
    """Return the layers with the longest times in their order, and the others as one row."""
    timed = [(row, number(row.get("before_ms")), number(row.get("after_ms"))) for row in rows]
    order = sorted(range(len(timed)), key=lambda i: -max(timed[i][1] or 0, timed[i][2] or 0))
    kept = sorted(order if len(order) <= most else order[: most - 1])
    longest = max((max(b or 0, a or 0) for _, b, a in timed), default=0.0)
    found = [_layer(*timed[i], longest) for i in kept]
    rest = [timed[i] for i in order if i not in kept]
    if rest:
        before, after = sum(b or 0.0 for _, b, _ in rest), sum(a or 0.0 for _, _, a in rest)
        name, change = f"{len(rest)} others", _change(before, after)
        found.append(LayerRow(name, before, after, 0.0, 0.0, change, ""))  # a sum has no bar
    return found


def _layer(
    row: Mapping[str, Any], before: float | None, after: float | None, longest: float
) -> LayerRow:
    widths = [100 * (value or 0.0) / longest if longest else 0.0 for value in (before, after)]
    name = text(row.get("layer")) or "layer"
    return LayerRow(name, before, after, widths[0], widths[1], _change(before, after), _run(row))


def _change(before: float | None, after: float | None) -> str:
    if after is None:
        return "gone"
    if before is None:
        return "new"
    return form.times(before / after) if after else form.DASH


def _run(row: Mapping[str, Any]) -> str:
    """Return what a layer ran in before and after, once where it is the same."""
    found = [text(row.get(name)) for name in ("before_precision", "after_precision")]
    return " → ".join(dict.fromkeys(name for name in found if name))


def _stage(row: Mapping[str, Any]) -> StageRow:
    numbers = (number(row.get(name)) for name in ("score", "lost", "drop"))
    return StageRow(text(row.get("stage")) or "stage", *numbers)


def _left(row: Mapping[str, Any]) -> LeftRow:
    recipe, why, reason = (text(row.get(name)) for name in ("recipe", "why", "text"))
    ms, drop, promise = (number(row.get(name)) for name in ("ms", "drop", "promise"))
    return LeftRow(recipe, why, reason, ms, drop, promise)


def _engine(row: Mapping[str, Any]) -> str:
    words = [text(row.get("runtime")), text(row.get("precision"))]
    return ", ".join(word for word in words if word)


def _rows(value: Any) -> list[Mapping[str, Any]]:
    return [row for row in _list(value) if isinstance(row, Mapping)]


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else []
