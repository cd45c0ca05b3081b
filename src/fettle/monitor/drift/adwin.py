"""ADWIN: an adaptive window over a stream, cut wherever its two halves have different means.

Unlike the others it knows the order of a window's values, so a change that comes within a window is
met whole. It is river's, fed with the reference and then with the window, both to the scale 0 … 1
of the reference; the statistic is −log10 of the smallest confidence `delta`, of a few, at which it
cuts while the window passes. Its own promise of false alarms is loose: what counts is where that
lies among clean windows, drawn from truths that the reference may come from.

It needs river (`pip install 'fettle[drift]'`), and seconds to calibrate.

Source: A. Bifet, R. Gavaldà, SIAM International Conference on Data Mining (2007) 443–448.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from fettle.core.errors import MissingError
from fettle.core.knobs import Range
from fettle.monitor.drift._detector import Detector, DriftScore, Fitted, known, scored

_SEED = 11
_DELTAS = tuple(float(10.0**-power) for power in np.arange(0.25, 12.1, 0.25))


@dataclass(frozen=True, kw_only=True)
class Adwin(Detector):
    """River's ADWIN over the reference and the window, calibrated."""

    resamples: Annotated[
        int, Range(99, 99_999), "clean windows drawn to calibrate on; p is at least their inverse"
    ] = 199
    most: Annotated[int, Range(32, 100_000), "values of a window; of more, each so-manieth"] = 1000

    def fit(self, reference: np.ndarray) -> Fitted:
        """Return the detector, calibrated on `reference`.

        Raises:
            MissingError: river isn't installed.
        """
        numbers = self.checked(reference)
        return _Adwin(_river(), numbers, self.most, self.resamples)


class _Adwin(Fitted):
    def __init__(self, river: Any, reference: np.ndarray, most: int, resamples: int) -> None:
        self._river, self._most, self._resamples = river, most, resamples
        self._low, high = float(reference.min()), float(reference.max())
        self._width = (high - self._low) or 1.0
        self._reference = self._scaled(reference)
        self._nulls: dict[int, np.ndarray] = {}

    def score(self, window: np.ndarray, alpha: float = 0.05) -> DriftScore:
        values = self._scaled(known(np.asarray(window, np.float64)))
        values = values[:: -(-len(values) // self._most)]
        return scored(
            self._strength(self._reference, values), self._null(len(values)), alpha, len(values)
        )

    def _null(self, n: int) -> np.ndarray:
        if n not in self._nulls:
            random = np.random.default_rng(_SEED)
            drawn = [self._clean(random, n) for _ in range(self._resamples)]
            self._nulls[n] = np.sort(drawn)
        return self._nulls[n]

    def _clean(self, random: np.random.Generator, n: int) -> float:
        """Return the strength of a window from a truth that the reference may come from."""
        m = len(self._reference)
        truth = random.dirichlet(np.ones(m))
        return self._strength(self._reference, random.choice(self._reference, n, p=truth))

    def _strength(self, reference: np.ndarray, window: np.ndarray) -> float:
        """Return −log10 of the smallest delta that cuts; what cuts at one cuts at any larger."""
        low, high = 0, len(_DELTAS)
        while low < high:
            middle = (low + high) // 2
            if self._cuts(_DELTAS[middle], reference, window):
                low = middle + 1
            else:
                high = middle
        return -float(np.log10(_DELTAS[low - 1])) if low else 0.0

    def _cuts(self, delta: float, reference: np.ndarray, window: np.ndarray) -> bool:
        stream = self._river.ADWIN(delta=delta, clock=8)
        for value in reference.tolist():
            stream.update(value)
        for value in window.tolist():
            stream.update(value)
            if stream.drift_detected:
                return True
        return False

    def _scaled(self, values: np.ndarray) -> np.ndarray:
        return np.asarray((values - self._low) / self._width)


def _river() -> Any:
    try:
        return importlib.import_module("river.drift")
    except ModuleNotFoundError as error:
        raise MissingError(
            "`drift.adwin` needs the package `river`", "pip install 'fettle[drift]'"
        ) from error
