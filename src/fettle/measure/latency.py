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
OpenVINO, where the same session against itself showed none (on a busy machine). No number of
rounds averages that away. So a subject that brings `rebuild` is timed with several sessions, a few
rounds each, and `ratio` takes its interval from the spread between them.

Example:
    >>> subjects = [Subject("a", lambda: sum(range(99))), Subject("b", lambda: sum(range(999)))]
    >>> found = time_interleaved([*subjects, twin_of(subjects[0])], Plan(seconds=0.2))
    >>> slower, noise = ratio(found["b"], found["a"]), noise_in(found, "a")
    >>> answer = differs(slower, noise)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from fettle.core.errors import InputError
from fettle.core.progress import Reporter, Silent
from fettle.measure._plan import LEAST_ROUNDS, Plan, allot, settling_of
from fettle.measure._ratio import AGAIN, Ratio, differs, noise_in, ratio, too_noisy
from fettle.measure._rounds import Disturbance, Rounds, warm_up
from fettle.measure._samples import (
    LEAST_FOR_P99,
    PERCENTILES,
    Samples,
    median_latency,
    summary,
    throughput,
    throughput_interval,
)
from fettle.measure._timing import Run, collector_at_rest

__all__ = [
    "LEAST_FOR_P99",
    "LEAST_ROUNDS",
    "PERCENTILES",
    "Disturbance",
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
    """The samples of one call by label, and in `interference` what disturbed it."""

    def __init__(self, samples: Mapping[str, Samples], interference: Disturbance) -> None:
        super().__init__(samples)
        self.interference = interference


def time_interleaved(
    subjects: Sequence[Subject], plan: Plan | None = None, progress: Reporter | None = None
) -> Timing:
    """Time all subjects against each other and return their samples by label.

    Each round holds one block of every subject; all subjects get equally many rounds, so that
    `ratio` can pair them. Rounds in which other programs, the hypervisor or a throttled processor
    got in the way are thrown away and taken again while the plan's patience lasts; what remains
    is told in the result's `interference`. What a subject raises passes through.

    Raises:
        InputError: no subject, or two with the same label.
    """
    _check(subjects)
    plan, watch = plan or Plan(), progress or Silent()
    settling = settling_of([subject.threads for subject in subjects], plan)
    with collector_at_rest():
        costs = [warm_up(subject.run, plan) for subject in subjects]
        count, runs = allot(costs, plan, settling)
        rounds = Rounds(subjects, plan, runs, settling)
        with watch.bar("timing", count) as bar:
            for kept in rounds.take(count):
                bar.step(amount=kept)
    return Timing(_samples(subjects, rounds), rounds.told())


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


def _samples(subjects: Sequence[Subject], rounds: Rounds) -> dict[str, Samples]:
    found = {}
    for subject, blocks in zip(subjects, rounds.blocks, strict=True):
        builds = tuple(rounds.builds) if subject.rebuild else ()
        found[subject.label] = Samples(
            subject.label, subject.batch, subject.threads, tuple(blocks), builds
        )
    return found


def _check(subjects: Sequence[Subject]) -> None:
    labels = [subject.label for subject in subjects]
    if not labels or len(set(labels)) < len(labels):
        raise InputError(f"timing expects subjects with distinct labels, got {labels}")
