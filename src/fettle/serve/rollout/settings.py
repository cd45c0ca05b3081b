"""How a rollout is run: each option declared once, with its bounds and its meaning."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fettle.core.errors import InputError
from fettle.core.knobs import Range, Text
from fettle.serve.settings import check_knobs

_BUNDLE = Text("[NAME=]BUNDLE")


@dataclass(frozen=True)
class RolloutSettings:
    """A shadow, an A/B split or a canary; '' leaves each out. A shadow goes with either.

    Raises:
        KnobError: a knob out of its bounds.
        InputError: an A/B split and a canary at once, or steps that aren't shares that grow.
    """

    shadow: Annotated[str, _BUNDLE, "bundle that answers a sample again, for comparison only"] = ""
    ab: Annotated[str, _BUNDLE, "bundle that answers a share of the callers, to be compared"] = ""
    split: Annotated[float, Range(0, 1), "share of the callers that --ab answers"] = 0.1
    canary: Annotated[
        str, _BUNDLE, "bundle that takes over step by step, and is rolled back where it fails"
    ] = ""
    canary_steps: Annotated[
        str, Text("SHARE,…"), "shares of the callers; after the last it answers all"
    ] = "0.01,0.1,0.5"
    canary_least: Annotated[
        int, Range(1, 1 << 40), "requests that a canary answers at each step, at least"
    ] = 100
    canary_disagreement: Annotated[
        float, Range(0, 1), "share of answers in which a canary may differ"
    ] = 0.05
    canary_errors: Annotated[
        float, Range(0, 1), "how much more often a canary's requests may fail"
    ] = 0.01
    canary_p99_ms: Annotated[
        float | None,
        Range(0.001, 1e9),
        "what a canary's p99 may be, in ms; none doesn't look at it",
    ] = None
    shadow_sample: Annotated[
        float, Range(0, 1), "share of requests that are answered twice, to be compared"
    ] = 0.1
    shadow_busy: Annotated[
        float, Range(0.001, 1), "share of the time that one thread may be at comparing"
    ] = 0.25
    tolerance: Annotated[
        float,
        Range(0, 1e9),
        "relative difference past which outputs that aren't classes disagree",
    ] = 0.05
    rollout_confidence: Annotated[
        float, Range(0.5, 0.999999), "with which all decisions of a rollout together hold"
    ] = 0.95
    salt: Annotated[str, Text("TEXT"), "another one assigns callers anew"] = "fettle"
    decisions: Path | None = None

    def __post_init__(self) -> None:
        check_knobs(self)
        if self.ab and self.canary:
            raise InputError(
                "`--ab` and `--canary` both say who answers: give one, or a server for each"
            )
        _ = self.steps

    @property
    def steps(self) -> tuple[float, ...]:
        """The canary's shares, growing; 0 compares before anyone is answered by it."""
        try:
            found = tuple(float(part) for part in self.canary_steps.split(","))
        except ValueError:
            found = ()
        rising = all(a < b for a, b in itertools.pairwise(found))
        if not found or not rising or not (found[0] >= 0 and found[-1] < 1):
            raise InputError(
                "`canary_steps` expects growing shares from 0 to below 1, like 0.01,0.1,0.5; got"
                f" {self.canary_steps!r}"
            )
        return found

    @property
    def alpha(self) -> float:
        """The chance that any of a rollout's decisions is wrong."""
        return 1 - self.rollout_confidence

    @property
    def wanted(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.shadow or self.ab or self.canary)
