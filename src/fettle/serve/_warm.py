"""Warm-up: every batch size is run, held against single examples, and timed before it is used.

Whoever shares a batch must not be able to change a neighbour's answer. In a model that takes a
scale over the whole batch (dynamic quantization), one extreme row coarsens the others; so a row is
made extreme on purpose, and where the others move, requests of different callers never share.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from fettle.core.arrays import Arrays, TensorSpec, repeat_to, rows
from fettle.core.bundle import Bundle
from fettle.core.errors import FettleError
from fettle.measure import fixed_batch, run_batch
from fettle.measure.lowering import Limits
from fettle.measure.replay import compared, limits_in
from fettle.runtimes import Session, match_inputs
from fettle.serve._packing import Sizes, rows_of

LARGEST_TRIED = 64
_EXTREME = 1000.0  # times the largest number of the golden inputs
_LONGEST_S = 1.0  # larger sizes than one that takes so long aren't tried
_RUNS = 5
_TIMED_S = 0.05  # for one size


@dataclass(frozen=True)
class Warm:
    """What was found out: sizes that agree, why others don't, and whether callers may share."""

    sizes: Sizes
    shared: bool = True
    refused: Mapping[int, str] = field(default_factory=dict)


def proven_sizes(checks: Sequence[Mapping[str, object]]) -> tuple[int, ...] | None:
    """Return the batch sizes that a bundle's checklist proved; None where it proved none."""
    for check in checks:
        sizes = check.get("sizes")
        if check.get("name") == "batches" and isinstance(sizes, list):
            return tuple(sorted(int(size) for size in sizes))
    return None


def warm_up(session: Session, bundle: Bundle, most: int | None = None) -> Warm:
    """Run the session at every batch size that it may be used at, at most `most` rows.

    Those of the checklist, or powers of two where the bundle was never checked; each has to answer
    as single examples do, within the bundle's tolerance, here and now.

    Raises:
        FettleError: the session can't run the golden inputs at all.
    """
    inputs = match_inputs(session.inputs, bundle.golden()[0])
    if not batched(session.inputs):
        run_batch(session, inputs)
        return Warm(Sizes(), shared=False)
    fixed = fixed_batch(session)
    singles = _in_batches(session, inputs, fixed or 1)
    proven = proven_sizes(bundle.manifest.checks)
    trial = _Trial(session, inputs, singles, limits_in(bundle))
    seconds, refused = trial.all((fixed,) if fixed else _candidates(proven, most))
    sizes = Sizes(tuple(sorted(seconds)), seconds)
    return Warm(sizes, trial.independent(sizes.largest), refused)


def batched(specs: Sequence[TensorSpec]) -> bool:
    """Say whether all inputs have rows in front, as many as each other."""
    leading = {spec.shape[0] if spec.shape else None for spec in specs}
    return len(leading) == 1 and None not in leading


@dataclass(frozen=True)
class _Trial:
    """A session, real inputs, and the answers that it gives to them one by one."""

    session: Session
    inputs: Arrays
    singles: Arrays
    limits: Limits

    def all(self, sizes: Sequence[int]) -> tuple[dict[int, float], dict[int, str]]:
        """Return the seconds that each good size takes, and why the others aren't."""
        seconds: dict[int, float] = {}
        refused: dict[int, str] = {}
        for size in sizes:
            why = self.refusal(size)
            if why is not None:
                refused[size] = why
                continue
            seconds[size] = self.time(size)
            if seconds[size] > _LONGEST_S:
                break
        return seconds, refused

    def refusal(self, size: int) -> str | None:
        """Return why batches of `size` don't answer as single examples do, or None."""
        n = -(-rows_of(self.inputs) // size) * size
        try:
            found = _in_batches(self.session, repeat_to(self.inputs, n), size)
        except (FettleError, ValueError, MemoryError) as error:
            return str(error) or type(error).__name__
        wrong = [name for name, array in found.items() if len(array) != n]
        if wrong:
            return f"output `{wrong[0]}` doesn't have a row for each of the input's"
        return compared(repeat_to(self.singles, n), found, self.limits).refused

    def time(self, size: int) -> float:
        """Return the seconds of the quickest of some runs."""
        batch = repeat_to(self.inputs, size)
        moments = [time.perf_counter()]
        while len(moments) <= _RUNS and moments[-1] - moments[0] < _TIMED_S:
            self.session.run(batch)
            moments.append(time.perf_counter())
        return min(after - before for before, after in pairwise(moments))

    def independent(self, size: int) -> bool:
        """Say whether the rows of a batch keep their answers beside an extreme one."""
        size = min(size, 8)
        if size < 2:
            return True
        batch = repeat_to(self.inputs, size)
        expected, found = self.session.run(batch), self._beside_extreme(batch)
        if found is None:
            return True  # what fails is run again alone
        before, after = (rows(outputs, 0, size - 1) for outputs in (expected, found))
        return compared(before, after, self.limits).passed

    def _beside_extreme(self, batch: Arrays) -> Arrays | None:
        try:
            return self.session.run({name: _last_extreme(array) for name, array in batch.items()})
        except FettleError:
            return None


def _candidates(proven: Sequence[int] | None, most: int | None) -> tuple[int, ...]:
    largest = most or LARGEST_TRIED
    if proven is not None:
        return tuple(size for size in proven if size <= largest)
    powers = [2**i for i in range(largest.bit_length()) if 2**i <= largest]
    return tuple(dict.fromkeys([*powers, largest]))


def _in_batches(session: Session, inputs: Arrays, size: int) -> Arrays:
    starts = range(0, rows_of(inputs), size)
    answers = [run_batch(session, rows(inputs, at, at + size)) for at in starts]
    return {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}


def _last_extreme(array: np.ndarray) -> np.ndarray:
    """Return a batch whose last row is far out: large numbers, or the lowest of token ids."""
    changed = array.copy()
    if array.dtype.kind == "f":
        peak = min(_EXTREME * float(np.abs(array).max()), float(np.finfo(array.dtype).max) / 2)
        changed[-1] = peak
    else:
        changed[-1] = array.min()
    return changed
