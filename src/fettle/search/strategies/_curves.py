"""Where training would end, foretold from where it stands: which shapes can still win.

What a shape loses falls about as a power of the epochs that it was trained for (learning curves
are power laws over many kinds of networks: Hestness et al. 2017, arXiv 1712.00409):

    loss(E) = loss(E₀) · (E₀ / E)^b

b is learned from the shapes that were scored after two rungs, beside a prior. How far off that may
be grows with how far it reaches; so it gives a chance, not a verdict.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from itertools import pairwise

_PRIOR = 0.5  # of b: halved by four times the epochs
_SPREAD = 0.25  # standard deviation of b
_NOISE = 0.2  # of ln(loss), from one training to the next
_STEEPEST = 2.0


class Curves:
    """What each shape has lost after how many epochs."""

    def __init__(self) -> None:
        self._seen: dict[Hashable, list[tuple[int, float]]] = {}

    def add(self, shape: Hashable, epochs: int, loss: float) -> None:
        """Keep the loss of a shape after `epochs` of training in all."""
        self._seen.setdefault(shape, []).append((epochs, loss))

    @property
    def exponent(self) -> float:
        """The mean b of what was seen, the prior counted once."""
        found = [
            math.log(before / after) / math.log(later / sooner)
            for points in self._seen.values()
            for (sooner, before), (later, after) in pairwise(points)
            if before > 0 and after > 0 and later > sooner
        ]
        return min(max((_PRIOR + sum(found)) / (1 + len(found)), 0.0), _STEEPEST)

    def chance(self, shape: Hashable, epochs: int, budget: float) -> float:
        """Return the probability that a shape loses at most `budget` after `epochs` in all."""
        from scipy import stats

        at, loss = self._seen[shape][-1]
        if loss <= budget:
            return 1.0
        reach = math.log(max(epochs, at) / at)
        foretold = math.log(loss) - self.exponent * reach
        return float(stats.norm.cdf((math.log(budget) - foretold) / (_NOISE + _SPREAD * reach)))
