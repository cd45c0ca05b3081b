"""Drift: whether what comes in, and what is answered, is still what the bundle was proven on.

The folder is the registry of detectors: one module, one `class X(Detector)`. `features` makes
columns of arrays, `report` holds windows of them against a reference, `correction` keeps many
features from crying wolf.
"""

from fettle.monitor.drift._detector import Detector, DriftScore, Fitted
from fettle.monitor.drift.report import DriftReport, Judged, Plan, Sample, compare

__all__ = [
    "Detector",
    "DriftReport",
    "DriftScore",
    "Fitted",
    "Judged",
    "Plan",
    "Sample",
    "compare",
]
