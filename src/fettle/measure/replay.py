"""Replay: does this processor compute what the bundle was proven with?

One INT8 file gives other answers on a processor without VNNI, or with another engine's version.
The golden inputs and outputs in a bundle were taken from the session that was proven, with the
tolerance that the model's own rounding asks for.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fettle.core.arrays import Arrays, repeat_to, rows
from fettle.core.bundle import Bundle
from fettle.measure.lowering import Limits, distance
from fettle.measure.quality import run_batch
from fettle.runtimes import Session


@dataclass(frozen=True)
class Replay:
    """How far a session strays from outputs that it should give, over `n` examples.

    `mean_difference` is over the mean absolute output; `flips` is the share of examples whose
    largest output moved. `refused` says how they leave the limits, None when they don't.
    """

    mean_difference: float
    flips: float
    n: int
    refused: str | None

    @property
    def passed(self) -> bool:
        """Whether the outputs lie within the limits."""
        return self.refused is None

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form; a difference that is no finite number is null there."""
        plain = asdict(self)
        if not np.isfinite(self.mean_difference):
            plain["mean_difference"] = None
        return plain


def limits_in(bundle: Bundle) -> Limits:
    """Return the tolerance that a bundle asks for; the usual one where it names none."""
    golden, usual = bundle.manifest.golden, Limits()
    flips = 1 - golden["agreement"] if "agreement" in golden else usual.flips
    return Limits(golden.get("mean_difference", usual.mean_difference), flips)


def replay(session: Session, bundle: Bundle) -> Replay:
    """Run the golden inputs of `bundle` and compare with the golden outputs.

    Raises:
        BundleError: the bundle's golden examples can't be read.
        InputError: the session doesn't take the bundle's inputs.
    """
    inputs, expected = bundle.golden()
    return compared(expected, run_batch(session, inputs), limits_in(bundle))


def replay_batch(session: Session, bundle: Bundle, size: int) -> Replay:
    """Run golden inputs in whole batches of `size`, and compare with what they give one by one.

    Raises:
        BundleError, InputError: as `replay`.
    """
    inputs, _ = bundle.golden()
    n = _length(inputs)
    whole = -(-n // size) * size
    singles = _in_batches(session, inputs, 1)
    found = _in_batches(session, repeat_to(inputs, whole), size)
    return compared(repeat_to(singles, whole), found, limits_in(bundle))


def compared(expected: Arrays, found: Arrays, limits: Limits) -> Replay:
    """Compare the first outputs, batch first, of the same examples."""
    difference, flips = distance(expected, found)
    return Replay(difference, flips, _length(expected), limits.refuse(expected, found))


def _in_batches(session: Session, inputs: Arrays, size: int) -> Arrays:
    starts = range(0, _length(inputs), size)
    answers = [run_batch(session, rows(inputs, at, at + size)) for at in starts]
    return {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}


def _length(arrays: Arrays) -> int:
    return len(next(iter(arrays.values())))
