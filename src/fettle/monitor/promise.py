"""Latency in production against what the checklist measured before: is it still as it was proven?

The checklist times a batch on the bare engine, so what is held against it is the computing alone.
"""

from __future__ import annotations

from typing import Any

from fettle.core.bundle import Manifest
from fettle.monitor.latency import Cell

TOLERANCE = 1.1  # two sessions of one file differ by luck of memory by 5 to 8 %
_QUANTILES = ("p50", "p95", "p99")


def promised(manifest: Manifest) -> dict[int, dict[str, float]]:
    """Return p50, p95 and p99 in milliseconds by batch size, as the checklist measured them."""
    rows = [row for row in manifest.checks if row.get("name") == "latency"]
    sizes = rows[-1].get("sizes", {}) if rows else {}
    return {
        int(size): {q: found[q] for q in _QUANTILES if found.get(q) is not None}
        for size, found in sizes.items()
    }


def compared(cell: Cell, promises: dict[int, dict[str, float]]) -> dict[str, Any] | None:
    """Hold the computing times of requests against the promise for batches of their size.

    That is the smallest proven size that holds their mean batch. `slower` names the quantiles
    whose whole interval lies past the promise by more than a tenth.

    Returns:
        `batch`, `promised`, `found`, `ratio`, `slower`; None where there is nothing to compare.
    """
    found = cell.to_json()
    if not promises or found["batch"] is None:
        return None
    size = min((s for s in promises if s >= found["batch"]), default=max(promises))
    now = {q: found["compute_ms"][q] for q in _QUANTILES if found["compute_ms"][q]}
    both = [q for q in now if q in promises[size]]
    return {
        "batch": size,
        "promised": promises[size],
        "found": now,
        "ratio": {q: now[q]["value"] / promises[size][q] for q in both if promises[size][q]},
        "slower": [q for q in both if now[q]["low"] > TOLERANCE * promises[size][q]],
    }
