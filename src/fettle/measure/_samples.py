"""What a timing run leaves: every duration, and the numbers that are shown of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fettle.core.measurement import Measurement
from fettle.measure._intervals import in_blocks, mean_interval, median_interval, percentile_interval

PERCENTILES = (50, 90, 95, 99)
LEAST_FOR_P99 = 1000


@dataclass(frozen=True, eq=False)
class Samples:
    """Every counted duration of one subject: one array of milliseconds a round.

    `builds` tells for each round which build of the session ran it; it is empty when there was
    only one.
    """

    label: str
    batch: int
    threads: int
    blocks: tuple[np.ndarray, ...]
    builds: tuple[int, ...] = ()

    @property
    def ms(self) -> np.ndarray:
        """All durations in the order they were taken, shape (n,)."""
        return np.concatenate(self.blocks)

    @property
    def medians(self) -> np.ndarray:
        """The median of each round, shape (rounds,)."""
        return np.array([np.median(block) for block in self.blocks])


def summary(samples: Samples) -> dict[str, Any]:
    """Return p50, p90, p95, p99 and mean in milliseconds, with n, batch, threads and intervals.

    Percentiles are order statistics (the smallest sample that at least q % don't exceed).
    p99 is None below 1,000 samples: it would rest on fewer than ten of them. `intervals` holds
    for each of the five a list `[low, high]` at 95 %, or None where the samples can't bound it.
    """
    return {
        **describe(samples.blocks, samples.builds),
        "batch": samples.batch,
        "threads": samples.threads,
    }


def describe(blocks: Sequence[np.ndarray], builds: Sequence[int] = ()) -> dict[str, Any]:
    """Return percentiles, mean, n and their intervals of blocks of samples, one array a round."""
    values = np.concatenate(blocks)
    found: dict[str, Any] = {}
    intervals: dict[str, list[float] | None] = {}
    for q in PERCENTILES:
        shown = q < 99 or len(values) >= LEAST_FOR_P99
        found[f"p{q}"] = percentile(values, q) if shown else None
        bounds = percentile_interval(blocks, q / 100, builds=builds) if shown else None
        intervals[f"p{q}"] = list(bounds) if bounds else None
    found["mean"] = float(values.mean())
    bounds = mean_interval(blocks, builds=builds)
    intervals["mean"] = list(bounds) if bounds else None
    return {**found, "n": len(values), "intervals": intervals}


def describe_stream(values: np.ndarray) -> dict[str, Any]:
    """Return what `describe` does for one stream of samples in the order they were taken."""
    return describe(in_blocks(values))


def percentile(values: np.ndarray, q: float) -> float:
    """Return the smallest sample that at least `q` % of them don't exceed."""
    return float(np.percentile(values, q, method="inverted_cdf"))


def throughput(samples: Samples) -> float:
    """Return examples a second of one client that asks again as soon as it is answered."""
    return float(1000 * samples.batch / samples.ms.mean())


def throughput_interval(samples: Samples) -> tuple[float, float] | None:
    """Return the 95 % interval of `throughput`, or None for fewer than 3 rounds."""
    bounds = mean_interval(samples.blocks, builds=samples.builds)
    if bounds is None or bounds[0] <= 0:
        return None
    return 1000 * samples.batch / bounds[1], 1000 * samples.batch / bounds[0]


def median_latency(samples: Samples) -> Measurement:
    """Return the median over rounds of each round's median, in ms, with a 95 % interval."""
    value, low, high = median_interval(samples.medians)
    return Measurement("latency_p50", value, "ms", "lower", low, high, len(samples.ms))
