"""How far what answers may be from its original: the bound that their disagreement gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fettle.monitor._reading import LogFile
from fettle.monitor.latency import share
from fettle.monitor.pairs import Pairs, Who, shadow_pairs
from fettle.monitor.sequential import Tally

_SECOND = 10**9
_ALPHA = 0.05


@dataclass
class _Counts:
    """Disagreements of one pair of bundles, in all and by window."""

    whole: Tally = field(default_factory=Tally)
    windows: dict[int, Tally] = field(default_factory=dict)
    classes: bool = True

    def add(self, pairs: Pairs, width: int, since: int) -> None:
        known = np.isfinite(pairs.differ)
        differ = pairs.differ[known]
        self.classes = self.classes and bool(np.isfinite(pairs.top[known]).all())
        starts = pairs.time[known] // width * width
        for start in np.unique(starts):
            ours = starts == start
            tallies = [self.whole]
            if start >= since:
                tallies.append(self.windows.setdefault(int(start), Tally()))
            for tally in tallies:
                tally.hits += float(differ[ours].sum())
                tally.n += int(ours.sum())

    def to_json(self, who: Who, alpha: float) -> dict[str, Any]:
        windows = [
            {"start": start / _SECOND, **_share(tally)}
            for start, tally in sorted(self.windows.items())
            if tally.n
        ]
        interval = self.whole.interval(alpha)
        return {
            **who._asdict(),
            "n": self.whole.n,
            "disagreement": interval._asdict(),
            "accuracy_loss_at_most": interval.high if self.whole.n and self.classes else None,
            "confidence": 1 - alpha,
            "windows": windows,
        }


def _share(tally: Tally) -> dict[str, Any]:
    """Return a window's share; requests that differ in part are rounded for its interval."""
    return {**(share(round(tally.hits), tally.n) or {}), "value": tally.hits / tally.n}


def shadow_bounds(
    log: LogFile, seconds: float, since: float = 0.0, alpha: float = _ALPHA
) -> list[dict[str, Any]]:
    """Return, for each two bundles, how often they named another class, in all and by window.

    Where both name the same class both are right or both are wrong: accuracies differ by at most
    the share of disagreements. That is told of single classifications; of other answers only how
    often they differ. The interval of all holds at every moment at once, that of a window by
    itself; there are none of windows before `since`, in seconds of the epoch.
    """
    width = round(seconds * _SECOND)
    found: dict[Who, _Counts] = {}
    for pairs in shadow_pairs(log):
        found.setdefault(pairs.who, _Counts()).add(pairs, width, round(since * _SECOND))
    return [found[who].to_json(who, alpha) for who in sorted(found)]
