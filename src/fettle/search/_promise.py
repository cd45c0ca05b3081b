"""How likely a candidate is to be proven, judged by what `select` says of it.

The verdict will be *pass* when the upper bound of the drop on `test` is within the budget. With
D the mean and s the spread of the paired differences on `select` (n_s examples), the test's own
mean (n_t examples) is about normal around D with variance s²(1/n_s + 1/n_t), and its bound lies
z·s/√n_t above it. So

    P(pass) = Φ((budget − D − z·s/√n_t) / (s·√(1/n_s + 1/n_t)))
"""

from __future__ import annotations

import math

import numpy as np

LIKELY = 0.8


def promise(
    reference: np.ndarray, scores: np.ndarray, max_drop: float, test_size: int, confidence: float
) -> float:
    """Return the probability that `test` will prove the drop to be within `max_drop`.

    Args:
        reference: the baseline's score of each example of `select`, shape (n,).
        scores: the candidate's, of the same examples.
        max_drop: the budget, absolute.
        test_size: how many examples `test` holds.
        confidence: of the verdict, one-sided.
    """
    from scipy import stats

    differences = np.asarray(reference, np.float64) - np.asarray(scores, np.float64)
    n = len(differences)
    # half a disagreement is added, so that none seen doesn't mean none ever
    spread = math.sqrt(float(differences.var()) + 0.5 / (n + 1))
    z = float(stats.norm.ppf(confidence))
    bound = float(differences.mean()) + z * spread / math.sqrt(test_size)
    error = spread * math.sqrt(1 / n + 1 / test_size)
    return float(stats.norm.cdf((max_drop - bound) / error))
