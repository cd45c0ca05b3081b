"""Latency, timed so that two numbers can be compared.

All subjects are timed in one process, interleaved: each takes its turn in a short block of
consecutive runs, and the order changes from round to round. Slow drifts of the machine (heat,
neighbours) then touch all subjects alike, and the ratio of two subjects within a round is freed
from them.

Blocks, not single runs, because thread pools keep spinning after a run: ONNX Runtime's burned
about 25 ms of processor time after each run (measured, 2 threads, `session.force_spinning_stop`
unset), which would be charged to whoever runs next. The start of each block is therefore run but
not counted.

Sessions of one model differ by where their memory came to lie: the standard deviation between
eight sessions of one file was 0.6 to 0.8 % for ResNet-20 in float and 5 to 8 % for INT8 networks in
OpenVINO, where the same session against itself showed none. No number of rounds averages that
away. So a subject that brings `rebuild` is timed with several sessions, a few rounds each, and
`ratio` takes its interval from the spread between them.

Example:
    >>> subjects = [Subject("a", lambda: sum(range(99))), Subject("b", lambda: sum(range(999)))]
    >>> found = time_interleaved([*subjects, twin_of(subjects[0])], Plan(seconds=0.2))
    >>> slower, noise = ratio(found["b"], found["a"]), noise_in(found, "a")
    >>> answer = differs(slower, noise)
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fettle.core.errors import InputError
from fettle.core.progress import Bar, Reporter, Silent
from fettle.measure._plan import LEAST_ROUNDS, Plan, allot, settling_of
from fettle.measure._ratio import AGAIN, Ratio, differs, noise_in, ratio, too_noisy
from fettle.measure._samples import (
    LEAST_FOR_P99,
    PERCENTILES,
    Samples,
    median_latency,
    summary,
    throughput,
    throughput_interval,
)
from fettle.measure._timing import Run, collector_at_rest, order_of, settle, time_block

__all__ = [
    "LEAST_FOR_P99",
    "LEAST_ROUNDS",
    "PERCENTILES",
    "Plan",
    "Ratio",
    "Samples",
    "Subject",
    "Timing",
    "differs",
    "median_latency",
    "noise",
    "noise_in",
    "ratio",
    "summary",
    "throughput",
    "throughput_interval",
    "time_interleaved",
    "too_noisy",
    "twin_of",
]
_LEAST_WARM_RUNS = 3


@dataclass(frozen=True)
class Subject:
    """Something to time: `run` makes one request of `batch` examples.

    `threads` is what its engine uses (0: all there are); it is reported, not set. `rebuild`, where
    given, builds another session of the same artifact and returns its `run`; the session should be
    held by nothing else, so that it goes when its time is over.
    """

    label: str
    run: Run
    batch: int = 1
    threads: int = 1
    rebuild: Callable[[], Run] | None = None

    def __post_init__(self) -> None:
        if self.batch < 1 or self.threads < 0:
            raise InputError(
                f"`{self.label}` expects batch >= 1 and threads >= 0,"
                f" got batch {self.batch}, threads {self.threads}"
            )


class Timing(dict[str, Samples]):
    """The samples of one call by label, and what disturbed it."""

    interference: str | None = None


def time_interleaved(
    subjects: Sequence[Subject], plan: Plan | None = None, progress: Reporter | None = None
) -> Timing:
    """Time all subjects against each other and return their samples by label.

    Each round holds one block of every subject; all subjects get equally many rounds, so that
    `ratio` can pair them. What a subject raises passes through.

    Raises:
        InputError: no subject, or two with the same label.
    """
    _check(subjects)
    plan, watch = plan or Plan(), progress or Silent()
    settling = settling_of([subject.threads for subject in subjects], plan)
    with collector_at_rest():
        costs = [_warm_up(subject.run, plan) for subject in subjects]
        rounds, runs = allot(costs, plan, settling)
        with watch.bar("timing", rounds) as bar:
            return _Rounds(subjects, plan, runs, settling).take(rounds, bar)


def twin_of(subject: Subject) -> Subject:
    """Return the same artifact under a second label, to be timed against itself.

    It has a session of its own where the subject can be rebuilt: one session against itself can't
    show what luck of memory does.
    """
    run = subject.rebuild() if subject.rebuild else subject.run
    return replace(subject, label=f"{subject.label}{AGAIN}", run=run)


def noise(subject: Subject, plan: Plan | None = None, progress: Reporter | None = None) -> Ratio:
    """Time a subject against itself: how far from 1 a ratio gets here for no reason."""
    samples = time_interleaved([subject, twin_of(subject)], plan, progress)
    return noise_in(samples, subject.label)


class _Rounds:
    """The rounds of one timing: whose turn it is, and with which build."""

    def __init__(
        self, subjects: Sequence[Subject], plan: Plan, counts: Sequence[int], settling: float
    ) -> None:
        self.subjects, self.plan, self.counts, self.settling = subjects, plan, counts, settling
        self.runs = [subject.run for subject in subjects]
        self.build = 0
        self.blocks: list[list[np.ndarray]] = [[] for _ in subjects]
        self.builds: list[int] = []

    def take(self, rounds: int, bar: Bar) -> Timing:
        for turn in range(rounds):
            self._rebuild(self.plan.build_of(turn, rounds))
            for i in order_of(len(self.subjects), turn):
                block = time_block(self.runs[i], self.counts[i], self.settling)
                self.blocks[i].append(block)
            self.builds.append(self.build)
            bar.step()
        return Timing(
            (s.label, Samples(s.label, s.batch, s.threads, tuple(blocks), self._builds_of(s)))
            for s, blocks in zip(self.subjects, self.blocks, strict=True)
        )

    def _rebuild(self, number: int) -> None:
        """Give each subject its next session; its last one still lives while that is built, so
        that the next can't come to lie in the same place.
        """
        if number == self.build:
            return
        self.build = number
        gc.collect()  # a session in a cycle would otherwise stay, as the collector rests
        for i, subject in enumerate(self.subjects):
            if subject.rebuild:
                self.runs[i] = subject.rebuild()
                _warm_up(self.runs[i], self.plan)

    def _builds_of(self, subject: Subject) -> tuple[int, ...]:
        return tuple(self.builds) if subject.rebuild else ()


def _check(subjects: Sequence[Subject]) -> None:
    labels = [subject.label for subject in subjects]
    if not labels or len(set(labels)) < len(labels):
        raise InputError(f"timing expects subjects with distinct labels, got {labels}")


def _warm_up(run: Run, plan: Plan) -> float:
    """Run until warm; return what one run costs in seconds."""
    spent = settle(run, plan.warmup_seconds, at_least=_LEAST_WARM_RUNS)
    return max(float(np.median(spent[len(spent) // 2 :])), 1e-9)
