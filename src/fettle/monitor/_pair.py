"""Two arms, counted: one tally each, and what speaks against their being alike."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from fettle.monitor.sequential import Tally, log_evidence

A, B = 0, 1


@dataclass
class Pair:
    """One tally an arm."""

    a: Tally = field(default_factory=Tally)
    b: Tally = field(default_factory=Tally)

    @property
    def n(self) -> int:
        """How many were counted in both."""
        return self.a.n + self.b.n

    def add(self, arms: np.ndarray, hits: np.ndarray) -> None:
        """Count requests by their arm, 0 or 1, and hit, 0 to 1."""
        for arm, tally in ((A, self.a), (B, self.b)):
            ours = arms == arm
            tally.hits += float(hits[ours].sum())
            tally.n += int(ours.sum())


def evidence_path(arms: np.ndarray, hits: np.ndarray, before: Pair | None = None) -> np.ndarray:
    """Return what speaks against equal rates after each request, as `difference_log_evidence` at 0.

    The rate that explains both arms best is that of all requests together, so each step takes no
    search.

    Args:
        arms: 0 or 1 for each request, shape (…, n).
        hits: from 0 to 1, shape (…, n).
        before: what was counted earlier.

    Returns:
        Natural logarithms, shape (…, n); 0 while an arm is empty.
    """
    start = before or Pair()
    counts = []
    for arm, tally in ((A, start.a), (B, start.b)):
        ours = arms == arm
        counts.append(
            (tally.hits + np.cumsum(ours * hits, -1), tally.n + np.cumsum(ours, -1, dtype=float))
        )
    (hits_a, n_a), (hits_b, n_b) = counts
    rate = np.clip((hits_a + hits_b) / (n_a + n_b), 0, 1)
    found = log_evidence(hits_a, n_a, rate) + log_evidence(hits_b, n_b, rate)
    return np.where((n_a > 0) & (n_b > 0), found, 0.0)
