"""What was answered beside what the shadow answered to the same request, a few thousand at a time.

A shadow's row has the id and the time of the request that it answered again: by that they are
brought together, over the index that the log has anyway.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fettle.monitor._reading import LogFile
from fettle.monitor.frame import Origin
from fettle.monitor.prediction import OK

SHADOW = "shadow"
_AT_ONCE = 20_000
_STATEMENT = """
SELECT s.row, p.time, p.origin, s.origin, p.compute_us, p.batch, s.compute_us, s.batch,
    p.top, s.top, s.agreement
FROM predictions s JOIN predictions p ON p.time = s.time AND p.id = s.id
WHERE s.row > ? AND s.origin IN ({shadows}) AND p.origin NOT IN ({shadows})
ORDER BY s.row LIMIT ?
"""


class Who(NamedTuple):
    """Which bundle answered for a model, and which one answered again."""

    model: str
    answered: str
    shadow: str


@dataclass(frozen=True, eq=False)
class Pairs:
    """Requests that two bundles answered, in the order in which the second did.

    Attributes:
        time: of the request, in nanoseconds of the epoch, shape (n,).
        seconds: what a row cost each of the two to compute, shape (n, 2); NaN where unknown.
        top: the class that each named, shape (n, 2); NaN where unknown.
        differ: share of the request's examples that they answered otherwise, shape (n,); by their
            classes where the log doesn't say; NaN where unknown.
    """

    who: Who
    time: np.ndarray
    seconds: np.ndarray
    top: np.ndarray
    differ: np.ndarray


def shadow_pairs(log: LogFile) -> Iterator[Pairs]:
    """Yield what two bundles both answered, some thousands of one `Who` at a time.

    Raises:
        DataError: the log is damaged.
    """
    sound = {number: origin for number, origin in log.origins.items() if origin.status == OK}
    shadows = [number for number, origin in sound.items() if origin.route == SHADOW]
    everything = [n for n, origin in log.origins.items() if origin.route == SHADOW]
    if not shadows:
        return
    chosen = ",".join(map(str, everything))
    statement = _STATEMENT.format(shadows=chosen)
    row = -(2**63)
    while piece := log.query(statement, row, _AT_ONCE):
        row = piece[-1][0]
        table = np.array([values[2:] for values in piece], float)  # None becomes NaN
        times = np.array([values[1] for values in piece], np.int64)
        yield from _grouped(table, times, sound)


def _grouped(table: np.ndarray, times: np.ndarray, sound: Mapping[int, Origin]) -> Iterator[Pairs]:
    """Yield the pairs of each two origins that answered."""
    for mine, theirs in np.unique(table[:, :2], axis=0).astype(int).tolist():
        if mine not in sound or theirs not in sound:
            continue
        ours = (table[:, 0] == mine) & (table[:, 1] == theirs)
        chosen = table[ours]
        seconds = chosen[:, (2, 4)] / np.maximum(chosen[:, (3, 5)], 1) / 1e6
        who = Who(sound[mine].model, sound[mine].sha, sound[theirs].sha)
        top = chosen[:, 6:8]
        by_class = np.where(np.isnan(top).any(1), np.nan, top[:, 0] != top[:, 1])
        differ = np.where(np.isnan(chosen[:, 8]), by_class, 1 - chosen[:, 8])
        yield Pairs(who, times[ours], seconds, top, differ)
