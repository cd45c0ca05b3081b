"""The small picture of a verdict: the drop's interval against the line of the budget."""

from __future__ import annotations

from dataclasses import dataclass

from fettle.report._record import Record
from fettle.report._scale import Scale, padded, ticks

WIDTH, HEIGHT = 340, 104
_LEFT, _RIGHT = 14, 326


@dataclass(frozen=True)
class Picture:
    """Places in pixels; ticks as (pixel, text), in percentage points."""

    low: float
    value: float
    high: float
    zero: float
    budget: float
    budget_anchor: str
    left: int
    right: int
    ticks: tuple[tuple[float, str], ...]


def picture(record: Record) -> Picture | None:
    """Return the picture of the best artifact's drop, or None without a drop or a budget."""
    drop = record.best.drop if record.best else None
    if drop is None or record.max_drop is None:
        return None
    low, high = padded([drop.low, drop.high, 0.0, record.max_drop], 0.12)
    scale = Scale(low, high, _LEFT, _RIGHT)
    budget = scale(record.max_drop)
    return Picture(
        low=scale(drop.low),
        value=scale(drop.value),
        high=scale(drop.high),
        zero=scale(0.0),
        budget=budget,
        budget_anchor="end" if budget > (_LEFT + _RIGHT) / 2 else "start",
        left=_LEFT,
        right=_RIGHT,
        ticks=tuple((scale(v), _points(v)) for v in ticks(low, high, 5)),
    )


def _points(value: float) -> str:
    return f"{100 * value:.4g}".replace("-", "\u2212")
