"""The effect of B in confidence sequences: where it was drawn by lot who answers, and where not.

**Drawn by lot** (`Bets`): each caller goes to B with the chance ρ, whatever came before. Then

    ψ = (y − p̄)(1/ρ for B, −1/(1 − ρ) for A)

has the effect as its mean whatever p̄ is, if p̄ was settled before y came; and for any λ that was
settled too, the capital of who bets on it, ∏ (1 + λ(ψ − δ)), is a martingale where the effect is δ.
So it ever passes 1/alpha with a chance of at most alpha (Ville), and the interval holds all δ that
it hasn't passed. Nothing is asked of the rates: they may drift, as long as the lot is drawn.
The bets are those that pay best at effects from half the margin to 16 times it, in both
directions, with equal stakes; p̄ is the rate of all, settled anew whenever their number doubles, so
that counts are all that must be kept.

**Not known to be** (`Rates`): the difference of two rates (`sequential.difference`), which takes
two to three times as many callers to be certain, and trusts that both rates stay as they are.

Sources: I. Waudby-Smith, A. Ramdas, JRSS B 86 (2024) 1–27 (betting). J. M. Robins, A. Rotnitzky,
L. P. Zhao, JASA 89 (1994) 846–866 (ψ). R. Turner, A. Ly, P. Grünwald, J. Statistical Planning and
Inference 230 (2024) (2×2 tables).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from fettle.monitor._pair import Pair, evidence_path
from fettle.monitor.sequential import Interval, Tally, difference, difference_log_evidence

_TIMES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # the margin: effects that bets are made for
_FIRST = 32  # callers, after which the rate is settled for the first time
_MOST = 0.9  # of what is there, that a bet may lose
_HALVINGS = 40


class Effect(Protocol):
    """What is known of B's rate less A's."""

    def path(self, arms: np.ndarray, hits: np.ndarray) -> np.ndarray:
        """Return what would speak against no effect after each of these callers, in logarithms."""

    def add(self, arms: np.ndarray, hits: np.ndarray) -> None:
        """Count callers by their arm, 0 or 1, and hit, 0 or 1."""

    def interval(self) -> Interval:
        """Return the interval of the effect."""

    def after(self, delta: float, more: float) -> float:
        """Return what would speak against `delta` after so many more callers, all being as now."""


@dataclass
class Rates:
    """The difference of two rates."""

    alpha: float
    pair: Pair = field(default_factory=Pair)

    def path(self, arms: np.ndarray, hits: np.ndarray) -> np.ndarray:
        """As `Effect`."""
        return evidence_path(arms, hits, self.pair)

    def add(self, arms: np.ndarray, hits: np.ndarray) -> None:
        """As `Effect`."""
        self.pair.add(arms, hits)

    def interval(self) -> Interval:
        """As `Effect`."""
        return difference(self.pair.a, self.pair.b, self.alpha)

    def after(self, delta: float, more: float) -> float:
        """As `Effect`."""
        times = 1 + more / self.pair.n
        a, b = (Tally(t.hits * times, math.ceil(t.n * times)) for t in (self.pair.a, self.pair.b))
        return difference_log_evidence(a, b, delta)


@dataclass
class _Block:
    """Callers for whom one rate was settled: their counts by arm and hit, shape (2, 2)."""

    scores: np.ndarray
    bets: np.ndarray
    counts: np.ndarray = field(default_factory=lambda: np.zeros((2, 2)))

    def growth(self, delta: float) -> np.ndarray:
        """Return what a caller of each arm and hit adds to the logarithm of each bet: (2, 2, b)."""
        return np.asarray(np.log1p((self.scores[..., None] - delta) * self.bets))


class Bets:
    """The effect where it was drawn by lot who answers.

    Args:
        share: of the callers that B got.
        margin: the effect that matters.
        alpha: the chance that the interval ever misses.
    """

    def __init__(self, share: float, margin: float, alpha: float) -> None:
        self._share, self._threshold = share, -math.log(alpha)
        self._effects = margin * np.array([sign * t for t in _TIMES for sign in (-1, 1)])
        self._n = self._hits = 0.0
        self._blocks = [self._block()]

    def path(self, arms: np.ndarray, hits: np.ndarray) -> np.ndarray:
        """As `Effect`; shape (n,)."""
        trial = Bets.__new__(Bets)
        trial.__dict__ = {**self.__dict__, "_blocks": [*self._blocks[:-1], self._copy()]}
        found = [np.zeros(0)]
        while len(arms):
            piece = trial._room(len(arms))
            growth = trial._blocks[-1].growth(0.0)[arms[:piece], hits[:piece].astype(int)]
            found.append(_together(trial._capital(0.0) + np.cumsum(growth, 0)))
            trial.add(arms[:piece], hits[:piece])
            arms, hits = arms[piece:], hits[piece:]
        return np.concatenate(found)

    def add(self, arms: np.ndarray, hits: np.ndarray) -> None:
        """As `Effect`."""
        while len(arms):
            piece = self._room(len(arms))
            np.add.at(self._blocks[-1].counts, (arms[:piece], hits[:piece].astype(int)), 1)
            self._n += piece
            self._hits += float(hits[:piece].sum())
            arms, hits = arms[piece:], hits[piece:]

    def interval(self) -> Interval:
        """As `Effect`; the estimate is the mean of ψ."""
        if not self._n:
            return Interval(None, -1.0, 1.0)
        scores = sum(float((block.counts * block.scores).sum()) for block in self._blocks)
        estimate = min(1.0, max(-1.0, scores / self._n))
        return Interval(estimate, self._edge(estimate, -1.0), self._edge(estimate, 1.0))

    def after(self, delta: float, more: float) -> float:
        """As `Effect`."""
        seen = np.sum([block.counts for block in self._blocks], 0)
        growth = self._block().growth(delta) * (seen / self._n)[..., None]
        return float(_together(self._capital(delta) + more * growth.sum((0, 1))))

    def _edge(self, inside: float, outside: float) -> float:
        """Return where the evidence passes the threshold, rounded outwards."""
        if _together(self._capital(outside)) < self._threshold:
            return outside
        for _ in range(_HALVINGS):
            middle = (inside + outside) / 2
            held = _together(self._capital(middle)) < self._threshold
            inside, outside = (middle, outside) if held else (inside, middle)
        return outside

    def _capital(self, delta: float) -> np.ndarray:
        """Return the logarithm of what each bet against `delta` has earned, shape (bets,)."""
        earned = [(b.counts[..., None] * b.growth(delta)).sum((0, 1)) for b in self._blocks]
        return np.asarray(np.sum(earned, 0))

    def _room(self, wanted: int) -> int:
        """Return how many callers the last block has room for; one more is begun if it is full."""
        ends = _FIRST * 2 ** (len(self._blocks) - 1)
        if self._n >= ends:
            self._blocks.append(self._block())
            ends *= 2
        return min(wanted, int(ends - self._n))

    def _block(self) -> _Block:
        rate = (self._hits + 1) / (self._n + 2)
        share = self._share
        weights = np.array([-1 / (1 - share), 1 / share])
        scores = weights[:, None] * (np.array([0.0, 1.0]) - rate)
        most = _MOST / (1 / min(share, 1 - share) + 1)
        bets = self._effects * share * (1 - share) / (rate * (1 - rate))
        return _Block(scores, np.clip(bets, -most, most))

    def _copy(self) -> _Block:
        last = self._blocks[-1]
        return _Block(last.scores, last.bets, last.counts.copy())


def _together(capital: np.ndarray) -> np.ndarray:
    """Return the logarithm of the mean over bets, the last axis."""
    most = capital.max(-1, keepdims=True)
    return np.asarray(most[..., 0] + np.log(np.exp(capital - most).mean(-1)))
