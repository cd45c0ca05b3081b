"""The result of a study as the contract has it: one JSON object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fettle.core.arrays import SPLITS
from fettle.core.errors import ModelError
from fettle.core.machine import PACKAGES, this_machine, versions
from fettle.core.shelf import RUNTIMES
from fettle.core.verdict import Verdict
from fettle.measure import onnx_bytes
from fettle.measure.macs import macs_of
from fettle.measure.noninferiority import mean_score
from fettle.measure.sparsity import sparsity_of
from fettle.search._trial import Trial
from fettle.search.journal import now

if TYPE_CHECKING:
    from fettle.search.study import Study

Row = dict[str, Any]


@dataclass(frozen=True)
class Findings:
    """Everything that a study found out."""

    trials: list[Trial]
    base: Trial
    winner: Trial
    verdict: Verdict
    timing: dict[str, Any]
    seconds: float


def result_of(study: Study, found: Findings) -> dict[str, Any]:
    """Return the result of the contract."""
    rows = {trial.label: _row(trial, found) for trial in found.trials}
    for trial in (found.base, found.winner):
        rows[trial.label]["peak_memory_bytes"] = study.measuring.peak_memory(trial)
    best = {**rows[found.winner.label], **found.winner.proof, "bundle": str(study.out / "best")}
    return {
        "schema": 1,
        "command": study.setting.command,
        "created": now(),
        "model": study.workshop.source.spec,
        "data": study.setting.data,
        "verdict": found.verdict.outcome,
        "verdict_text": str(found.verdict),
        "needed": found.verdict.needed,
        "budget": study.setting.budget.to_json(),
        "baseline": {**rows[found.base.label], **found.base.proof},
        "best": best,
        "frontier": frontier(list(rows.values())),
        "trials": list(rows.values()),
        "noise": found.timing["noise"],
        "warning": found.timing["warning"],
        "seconds": round(found.seconds, 2),
        "machine": study.measuring.report(),
        "fingerprints": {split: study.workshop.task.fingerprint(split) for split in SPLITS},
    }


def frontier(rows: Sequence[Row]) -> list[Row]:
    """Return the rows that no other beats in both latency and quality, fastest first."""
    sound = [row for row in rows if not row["refused"]]
    ordered = sorted(sound, key=lambda r: (r["latency_ms"]["p50"], -r["metric"]["value"]))
    best, kept = -np.inf, []
    for row in ordered:
        if row["metric"]["value"] > best:
            best = row["metric"]["value"]
            kept.append(row)
    return kept


def metric_of(scores: np.ndarray, split: str) -> dict[str, Any]:
    """Return the metric of a split, the mean of what examples add to it, with its interval."""
    found = mean_score(scores)
    return {
        "value": found.value,
        "low": found.low,
        "high": found.high,
        "n": found.n,
        "split": split,
    }


def machine_json() -> dict[str, Any]:
    """Return the machine, its runtimes with their versions, and the versions of everything."""
    installed = versions()
    packages = {name: "torch" if name == "pytorch" else name for name in RUNTIMES.names()}
    runtimes = {name: installed[p] for name, p in packages.items() if p in installed}
    known = {name: installed[name] for name in PACKAGES if name in installed}
    return {**this_machine().to_json(), "runtimes": runtimes, "versions": known}


def _row(trial: Trial, found: Findings) -> Row:
    ratios = trial.row.get("ratios", {})
    return {
        "recipe": str(trial.recipe),
        "name": trial.name,
        "runtime": trial.runtime.name(),
        "precision": trial.precision,
        "metric": trial.row.get("metric"),
        "latency_ms": trial.row.get("latency_ms"),
        "throughput": trial.row.get("throughput"),
        **_weight(trial, found),
        "peak_memory_bytes": None,
        "drop": trial.row.get("drop"),
        "speedup": _speedups(trial, found, ratios),
        "stages": [stage.to_json() for stage in trial.stages],
        "lowering": list(trial.lowering),
        "bundle": None,
        "refused": trial.refused,
    }


def _weight(trial: Trial, found: Findings) -> Row:
    """Return what the ONNX file weighs; a live module counts as the file it is exported to."""
    plain = [t.model for t in found.trials if t.is_plain and isinstance(t.model, Path)]
    path = trial.model if isinstance(trial.model, Path) else next(iter(plain), None)
    if path is None:
        return {"size_bytes": None, "macs": None, "sparsity": None}
    return {
        "size_bytes": onnx_bytes(path),
        "macs": _macs(path),
        "sparsity": sparsity_of(path),
    }


def _macs(path: Path) -> int | None:
    """Return the multiply-accumulates, or None where a free shape hides them."""
    try:
        return macs_of(path)
    except ModelError:
        return None


def _speedups(trial: Trial, found: Findings, ratios: dict[str, Any]) -> Row:
    """Name every denominator: the same runtime's f32, the best f32, and eager PyTorch."""
    plain = [t for t in found.trials if t.is_fp32 and t.session is not None]
    same = next((t for t in plain if t.runtime.name() == trial.runtime.name()), None)
    torch = next((t for t in plain if t.runtime.name() == "pytorch"), None)
    named = {"vs_same_runtime_fp32": same, "vs_best_fp32": found.base, "vs_torch_eager": torch}
    return {name: ratios.get(other.label) if other else None for name, other in named.items()}
