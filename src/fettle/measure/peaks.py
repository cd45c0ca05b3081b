"""The machine's own peaks: what its matrix units and its memory reach, measured once and cached.

`peaks_of(threads)` times large matrix products and convolutions in float32, bfloat16 and int8
through numpy, onnxruntime and OpenVINO, whichever are here, one call on all threads and one a
thread, and keeps the best of each precision; then the rate at which memory is read, by size of the
working set. That takes half a minute to two; the answer is kept in the cache folder
(`fettle.core.cache`) under the processor, its instruction sets, the number of threads and the
engines' versions, and read from there the next time.

One multiply-add counts as two operations. A measured peak is what software reaches: it stays below
the data sheet's, of which `theoretical` is a hint where the instruction set tells.

Example:
    peaks = peaks_of(threads=1)
    peaks.operations["int8"].rate      # operations a second
    peaks.read_rate(1 << 20)           # bytes a second out of a working set of 1 MiB
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from json import JSONDecodeError, loads
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import psutil

from fettle.core.cache import cache_folder
from fettle.core.errors import StorageError
from fettle.core.files import write_json
from fettle.core.hashing import fingerprint
from fettle.core.machine import this_machine, usable_threads, versions
from fettle.measure._bandwidth import bandwidths
from fettle.measure._products import Product, products

_FORMAT = 2
_SECONDS = 0.2
_MOST_ROUNDS, _GAIN = 5, 0.03
_LEAST_RUNS = 3
# Operations a cycle and core at most, two units assumed: (instruction set, precision) -> count.
_A_CYCLE = {
    "f32": {"avx512f": 64, "fma": 32},
    "bf16": {"amx_bf16": 1024, "avx512_bf16": 128},
    "int8": {"amx_int8": 2048, "avx512_vnni": 256, "avx_vnni": 128},
}


@dataclass(frozen=True)
class Peak:
    """The best rate of one precision, in operations a second, and what reached it."""

    rate: float
    engine: str
    shape: str


@dataclass(frozen=True)
class Peaks:
    """What this machine reaches with `threads` threads.

    `operations` has a Peak for each of "f32", "bf16" and "int8" that an engine here computes in;
    `bandwidth` has pairs of working set in bytes and bytes read a second; `theoretical` has
    operations a second from the instruction set and the clock: a hint, empty where unknown.
    """

    threads: int
    operations: Mapping[str, Peak]
    bandwidth: tuple[tuple[int, float], ...]
    theoretical: Mapping[str, float]

    def rate(self, precision: str) -> float:
        """Return operations a second in `precision`; the highest there is for one unknown.

        A bound has to hold for what wasn't measured too, and nothing is faster than the fastest.
        """
        peak = self.operations.get(precision)
        return peak.rate if peak else max(p.rate for p in self.operations.values())

    def read_rate(self, size: int) -> float:
        """Return bytes a second out of a working set of `size` bytes."""
        known = [rate for at, rate in self.bandwidth if at <= size]
        return known[-1] if known else self.bandwidth[0][1]

    def or_better(self, other: Peaks) -> Peaks:
        """Return the better of two measurements of the same machine, number by number."""
        best = dict(self.operations)
        for name, peak in other.operations.items():
            best[name] = max(best.get(name, peak), peak, key=lambda p: p.rate)
        rates = dict(self.bandwidth)
        for size, rate in other.bandwidth:
            rates[size] = max(rate, rates.get(size, 0.0))
        return Peaks(self.threads, best, tuple(sorted(rates.items())), other.theoretical)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form; rates in operations and bytes a second."""
        return {
            "threads": self.threads,
            "operations": {name: vars(peak) for name, peak in self.operations.items()},
            "bandwidth": [{"working_set_bytes": s, "bytes_per_second": r}
                          for s, r in self.bandwidth],
            "theoretical": dict(self.theoretical),
        }  # fmt: skip

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Peaks:
        """Read what `to_json` wrote."""
        return cls(
            int(value["threads"]),
            {name: Peak(**peak) for name, peak in value["operations"].items()},
            tuple((p["working_set_bytes"], p["bytes_per_second"]) for p in value["bandwidth"]),
            dict(value["theoretical"]),
        )


def peaks_of(threads: int = 0, again: bool = False) -> Peaks:
    """Return the peaks with `threads` threads (0: all there are), out of the cache if it has them.

    Args:
        threads: how many threads the engines use.
        again: measure once more; the better of both is kept, for a busy machine only slows.
    """
    threads = threads or usable_threads()
    path = cache_folder() / "peaks" / f"{_key(threads)}.json"
    known = _kept(path)
    if known is not None and not again:
        return known
    found = _measured(threads)
    if known is not None:
        found = known.or_better(found)
    _keep(path, found)
    return found


def _key(threads: int) -> str:
    machine, installed = this_machine(), versions()
    engines = {name: installed.get(name) for name in ("numpy", "onnxruntime", "openvino")}
    return fingerprint([_FORMAT, machine.cpu, machine.isa, threads, engines])


def _kept(path: Path) -> Peaks | None:
    try:
        return Peaks.from_json(loads(path.read_text(encoding="utf-8")))
    except (OSError, JSONDecodeError, KeyError, TypeError, ValueError):
        return None  # not there, or not ours: measure


def _keep(path: Path, peaks: Peaks) -> None:
    try:
        write_json(path, peaks.to_json())
    except StorageError:
        return  # a cache that can't be written costs half a minute the next time, no more


def _measured(threads: int) -> Peaks:
    """Go over everything until a round finds nothing better: others may be using the machine."""
    best = _one_round(threads)
    for _ in range(_MOST_ROUNDS - 1):
        before, best = best, best.or_better(_one_round(threads))
        if all(
            best.rate(name) < (1 + _GAIN) * peak.rate for name, peak in before.operations.items()
        ):
            break
    return best


def _one_round(threads: int) -> Peaks:
    best: dict[str, Peak] = {}
    for product in products(threads):
        rate = product.operations / _best_seconds(product, threads)
        if product.precision not in best or rate > best[product.precision].rate:
            best[product.precision] = Peak(rate, product.engine, product.shape)
    return Peaks(threads, best, bandwidths(threads), theoretical(threads))


def _best_seconds(product: Product, threads: int) -> float:
    """Return the shortest run: a peak is what the machine does when nobody disturbs it.

    One thread is timed by its own processor time, from which others' turns are left out.
    """
    clock = process_time if threads == 1 else perf_counter
    best, runs, start = float("inf"), 0, perf_counter()
    while perf_counter() - start < _SECONDS or runs < _LEAST_RUNS:
        before = clock(), perf_counter()
        product.run()
        wall = perf_counter() - before[1]
        # a thread that the engine woke may still be paid for: never longer than by the wall
        best, runs = min(best, wall, (clock() - before[0]) or wall), runs + 1
    return best


@cache
def theoretical(threads: int) -> dict[str, float]:
    """Return operations a second from instruction set, clock and threads; a hint, no measurement.

    Two vector units of the widest kind a core are assumed, and the clock that the system tells,
    which virtual machines often misstate.
    """
    clock = psutil.cpu_freq()
    hertz = 1e6 * max(clock.max, clock.current) if clock else 0.0
    isa = this_machine().isa
    found = {}
    for precision, counts in _A_CYCLE.items():
        most = max((count for name, count in counts.items() if name in isa), default=0)
        if most and hertz:
            found[precision] = threads * most * hertz
    return found
