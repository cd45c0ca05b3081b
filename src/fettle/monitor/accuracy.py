"""Accuracy in production: by labels, by confidence, and by a shadow.

*By labels* it is counted; the interval holds at every moment at once, so that it may be watched.
It is that of the requests that got a label: where who gets one depends on the answer, it is biased,
and no interval knows.

*By confidence* (CBPE) it is foretold: the mean of the probabilities, once calibrated, that each
answer is right. It assumes that (1) these probabilities stay calibrated: inputs may come more or
less often than they did, but an input means what it meant (covariate shift, no concept drift);
(2) inputs lie where the calibration saw some; (3) requests are independent. It can't notice that
the world now has other answers, and its interval tells of chance alone, not of a broken assumption.
Calibrated on labelled requests it learns a monotone map; without labels all it has is the accuracy
that the bundle was proven with, to which the reference's mean confidence is moved.

*By the shadow*: of answers that name the same class both are right or wrong, so accuracies differ
by at most the share of disagreements (`dashboard` tells it).

Source: J. Garg et al., ICLR 2022 (what confidence can and can't foretell); J. Białek, W. Kuberski,
N. Perrakis, A. Bifet, arXiv:2407.08649 (CBPE).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fettle.core.errors import InputError
from fettle.monitor._reading import LogFile
from fettle.monitor.drift.sampling import Cut, answering, named_classes
from fettle.monitor.frame import Frame
from fettle.monitor.latency import fitting
from fettle.monitor.sequential import Tally

ASSUMPTIONS = (
    "confidence stays calibrated: an input means what it meant",
    "inputs lie where the calibration saw some",
    "requests are independent",
)
_SECOND = 10**9
_ENOUGH = 200  # labelled requests to calibrate on
_HALVINGS = 60
_TINY = 1e-6
Calibration = Callable[[np.ndarray], np.ndarray]


@dataclass
class _Kept:
    """What one window holds."""

    labelled: Tally = field(default_factory=Tally)
    n: int = 0
    confidence: list[np.ndarray] = field(default_factory=list)


@dataclass(eq=False)
class Accuracy:
    """What is known of a log's accuracy.

    Attributes:
        labelled: right answers among those with a label.
        confidence: of the labelled ones, and whether each was right.
        windows: by their beginning, in nanoseconds.
        alpha: one less the level of intervals.
    """

    labelled: Tally = field(default_factory=Tally)
    confidence: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    windows: dict[int, _Kept] = field(default_factory=dict)
    alpha: float = 0.05

    def to_json(self, calibration: Calibration | None = None, by: str = "") -> dict[str, Any]:
        """Return the JSON form.

        Args:
            calibration: of confidence; None where there is nothing to calibrate on.
            by: what it was calibrated on.
        """
        whole = self.labelled.interval(self.alpha)._asdict() if self.labelled.n else None
        windows = [
            self._window(start, kept, calibration) for start, kept in sorted(self.windows.items())
        ]
        seen = [each for kept in self.windows.values() for each in kept.confidence]
        return {
            "n": sum(kept.n for kept in self.windows.values()),
            "labelled": self.labelled.n,
            "by_labels": whole,
            "by_confidence": estimated(np.concatenate(seen), calibration) if seen else None,
            "calibrated_on": by if calibration else None,
            "assumptions": list(ASSUMPTIONS),
            "windows": windows,
        }

    def _window(self, start: int, kept: _Kept, calibration: Calibration | None) -> dict[str, Any]:
        seen = kept.confidence
        tally = kept.labelled
        return {
            "start": start / _SECOND,
            "n": kept.n,
            "labelled": tally.n,
            "by_labels": tally.interval(self.alpha)._asdict() if tally.n else None,
            "by_confidence": estimated(np.concatenate(seen), calibration) if seen else None,
        }


def measure(log: LogFile, cut: Cut | None = None) -> Accuracy:
    """Count what labels say, and keep what confidence says, of each window by time.

    Labels are classes, by number or by name; those that are neither are no labels here.

    Raises:
        DataError: the log is damaged.
    """
    asked = cut or Cut()
    found = Accuracy()
    width = max(1, round((asked.seconds or fitting(log.span)) * _SECOND))
    numbers = sorted(answering(log, asked.sha))
    classes = {name: at for at, name in enumerate(named_classes(log, asked.labels))}
    for frame in log.frames(("top", "confidence", "label"), ordered=False):
        _count(found, frame.take(np.isin(frame["origin"], numbers)), width, classes)
    return found


def estimated(confidence: np.ndarray, calibration: Calibration | None) -> dict[str, Any] | None:
    """Return the accuracy that confidence foretells, with the interval of chance alone.

    Args:
        confidence: of each answer, shape (n,); those that aren't numbers are left out.
        calibration: from confidence to the chance of being right; None: nothing is foretold.
    """
    values = confidence[np.isfinite(confidence)]
    if calibration is None or not len(values):
        return None
    chances = np.clip(calibration(values), 0, 1)
    mean = float(chances.mean())
    spread = 1.96 * math.sqrt(float((chances * (1 - chances)).sum())) / len(chances)
    return {
        "estimate": mean,
        "low": max(0.0, mean - spread),
        "high": min(1.0, mean + spread),
        "n": len(chances),
    }


def isotonic(confidence: np.ndarray, right: np.ndarray) -> Calibration:
    """Return the monotone map that fits best: pools of neighbours that break the order.

    Args:
        confidence: shape (n,).
        right: whether each answer was right, shape (n,).

    Raises:
        InputError: nothing to fit, or arrays of unequal length.

    Source: M. Ayer et al., Annals of Mathematical Statistics 26 (1955) 641–647.
    """
    if confidence.shape != right.shape or not len(confidence):
        raise InputError(
            f"two rows of equal length were expected, got {confidence.shape} and {right.shape}"
        )
    numbers, places = np.unique(confidence, return_inverse=True)
    weights = np.bincount(places).astype(np.float64)
    means = np.bincount(places, right.astype(np.float64)) / weights
    pools: list[list[float]] = []  # mean, weight, numbers of it
    for mean, weight in zip(means.tolist(), weights.tolist(), strict=True):
        pools.append([mean, weight, 1])
        while len(pools) > 1 and pools[-2][0] >= pools[-1][0]:
            pools[-2:] = [_pooled(pools[-2], pools[-1])]
    fitted = np.repeat([pool[0] for pool in pools], [int(pool[2]) for pool in pools])
    return lambda values: np.interp(values, numbers, fitted)


def moved(confidence: np.ndarray, accuracy: float) -> Calibration:
    """Return the map that moves log-odds by one number, so that the mean is `accuracy`.

    Args:
        confidence: of the reference, shape (m,).
        accuracy: that was proven, 0 to 1.

    Raises:
        InputError: no such accuracy, or no reference.
    """
    known = confidence[np.isfinite(confidence)]
    if not 0 <= accuracy <= 1 or not len(known):
        raise InputError(
            f"an accuracy from 0 to 1 and some confidences were expected, got {accuracy!r} and"
            f" {len(known)}"
        )
    low, high = -30.0, 30.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _moved(known, middle).mean() < accuracy:
            low = middle
        else:
            high = middle
    shift = (low + high) / 2
    return lambda values: _moved(values, shift)


def calibrated(
    found: Accuracy, reference: np.ndarray | None, proven: float | None
) -> tuple[Calibration | None, str]:
    """Return the calibration of confidence that there is, and what it was made of.

    Args:
        found: of the log; its labels come first where they are enough.
        reference: confidences of the bundle's reference.
        proven: the bundle's accuracy.
    """
    if found.confidence and sum(len(right) for _, right in found.confidence) >= _ENOUGH:
        pairs = zip(*found.confidence, strict=True)
        return isotonic(*(np.concatenate(each) for each in pairs)), "labelled requests"
    if reference is None or proven is None or not np.isfinite(reference).any():
        return None, ""
    return moved(reference, proven), "the accuracy that the bundle was proven with"


def fallen(told: Mapping[str, Any], proven: float | None, margin: float = 0.01) -> bool | None:
    """Say whether accuracy is known to have fallen by more than `margin`; None: nothing is known.

    Labels come first; confidence is asked only where there are none.
    """
    if proven is None:
        return None
    for known in (told.get("by_labels"), told.get("by_confidence")):
        if known:
            return bool(known["high"] < proven - margin)
    return None


def _count(found: Accuracy, frame: Frame, width: int, classes: Mapping[str, int]) -> None:
    tops, confidence = frame["top"], frame["confidence"]
    labels = _numbers(frame["label"], classes)
    judged = np.isfinite(tops) & np.isfinite(labels)
    right = tops == labels
    starts = frame["time"] // width * width
    for start in np.unique(starts).tolist():
        ours = starts == start
        kept = found.windows.setdefault(int(start), _Kept())
        kept.n += int(ours.sum())
        known = confidence[ours]
        if np.isfinite(known).any():
            kept.confidence.append(known[np.isfinite(known)])
        for tally in (kept.labelled, found.labelled):
            tally.n += int((ours & judged).sum())
            tally.hits += int((ours & judged & right).sum())
    both = judged & np.isfinite(confidence)
    if both.any():
        found.confidence.append((confidence[both], right[both]))


def _numbers(labels: np.ndarray, classes: Mapping[str, int]) -> np.ndarray:
    """Return labels as numbers of classes, NaN for none."""
    if not (labels != None).any():  # noqa: E711 - of each element
        return np.full(len(labels), math.nan)
    return np.array([_number(label, classes) for label in labels], dtype=np.float64)


def _number(label: Any, classes: Mapping[str, int]) -> float:
    if label is None:
        return math.nan
    if isinstance(label, str):
        return float(classes.get(label, math.nan))
    return float(label)


def _pooled(first: Sequence[float], second: Sequence[float]) -> list[float]:
    weight = first[1] + second[1]
    return [(first[0] * first[1] + second[0] * second[1]) / weight, weight, first[2] + second[2]]


def _moved(confidence: np.ndarray, shift: float) -> np.ndarray:
    odds = np.clip(confidence, _TINY, 1 - _TINY)
    return np.asarray(1 / (1 + np.exp(-(np.log(odds / (1 - odds)) + shift))))
