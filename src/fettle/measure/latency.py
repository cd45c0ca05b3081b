"""Latency, timed so that two numbers can be compared.

All subjects are timed in one process, interleaved: each takes its turn in a short block of
consecutive runs, and the order changes from round to round. Slow drifts of the machine (heat,
neighbours) then touch all subjects alike, and the ratio of two subjects within a round is freed
from them.

Blocks, not single runs, because thread pools keep spinning after a run: ONNX Runtime's burned
about 25 ms of processor time after each run (measured, 2 threads, `session.force_spinning_stop`
unset), which would be charged to whoever runs next. The start of each block is therefore run but
not counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from fettle.core.errors import InputError
from fettle.core.measurement import Measurement
from fettle.core.progress import Bar, Reporter, Silent
from fettle.measure._intervals import median_interval
from fettle.measure._timing import collector_at_rest, order_of, settle, share_out, time_block

PERCENTILES = (50, 90, 95, 99)
LEAST_FOR_P99 = 1000
LEAST_ROUNDS = 6  # the fewest from which a median has a 95 % interval at all
_CALM_SECONDS = 0.002


@dataclass(frozen=True)
class Subject:
    """Something to time: `run` makes one request of `batch` examples.

    `threads` is what its engine uses (0: all there are); it is reported, not set.
    """

    label: str
    run: Callable[[], object]
    batch: int = 1
    threads: int = 1

    def __post_init__(self) -> None:
        if self.batch < 1 or self.threads < 0:
            raise InputError(
                f"`{self.label}` expects batch >= 1 and threads >= 0,"
                f" got batch {self.batch}, threads {self.threads}"
            )


@dataclass(frozen=True)
class Plan:
    """How long and how often to time.

    `seconds` is the aim for all subjects together: a cheap subject stops early, once it has
    `samples` counted runs; a slow one gets fewer runs, then the whole gets fewer rounds, but
    never fewer than 6. `settle_seconds` opens each block uncounted while another's threads may
    still spin. `block_seconds` and `block_runs` are the least that a block should last.
    """

    seconds: float = 10.0
    rounds: int = 24
    samples: int = LEAST_FOR_P99
    block_runs: int = 10
    block_seconds: float = 0.03
    settle_seconds: float = 0.05
    warmup_seconds: float = 0.2

    def __post_init__(self) -> None:
        if self.rounds < LEAST_ROUNDS or self.block_runs < 1 or self.samples < 1:
            raise InputError(
                f"a timing plan expects rounds >= {LEAST_ROUNDS}, block_runs >= 1 and"
                f" samples >= 1, got {self}"
            )
        if min(self.seconds, self.block_seconds, self.settle_seconds, self.warmup_seconds) < 0:
            raise InputError(f"a timing plan expects no negative time, got {self}")

    @classmethod
    def for_budget(cls, seconds: float) -> Plan:
        """Return a plan that aims at `seconds` in all, with 1,000 samples each where they fit."""
        return cls(seconds=seconds, warmup_seconds=min(0.2, seconds / 20))


@dataclass(frozen=True, eq=False)
class Samples:
    """Every counted duration of one subject: one array of milliseconds a round."""

    label: str
    batch: int
    threads: int
    blocks: tuple[np.ndarray, ...]

    @property
    def ms(self) -> np.ndarray:
        """All durations in the order they were taken, shape (n,)."""
        return np.concatenate(self.blocks)

    @property
    def medians(self) -> np.ndarray:
        """The median of each round, shape (rounds,)."""
        return np.array([np.median(block) for block in self.blocks])


@dataclass(frozen=True)
class Ratio:
    """A ratio of two latencies with its 95 % interval."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        """Return the JSON form."""
        return asdict(self)


def time_interleaved(
    subjects: Sequence[Subject], plan: Plan | None = None, progress: Reporter | None = None
) -> dict[str, Samples]:
    """Time all subjects against each other and return their samples by label.

    Each round holds one block of every subject; all subjects get equally many rounds, so that
    `ratio` can pair them. What a subject raises passes through.

    Raises:
        InputError: no subject, or two with the same label.
    """
    _check(subjects)
    plan, watch = plan or Plan(), progress or Silent()
    settling = _settling(subjects, plan)
    with collector_at_rest():
        costs = [_warm_up(subject, plan) for subject in subjects]
        rounds, runs = _allot(costs, plan, settling)
        with watch.bar("timing", rounds) as bar:
            blocks = _time_rounds(subjects, rounds, runs, settling, bar)
    return {
        s.label: Samples(s.label, s.batch, s.threads, tuple(taken))
        for s, taken in zip(subjects, blocks, strict=True)
    }


def summary(samples: Samples) -> dict[str, Any]:
    """Return p50, p90, p95, p99 and mean in milliseconds, with n, batch and threads.

    Percentiles are order statistics (the smallest sample that at least q % don't exceed).
    p99 is None below 1,000 samples: it would rest on fewer than ten of them.
    """
    ms = samples.ms
    found: dict[str, Any] = {
        f"p{q}": float(np.percentile(ms, q, method="inverted_cdf")) for q in PERCENTILES
    }
    if len(ms) < LEAST_FOR_P99:
        found["p99"] = None
    found["mean"] = float(ms.mean())
    return {**found, "n": len(ms), "batch": samples.batch, "threads": samples.threads}


def throughput(samples: Samples) -> float:
    """Return examples a second of one client that asks again as soon as it is answered."""
    return float(1000 * samples.batch / samples.ms.mean())


def median_latency(samples: Samples) -> Measurement:
    """Return the median over rounds of each round's median, in ms, with a 95 % interval."""
    value, low, high = median_interval(samples.medians)
    return Measurement("latency_p50", value, "ms", "lower", low, high, len(samples.ms))


def ratio(a: Samples, b: Samples) -> Ratio:
    """Return time of `a` over time of `b`: above 1, `b` is that many times faster.

    The value is the median over rounds of the ratio of the block medians. The interval is the
    distribution-free one of a median (order statistics, from the binomial): at least 95 %, no
    resampling, nothing assumed but that rounds are alike.

    Raises:
        InputError: the two were not timed in the same call.
    """
    if len(a.blocks) != len(b.blocks):
        raise InputError(
            f"`{a.label}` has {len(a.blocks)} rounds and `{b.label}` {len(b.blocks)}:"
            " a ratio needs both from one call of time_interleaved"
        )
    return Ratio(*median_interval(a.medians / b.medians))


def twin_of(subject: Subject) -> Subject:
    """Return the same subject under a second label, to be timed against itself."""
    return replace(subject, label=f"{subject.label} (again)")


def noise(subject: Subject, plan: Plan | None = None, progress: Reporter | None = None) -> Ratio:
    """Time a subject against itself: how far from 1 a ratio gets here for no reason."""
    samples = time_interleaved([subject, twin_of(subject)], plan, progress)
    return noise_in(samples, subject.label)


def noise_in(samples: Mapping[str, Samples], label: str) -> Ratio:
    """Return the ratio of `label` to its twin, when both were timed in one call."""
    return ratio(samples[label], samples[f"{label} (again)"])


def too_noisy(measured: Ratio, limit: float = 0.05) -> str | None:
    """Return a warning when the artifact against itself strays from 1 by more than `limit`."""
    stray = max(abs(measured.low - 1), abs(measured.high - 1))
    if stray <= limit:
        return None
    return (
        f"this machine is noisy: the same artifact against itself measured"
        f" {measured.value:.3f} [{measured.low:.3f}, {measured.high:.3f}], where within"
        f" ±{limit:.0%} of 1 was expected; ratios closer to 1 than {stray:.0%} mean nothing here:"
        " stop other programs, or give the timing more seconds"
    )


def _check(subjects: Sequence[Subject]) -> None:
    labels = [subject.label for subject in subjects]
    if not labels or len(set(labels)) < len(labels):
        raise InputError(f"timing expects subjects with distinct labels, got {labels}")


def _warm_up(subject: Subject, plan: Plan) -> float:
    """Run until warm; return what one run costs in seconds."""
    spent = settle(subject.run, plan.warmup_seconds, at_least=3)
    return max(float(np.median(spent[len(spent) // 2 :])), 1e-9)


def _settling(subjects: Sequence[Subject], plan: Plan) -> float:
    """Only pools of several threads spin on after their run."""
    pools = any(subject.threads != 1 for subject in subjects)
    return plan.settle_seconds if pools else min(plan.settle_seconds, _CALM_SECONDS)


def _allot(costs: Sequence[float], plan: Plan, settling: float) -> tuple[int, list[int]]:
    """Return how many rounds to make, and how many counted runs each subject gets in a round."""
    idle = sum(max(settling, cost) for cost in costs)
    rounds = _rounds(costs, plan, idle)
    wanted = [_wanted(cost, rounds, plan.samples, plan) for cost in costs]
    granted = share_out(max(plan.seconds / rounds - idle, 0.0), wanted)
    runs = [max(1, round(time / cost)) for time, cost in zip(granted, costs, strict=True)]
    return rounds, runs


def _rounds(costs: Sequence[float], plan: Plan, idle: float) -> int:
    """Return the most rounds that leave time for all samples; else, for the shortest blocks.

    Even, so that every order meets its reverse as often.
    """
    for samples in (plan.samples, 1):
        for rounds in range(plan.rounds // 2 * 2, LEAST_ROUNDS, -2):
            counted = sum(_wanted(cost, rounds, samples, plan) for cost in costs)
            if rounds * (idle + counted) <= plan.seconds:
                return rounds
    return LEAST_ROUNDS


def _wanted(cost: float, rounds: int, samples: int, plan: Plan) -> float:
    """Return how many seconds a block should count."""
    return max(math.ceil(samples / rounds) * cost, plan.block_runs * cost, plan.block_seconds)


def _time_rounds(
    subjects: Sequence[Subject], rounds: int, runs: Sequence[int], settling: float, bar: Bar
) -> list[list[np.ndarray]]:
    """Return, for each subject, one array of milliseconds a round."""
    blocks: list[list[np.ndarray]] = [[] for _ in subjects]
    for turn in range(rounds):
        for i in order_of(len(subjects), turn):
            blocks[i].append(time_block(subjects[i].run, runs[i], settling))
        bar.step()
    return blocks
