"""The rounds of one timing: whose turn it is, with which build, and what to do once more."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from fettle.measure._interference import Interference, Reading, between, read
from fettle.measure._plan import Plan
from fettle.measure._timing import Run, order_of, settle, time_block

_SPELL_SECONDS = 0.5  # the kernel counts processor time in steps of 10 ms
_LEAST_WARM_RUNS = 3


class Timed(Protocol):
    """What the rounds need of a subject."""

    @property
    def run(self) -> Run:
        """Make one request."""

    @property
    def rebuild(self) -> Callable[[], Run] | None:
        """Return the `run` of another session."""


@dataclass(frozen=True)
class Disturbance:
    """What disturbed a timing: of `rounds` counted ones `disturbed` could not be made up for.

    `repeated` rounds were thrown away and made again. `record` covers the whole time, and
    `reasons` tell what was seen in the rounds that still count.
    """

    rounds: int
    disturbed: int
    repeated: int
    record: Interference
    reasons: tuple[str, ...] = ()

    @property
    def warning(self) -> str | None:
        """Say what is wrong with the numbers, or None when every counted round was quiet."""
        if not self.disturbed:
            return None
        return (
            f"{self.disturbed} of {self.rounds} rounds were disturbed, after {self.repeated} were"
            f" repeated in vain: {self.reasons[-1]}"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            **self.record.to_json(),
            "rounds": self.rounds,
            "disturbed": self.disturbed,
            "repeated": self.repeated,
            "warning": self.warning,
        }


class Rounds:
    """Takes rounds in spells; a spell that was disturbed is taken again while patience lasts."""

    def __init__(
        self,
        subjects: Sequence[Timed],
        plan: Plan,
        counts: Sequence[int],
        settling: float,
        look: Callable[[], Reading] | None = None,
    ) -> None:
        self.subjects, self.plan, self.counts, self.settling = subjects, plan, counts, settling
        self.look = look or read
        self.runs = [subject.run for subject in subjects]
        self.blocks: list[list[np.ndarray]] = [[] for _ in subjects]
        self.builds: list[int] = []
        self.patience = plan.patience * plan.seconds
        self.repeated = self.disturbed = 0
        self.reasons: list[str] = []

    def take(self, rounds: int) -> Iterator[int]:
        """Take all rounds; yield how many more count, each time that some do."""
        self.opened = self.look()
        for number in range(self.plan.builds):
            todo = [turn for turn in range(rounds) if self.plan.build_of(turn, rounds) == number]
            if number and todo and any(subject.rebuild for subject in self.subjects):
                self._rebuild()
            while todo:
                kept = self._spell(todo, number)
                todo = todo[kept:]
                yield kept

    def told(self) -> Disturbance:
        """Return what disturbed the rounds taken so far."""
        record = between(self.opened, self.look())
        rounds = len(self.builds)
        return Disturbance(rounds, self.disturbed, self.repeated, record, tuple(self.reasons))

    def _spell(self, turns: Sequence[int], number: int) -> int:
        """Take rounds until enough time has passed to judge them; return how many count."""
        before = after = self.look()
        taken: list[list[np.ndarray]] = []
        for turn in turns:
            taken.append(self._round(turn))
            after = self.look()
            if after.at - before.at >= _SPELL_SECONDS:
                break
        seen = between(before, after)
        reason = seen.warning if seen.seconds >= _SPELL_SECONDS / 2 else None
        if reason and self.patience >= seen.seconds:
            self.patience -= seen.seconds
            self.repeated += len(taken)
            return 0
        self._keep(taken, number, reason)
        return len(taken)

    def _round(self, turn: int) -> list[np.ndarray]:
        """Return one block of every subject, in the order of subjects."""
        blocks = [np.empty(0)] * len(self.subjects)
        for i in order_of(len(self.subjects), turn):
            blocks[i] = time_block(self.runs[i], self.counts[i], self.settling)
        return blocks

    def _keep(self, taken: Sequence[Sequence[np.ndarray]], number: int, reason: str | None) -> None:
        for blocks in taken:
            for kept, block in zip(self.blocks, blocks, strict=True):
                kept.append(block)
        self.builds += [number] * len(taken)
        if reason:
            self.disturbed += len(taken)
            self.reasons.append(reason)

    def _rebuild(self) -> None:
        """Give each subject its next session.

        Its last one still lives while that is built, so that the next can't come to lie in the
        same place.
        """
        gc.collect()  # a session in a cycle would otherwise stay, as the collector rests
        for i, subject in enumerate(self.subjects):
            if subject.rebuild:
                self.runs[i] = subject.rebuild()
                warm_up(self.runs[i], self.plan)


def warm_up(run: Run, plan: Plan) -> float:
    """Run until warm; return what one run costs in seconds."""
    spent = settle(run, plan.warmup_seconds, at_least=_LEAST_WARM_RUNS)
    return max(float(np.median(spent[len(spent) // 2 :])), 1e-9)
