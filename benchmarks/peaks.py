"""The roofline's peaks against the best matrix products of numpy and torch (oneDNN), interleaved.

`python benchmarks/peaks.py [ROUNDS]`; torch is what `measure` may not use itself.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from time import perf_counter

import numpy as np
import torch
from _results import record, table
from threadpoolctl import threadpool_limits

from fettle.core.machine import usable_threads
from fettle.measure.peaks import Peaks, peaks_of

SHAPES = ((512, 1024), (768, 1536), (2048, 2048))
SECONDS = 0.2


def main() -> None:
    """Take turns between measuring the peaks and the products; write the table."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FETTLE_CACHE"] = folder  # nothing of earlier runs
        compare()


def compare() -> None:
    """Compare at 1 thread and at all."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    rows = []
    for threads in sorted({1, usable_threads()}):
        torch.set_num_threads(threads)
        best: dict[str, tuple[float, str]] = defaultdict(lambda: (0.0, ""))
        for _ in range(rounds):
            peaks = peaks_of(threads, again=True)  # the best so far
            for precision, rate, what in products(threads):
                best[precision] = max(best[precision], (rate, what))
        rows += [row(threads, name, peaks, *best[name]) for name in best]
        rows += bandwidth_rows(threads, peaks)
    head = ("threads", "what", "fettle's peak", "by", "best of numpy, torch", "by", "ratio",
            "hint from the clock")  # fmt: skip
    record("peaks", "The machine's peaks, in 10⁹ operations (2 a multiply-add) or bytes a second",
           table(head, rows))  # fmt: skip


def products(threads: int) -> list[tuple[str, float, str]]:
    """Return precision, operations a second, and what did them."""
    found = []
    for rows, width in SHAPES:
        for precision, what, run in _runs(rows, width):
            with threadpool_limits(threads, "blas"):
                rate = 2 * rows * width**2 / _best(run)
            found.append((precision, rate, f"{what} {rows}×{width}×{width}"))
    return found


def _runs(rows: int, width: int) -> list[tuple[str, str, Callable[[], object]]]:
    x, w = np.ones((rows, width), np.float32), np.ones((width, width), np.float32)
    a, b = torch.from_numpy(x), torch.from_numpy(w)
    half, other = a.bfloat16(), b.bfloat16()
    small, weight = a.to(torch.int8), b.to(torch.int8)
    return [
        ("f32", "numpy", lambda: x @ w),
        ("f32", "torch.mm", lambda: torch.mm(a, b)),
        ("bf16", "torch.mm", lambda: torch.mm(half, other)),
        ("int8", "torch._int_mm", lambda: torch._int_mm(small, weight)),
    ]


def _best(run: Callable[[], object]) -> float:
    spent, start = [], perf_counter()
    while perf_counter() - start < SECONDS or len(spent) < 3:
        before = perf_counter()
        run()
        spent.append(perf_counter() - before)
    return min(spent)


def row(threads: int, name: str, peaks: Peaks, rate: float, what: str) -> list[str]:
    """Return one row: the peak over the best product is to be at least 0.9."""
    peak, hint = peaks.operations.get(name), peaks.theoretical.get(name)
    shown = f"{peak.engine} {peak.shape}" if peak else "–"
    value = peak.rate if peak else 0.0
    return [str(threads), name, f"{value / 1e9:.0f}", shown, f"{rate / 1e9:.0f}", what,
            f"{value / rate:.2f}", f"{hint / 1e9:.0f}" if hint else "–"]  # fmt: skip


def bandwidth_rows(threads: int, peaks: Peaks) -> list[list[str]]:
    """Return the rates at which working sets of each size are read."""
    return [
        [str(threads), f"read of {size / 2**20:g} MiB", f"{rate / 1e9:.0f}", "numpy", *["–"] * 4]
        for size, rate in peaks.bandwidth
    ]


if __name__ == "__main__":
    main()
