"""A log held against its bundle: drift, accuracy and ranges, and what to do about them.

```python
with open_source("predictions.db") as log:
    found = assess(log, Asked(bundle=Bundle.open("best")))
found["triage"]["action"]
```
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fettle.core.arrays import Arrays
from fettle.core.bundle import Bundle
from fettle.core.errors import DataError, FettleError
from fettle.core.hashing import fingerprint
from fettle.monitor import accuracy
from fettle.monitor._reading import LogFile
from fettle.monitor.drift.features import Columns, bundle_columns
from fettle.monitor.drift.report import DriftReport, Plan, Sample, compare
from fettle.monitor.drift.sampling import Cut, answering, whole, windows_of
from fettle.monitor.pairs import shadow_pairs
from fettle.monitor.ranges import SideSession, saturation
from fettle.monitor.sequential import Tally, difference_side, proportion
from fettle.monitor.table import open_source
from fettle.monitor.triage import Evidence, triage

_INPUTS, _OUTPUTS = ("input/",), ("output/", "class", "confidence", "prediction")
_FEW = 100  # pairs, below which nothing is said of disagreement
_UNASKED = 0.05  # disagreement that a bundle without a budget may have
_REFERENCE = "reference.npz"


@dataclass(frozen=True)
class Asked:
    """What a log is held against, and how.

    Attributes:
        bundle: whose reference, labels and accuracy are meant.
        reference: a log or table that is the reference instead.
        seconds: length of a window; None for some dozens in all.
        count: rows of a window, instead.
        plan: detectors, correction and level.
        ranges: requests of the log that a side session runs again to see what layers clip; 0 for
            none.
    """

    bundle: Bundle | None = None
    reference: Path | None = None
    seconds: float | None = None
    count: int | None = None
    plan: Plan = field(default_factory=Plan)
    ranges: int = 0

    @property
    def cut(self) -> Cut:
        """How the log is cut."""
        if self.bundle is None:
            return Cut(self.seconds, self.count)
        manifest = self.bundle.manifest
        # what `fettle serve` writes into the log to tell this bundle from any other
        return Cut(self.seconds, self.count, fingerprint(manifest.to_json()), manifest.labels)


def assess(log: LogFile, asked: Asked) -> dict[str, Any]:
    """Return `drift`, `accuracy`, `ranges` and `triage`, each None where nothing tells of it.

    Raises:
        DataError: the log or the reference is damaged, or holds nothing that was asked for.
        InputError: windows of no length, or a plan that doesn't fit.
        MissingError: a detector needs what isn't installed.
    """
    reference = _reference(asked)
    report = _drift(log, asked, reference)
    proven = _proven(asked.bundle)
    worth = bool(log.labels) or asked.bundle is not None  # a pass over millions of rows
    found = accuracy.measure(log, asked.cut) if worth else accuracy.Accuracy()
    calibration = accuracy.calibrated(found, reference.get("confidence"), proven)
    told = {**found.to_json(*calibration), "proven": proven}
    layers = _ranges(log, asked)
    evidence = Evidence(
        inputs=_moved(report, _INPUTS),
        outputs=_moved(report, _OUTPUTS),
        disagreement=disagreement_moved(log, _allowed(asked.bundle), asked.cut.sha),
        saturated=None if layers is None else any(each["alarm"] for each in layers["layers"]),
        fallen=accuracy.fallen(told, proven),
    )
    known = any(value is not None for value in vars(evidence).values())
    return {
        "drift": report.to_json() if report else None,
        "accuracy": told if told["n"] else None,
        "ranges": layers,
        "triage": triage(evidence).to_json() if known else None,
    }


def disagreement_moved(log: LogFile, allowed: float, sha: str = "") -> bool | None:
    """Say whether a shadow disagrees more at the end than at first, or than is allowed.

    Compared are the first and the last quarter of what both answered.

    Args:
        log: with a shadow's rows.
        allowed: the share of disagreements that is no alarm by itself.
        sha: of the bundle whose answers are meant; of any where the log doesn't know it.

    Returns:
        None where no shadow rode along, or for less than a hundred requests.

    Raises:
        DataError: the log is damaged.
    """
    differ = _disagreements(log, sha)
    if len(differ) < _FEW:
        return None
    quarter = len(differ) // 4
    first, last = (Tally(float(p.sum()), len(p)) for p in (differ[:quarter], differ[-quarter:]))
    if difference_side(first, last, 0.0) == "above":
        return True
    return proportion(last.hits, last.n).low > allowed


def _disagreements(log: LogFile, sha: str) -> np.ndarray:
    """Return whether both named another class, in the order of time, of the pair seen most."""
    seen: dict[Any, list[np.ndarray]] = {}
    known = {origin.sha for origin in log.origins.values()}
    for pairs in shadow_pairs(log):
        if sha in known and pairs.who.answered != sha:
            continue
        both = np.isfinite(pairs.top).all(1)
        rows = np.stack([pairs.time, pairs.top[:, 0] != pairs.top[:, 1]], 1)
        seen.setdefault(pairs.who, []).append(rows[both])
    if not seen:
        return np.array([])
    rows = np.concatenate(max(seen.values(), key=lambda pieces: sum(map(len, pieces))))
    return np.asarray(rows[np.argsort(rows[:, 0], kind="stable"), 1])


def _reference(asked: Asked) -> Columns:
    """Return the reference's columns; none where there is no reference."""
    if asked.reference is not None:
        with open_source(asked.reference) as log:
            found = whole(log, Cut(labels=asked.cut.labels))
        if not found:
            raise DataError(f"{asked.reference} holds nothing that drift could be measured against")
        return found
    if asked.bundle is None or _REFERENCE not in asked.bundle.manifest.files:
        return {}
    return bundle_columns(asked.bundle.reference(), asked.bundle.manifest.labels)


def _drift(log: LogFile, asked: Asked, reference: Columns) -> DriftReport | None:
    windows: list[Sample] = windows_of(log, asked.cut) if reference else []
    return compare(reference, windows, asked.plan) if windows else None


def _moved(report: DriftReport | None, prefixes: tuple[str, ...]) -> bool | None:
    if report is None or not any(report.knows(prefix) for prefix in prefixes):
        return None
    return any(report.moved(prefix) for prefix in prefixes)


def _proven(bundle: Bundle | None) -> float | None:
    """Return the accuracy that a bundle was proven with; None where its metric is another."""
    if bundle is None:
        return None
    budget: Mapping[str, Any] = (bundle.manifest.verdict or {}).get("budget", {})
    value = bundle.manifest.measurements.get("metric", {}).get("value")
    named = str(budget.get("metric", ""))
    return float(value) if value is not None and named in ("accuracy", "top-1", "top1") else None


def _allowed(bundle: Bundle | None) -> float:
    """Return the disagreement that a bundle may have: twice its budget, where that is more."""
    verdict = (bundle.manifest.verdict if bundle else None) or {}
    return max(_UNASKED, 2 * float(verdict.get("budget", {}).get("max_drop", 0.0)))


def _ranges(log: LogFile, asked: Asked) -> dict[str, Any] | None:
    """Return what layers clip, of the latest requests whose inputs were kept."""
    if not asked.ranges or asked.bundle is None or _REFERENCE not in asked.bundle.manifest.files:
        return None
    named = asked.bundle.reference()
    reference = {k.removeprefix("input/"): v for k, v in named.items() if k.startswith("input/")}
    sample = _latest(log, asked, tuple(reference))
    if not sample:
        return None
    try:
        with SideSession(asked.bundle.model_path) as side:
            found = saturation(side, reference, sample, asked.plan.alpha)
    except FettleError as error:
        return {"n": 0, "layers": [], "trouble": str(error)}
    n = len(next(iter(sample.values())))
    return {"n": n, "layers": [each.to_json() for each in found], "trouble": ""}


def _latest(log: LogFile, asked: Asked, names: tuple[str, ...]) -> Arrays:
    """Return inputs of the latest requests that hold all of `names`, shaped like the last one."""
    chosen = {log.origins[number] for number in answering(log, asked.cut.sha)}
    routes = {(o.model, o.version, o.sha, o.route) for o in chosen}
    kept: list[Arrays] = []
    for row in log.rows(examples=True):
        if (row.model, row.version, row.sha, row.route) in routes and not row.failed:
            inputs = row.inputs or {}
            if all(name in inputs for name in names):
                kept = [*kept[-asked.ranges + 1 :], inputs] if asked.ranges > 1 else [inputs]
    if not kept:
        return {}
    alike = [each for each in kept if all(_shaped(each[n], kept[-1][n]) for n in names)]
    return {name: np.concatenate([each[name] for each in alike]) for name in names}


def _shaped(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape[1:] == other.shape[1:] and one.dtype == other.dtype
