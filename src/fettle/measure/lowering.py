"""Which lowering passes help here: each proves itself on real inputs and in time, or is left out.

A lowering rewrites the int8 master for one engine and processor. It is accepted when the lowered
session agrees with the unlowered one as closely as two int8 kernels do, and is faster.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fettle.core.arrays import Arrays
from fettle.core.errors import FettleError
from fettle.core.machine import this_machine
from fettle.core.shelf import PASSES
from fettle.measure.latency import Plan, Subject, ratio, time_interleaved
from fettle.measure.quality import run_batch
from fettle.runtimes import Runtime, Session

# Two int8 kernels may round each layer's ties apart: as far as the quantization error itself.
MOST_DIFFERENCE = 0.1  # mean absolute difference over mean absolute output
LEAST_AGREEMENT = 0.95
_PLAN = Plan(seconds=1.5, rounds=6, samples=200, settle_seconds=0.02, warmup_seconds=0.05)


@dataclass(frozen=True)
class Trial:
    """What was found out about one lowering pass."""

    name: str
    accepted: bool
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"name": self.name, "accepted": self.accepted, "reason": self.reason}


def choose_lowering(
    model: Path, runtime: Runtime, inputs: Arrays
) -> tuple[tuple[str, ...], list[Trial]]:
    """Return the names of the passes that help `runtime` run `model`, and why for each tried.

    Args:
        model: the ONNX master.
        runtime: who runs it.
        inputs: real inputs, batch first, to prove the rewrites on.
    """
    accepted: tuple[str, ...] = ()
    trials = []
    for name in candidates(runtime):
        trial = _try(model, runtime, inputs, accepted, name)
        trials.append(trial)
        if trial.accepted:
            accepted = (*accepted, name)
    return accepted, trials


def candidates(runtime: Runtime) -> list[str]:
    """Return the lowering passes for `runtime` that suit this machine."""
    machine = this_machine()
    names = [n for n in PASSES.names() if n.startswith(PASSES.prefix + "lower_")]
    passes = [(name, PASSES.load(name)) for name in names]
    return [
        name
        for name, cls in passes
        if getattr(cls, "lowers_for", "") == runtime.name() and cls.suits(machine)  # type: ignore[attr-defined]
    ]


def _try(
    model: Path, runtime: Runtime, inputs: Arrays, accepted: Sequence[str], name: str
) -> Trial:
    try:
        plain, lowered = (runtime.build(model, names) for names in (accepted, [*accepted, name]))
    except FettleError as error:
        return Trial(name, False, f"does not apply: {error}")
    try:
        return _compare(name, plain, lowered, inputs)
    finally:
        plain.close()
        lowered.close()


def _compare(name: str, plain: Session, lowered: Session, inputs: Arrays) -> Trial:
    expected, found = (next(iter(run_batch(s, inputs).values())) for s in (plain, lowered))
    strayed = _strays(expected, found)
    if strayed:
        return Trial(name, False, strayed)
    subjects = [
        Subject("plain", partial(run_batch, plain, inputs)),
        Subject("lowered", partial(run_batch, lowered, inputs)),
    ]
    samples = time_interleaved(subjects, _PLAN)
    gain = ratio(samples["plain"], samples["lowered"])
    faster = gain.low > 1
    return Trial(
        name, faster, f"{gain.value:.2f}× [{gain.low:.2f}, {gain.high:.2f}] the unlowered speed"
    )


def _strays(expected: np.ndarray, found: np.ndarray) -> str | None:
    scale = float(np.abs(expected).mean()) or 1.0
    difference = float(np.abs(expected - found).mean()) / scale
    flat = (len(expected), -1)
    agree = (expected.reshape(flat).argmax(1) == found.reshape(flat).argmax(1)).mean()
    if difference <= MOST_DIFFERENCE and agree >= LEAST_AGREEMENT:
        return None
    return (
        f"computes something else: mean difference {difference:.2g} of the mean output (limit"
        f" {MOST_DIFFERENCE}), top-1 agreement {agree:.1%} (limit {LEAST_AGREEMENT:.0%})"
    )
