"""How a search stands at a moment: the frontier so far, the best of it, and the time that is left.

`standing` returns data; `drawn` makes of it what a terminal shows above the running bar.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from fettle.search._trial import Trial
    from fettle.search.optimize import Search

MOST = 6  # lines of the frontier


@dataclass(frozen=True)
class Line:
    """One trial of the frontier: ms a request, times the untouched model, drop, promise."""

    recipe: str
    ms: float
    times: float
    drop: float
    promise: float
    leads: bool


@dataclass(frozen=True)
class Standing:
    """The frontier, fastest first; seconds spent and left, where left is None without a limit."""

    lines: tuple[Line, ...]
    trials: int
    spent: float
    left: float | None

    @property
    def best(self) -> Line | None:
        """The line that would be proven now."""
        return next((line for line in self.lines if line.leads), None)


def standing(search: Search) -> Standing:
    """Return how a search stands, also before anything was measured."""
    measured = [trial for trial in search.trials if "promise" in trial.row]
    rivals = [trial for trial in measured if trial.runtime.takes == "onnx"]
    lines: tuple[Line, ...] = ()
    if rivals:
        leader = search.leader
        lines = tuple(_line(search, trial, leader) for trial in _frontier(rivals, leader))
    left = search.clock.left
    return Standing(lines, len(measured), search.clock.spent, None if math.isinf(left) else left)


def _frontier(trials: list[Trial], leader: Trial) -> list[Trial]:
    """Return the trials that no other beats in both time and drop, and the leader."""
    kept: list[Trial] = []
    least = math.inf
    for trial in sorted(trials, key=_cost):
        if trial.row["drop"]["value"] < least or trial is leader:
            least = min(least, trial.row["drop"]["value"])
            kept.append(trial)
    if len(kept) <= MOST:
        return kept
    place = min(max(kept.index(leader) - MOST // 2, 0), len(kept) - MOST)
    return kept[place : place + MOST]


def _cost(trial: Trial) -> tuple[float, float]:
    return float(trial.row["comparable_ms"]), float(trial.row["drop"]["value"])


def _line(search: Search, trial: Trial, leader: Trial) -> Line:
    ms = float(trial.row["comparable_ms"])
    return Line(
        recipe=str(trial.recipe),
        ms=ms,
        times=float(search.base.row["comparable_ms"]) / ms,
        drop=float(trial.row["drop"]["value"]),
        promise=float(trial.row["promise"]),
        leads=trial is leader,
    )


def drawn(now: Standing) -> RenderableType:
    """Return a standing as a terminal shows it."""
    parts = [f"{clock(now.spent)} spent"]
    parts += [f"{clock(now.left)} left"] if now.left is not None else []
    parts += [f"{now.trials} trials"]
    best = f"best so far {now.best.times:.2f}×" if now.best else "measuring the untouched model"
    head = Text(" · ".join([best, *parts]), style="bold", no_wrap=True, overflow="ellipsis")
    return Group(Text(), head, _table(now.lines)) if now.lines else Group(Text(), head)


def _table(lines: tuple[Line, ...]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("p50 ms", "faster", "drop pp", "provable"):
        table.add_column(name, justify="right", no_wrap=True, min_width=8)
    table.add_column("recipe", no_wrap=True, overflow="ellipsis")
    for line in lines:
        ms = f"{'→ ' if line.leads else ''}{line.ms:.3g}"
        numbers = (f"{line.times:.2f}×", f"{100 * line.drop:+.2f}", f"{line.promise:.0%}")
        cells = (ms, *numbers, line.recipe)
        table.add_row(*map(Text, cells), style="bold" if line.leads else "")
    return table


def clock(seconds: float) -> str:
    """Return a duration as a clock shows it: 0:07, 12:30, 1:02:03."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
