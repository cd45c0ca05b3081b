"""Which lowering passes help here: each proves itself on real inputs and in time, or is left out.

A lowering rewrites the int8 master for one engine and processor. It is accepted when the lowered
session is faster and as faithful as can be asked. Two int8 kernels round ties apart in every layer,
and how far that moves the outputs is the model's own affair: a network with flat logits answers
half a quantization step at its input with flips of its top-1. So the yardstick is taken from the
model itself: a rewrite may move the outputs as far as twice what such a half step does, or by a
tenth of their size, whichever is more.

Two sessions of one file differ by luck of memory, by 5 to 8 % in INT8 on OpenVINO. So each side is
built several times while it is timed, and only a gain that stands out from that luck is accepted:
of rewrites that gain nothing, each look accepts one in forty.

A pass whose class says `always` keeps the engine from changing what the model says. It is taken
wherever it finds something to rewrite, for no speed.

A pass that gains nothing alone may pay with those that build on it. So what was refused for its
speed only is tried once more, all together.

Then the groups of layers that are slower in INT8 than in float on this engine are looked for in its
own profile, tried in truth, and left in float where the whole model gains from it.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fettle.core.arrays import Arrays, rows
from fettle.core.errors import FettleError
from fettle.core.machine import this_machine
from fettle.core.progress import Bar, Reporter, Silent
from fettle.core.shelf import PASSES
from fettle.measure._lowered_forms import Forms
from fettle.measure._slow_layers import layers_of, suspects
from fettle.measure._timing import Run
from fettle.measure.latency import Plan, Ratio, Subject, ratio, time_interleaved
from fettle.measure.quality import run_batch
from fettle.runtimes import LayerTime, Runtime, Session

MOST_DIFFERENCE = 0.1  # mean absolute difference over mean absolute output
MOST_FLIPS = 0.05  # share of examples whose top-1 changes
_FLOAT = "graph.lower_float"
LEAST_AGREEMENT = 1 - MOST_FLIPS
_PLAN = Plan(seconds=1.5, rounds=8, samples=200, settle_seconds=0.02, warmup_seconds=0.05, builds=4)


@dataclass(frozen=True)
class Trial:
    """What was found out about one lowering pass."""

    name: str
    accepted: bool
    reason: str
    strayed: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"name": self.name, "accepted": self.accepted, "reason": self.reason}


@dataclass(frozen=True)
class _Ground:
    """On what lowerings are tried: a master's forms, by one runtime, with real inputs."""

    forms: Forms
    runtime: Runtime
    inputs: Arrays
    plan: Plan = _PLAN

    @property
    def longer(self) -> Plan:
        """How what stayed undecided is timed again."""
        return replace(self.plan, seconds=3 * self.plan.seconds, rounds=18, builds=6)

    def build(self, steps: Sequence[str]) -> Session:
        """Return a new session of the lowered graph."""
        return self.runtime.build(self.forms.path(steps))

    def subject(self, label: str, steps: Sequence[str], session: Session) -> Subject:
        """Return what is timed: `session` first, then new ones of the same graph."""

        def rebuild() -> Run:
            return partial(run_batch, self.build(steps), self.inputs)

        return Subject(label, partial(run_batch, session, self.inputs), rebuild=rebuild)


def choose_lowering(
    model: Path,
    runtime: Runtime,
    inputs: Arrays,
    seconds: float = _PLAN.seconds,
    progress: Reporter | None = None,
) -> tuple[tuple[str, ...], list[Trial]]:
    """Return the names of the passes that help `runtime` run `model`, and why for each tried.

    Args:
        model: the ONNX master.
        runtime: who runs it.
        inputs: real inputs, batch first, to prove the rewrites on.
        seconds: to time a pass for, at most; three times as long where that leaves it undecided.
        progress: is told of every pass tried, and may stop the rest by raising.
    """
    plan = replace(_PLAN, seconds=min(seconds, _PLAN.seconds))
    with tempfile.TemporaryDirectory(prefix="fettle-lowering-") as folder:
        ground = _Ground(Forms(model, Path(folder)), runtime, inputs, plan)
        with (progress or Silent()).bar("lower", len(candidates(runtime))) as bar:
            return _choose(ground, bar)


def _choose(ground: _Ground, bar: Bar) -> tuple[tuple[str, ...], list[Trial]]:
    names = candidates(ground.runtime)
    accepted: tuple[str, ...] = ()
    trials = []
    # in the order of their names, in which a pass may build on those before it
    for name in names:
        look = _need if _is_meant(name) else _try
        trial = look(ground, accepted, (*accepted, name))
        trials.append(trial)
        bar.step(name)
        if trial.accepted:
            accepted = (*accepted, name)
    unfaithful = {trial.name for trial in trials if trial.strayed}
    together = _effective(ground.forms, [name for name in names if name not in unfaithful])
    if set(together) > set(accepted):
        trials.append(_try(ground, accepted, together))
        accepted = together if trials[-1].accepted else accepted
    kept, more = _leave_slow_alone(ground, accepted, bar)
    return kept, [*trials, *more]


def _effective(forms: Forms, names: Sequence[str]) -> tuple[str, ...]:
    """Return those of the passes that change something, each after the ones before it."""
    found: tuple[str, ...] = ()
    for name in names:
        with contextlib.suppress(FettleError):
            if forms.digest((*found, name)) != forms.digest(found):
                found = (*found, name)
    return found


def _leave_slow_alone(
    ground: _Ground, accepted: tuple[str, ...], bar: Bar
) -> tuple[tuple[str, ...], list[Trial]]:
    """Turn back to float what is slower in INT8 here, where the whole model gains from it.

    Several groups share one `graph.lower_float`, which comes first: it works on the master.
    """
    slow: list[str] = []
    trials = []
    current = accepted
    for group in _suspected(ground, accepted):
        step = f"{_FLOAT}(nodes={','.join([*slow, *group])!r})"
        after = _effective(ground.forms, _with_meant(ground.runtime, step, accepted))
        trial = _try(ground, current, after)
        trials.append(trial)
        bar.step("slow layers", 0)
        if trial.accepted:
            slow += group
            current = after
    return current, trials


def _with_meant(runtime: Runtime, step: str, accepted: Sequence[str]) -> list[str]:
    """Return `step` and the lowering after it, with the passes that keep what it says."""
    names = {*accepted, *meant(runtime)}
    return [step, *(name for name in candidates(runtime) if name in names)]


def meant(runtime: Runtime) -> tuple[str, ...]:
    """Return the passes that keep `runtime` from changing what a model says."""
    return tuple(name for name in candidates(runtime) if _is_meant(name))


def _is_meant(name: str) -> bool:
    """Say whether a pass is applied for what the model means, whatever it costs."""
    return name in PASSES.names() and bool(getattr(PASSES.load(name), "always", False))


def _suspected(ground: _Ground, accepted: tuple[str, ...]) -> list[list[str]]:
    """Return the layers of each group that may be slower in INT8, the worst group first."""
    layers = layers_of(ground.forms.model)
    everything = f"{_FLOAT}(nodes={','.join(layer.output for layer in layers)!r})"
    try:
        integer, plain = (_times(ground, steps) for steps in (accepted, (everything,)))
    except FettleError:  # a name that no knob can hold, or a graph that has another shape
        return []
    found = suspects(integer, plain, layers)
    return [[layer.output for layer in layers[s.first : s.last + 1]] for s in found]


def _times(ground: _Ground, steps: Sequence[str]) -> list[LayerTime]:
    session = ground.build(steps)
    try:
        return session.layer_times(rows(ground.inputs, 0, 1))
    finally:
        session.close()


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


def _try(ground: _Ground, before: Sequence[str], after: Sequence[str]) -> Trial:
    """Try the lowering `after` against `before`, and name the steps that are new in it."""
    name = " + ".join(step for step in after if step not in before)
    forms = ground.forms
    try:
        if forms.digest(before) == forms.digest(after):
            return Trial(name, False, "finds nothing to rewrite")
        plain, other = (ground.build(steps) for steps in (before, after))
    except FettleError as error:
        return Trial(name, False, f"does not apply: {error}")
    try:
        strayed = _strayed(plain, other, ground.inputs)
        if strayed:
            return Trial(name, False, strayed, strayed=True)
        subjects = [ground.subject("plain", before, plain), ground.subject("lowered", after, other)]
        return _faster(name, subjects, ground)
    finally:
        plain.close()
        other.close()


def _need(ground: _Ground, before: Sequence[str], after: Sequence[str]) -> Trial:
    """Take a pass that keeps to the model what the engine would change, if it can be built."""
    name = " + ".join(step for step in after if step not in before)
    try:
        if ground.forms.digest(before) == ground.forms.digest(after):
            return Trial(name, False, "finds nothing to rewrite")
        ground.build(after).close()
    except FettleError as error:
        return Trial(name, False, f"does not apply: {error}")
    return Trial(name, True, "keeps in float what the model leaves there, whatever it costs")


def _strayed(plain: Session, other: Session, inputs: Arrays) -> str | None:
    """Return how the lowered session's outputs leave the limits, or None."""
    expected, found = (run_batch(session, inputs) for session in (plain, other))
    return limits_of(plain, inputs, expected).refuse(expected, found)


def _faster(name: str, subjects: Sequence[Subject], ground: _Ground) -> Trial:
    gain = _gain(subjects, ground.plan)
    if gain.low <= 1 < gain.value:  # undecided by luck or a busy machine: look longer
        gain = _gain(subjects, ground.longer)
    return Trial(
        name,
        gain.low > 1,
        f"{gain.value:.2f}× [{gain.low:.2f}, {gain.high:.2f}] the unlowered speed",
    )


def _gain(subjects: Sequence[Subject], plan: Plan) -> Ratio:
    samples = time_interleaved(subjects, plan)
    return ratio(samples["plain"], samples["lowered"])


@dataclass(frozen=True)
class Limits:
    """How far outputs may stray and still count as the same model's.

    `mean_difference` is relative to the mean absolute output; `flips` is a share of examples.
    """

    mean_difference: float = MOST_DIFFERENCE
    flips: float = MOST_FLIPS

    def refuse(self, expected: Arrays, found: Arrays) -> str | None:
        """Return how `found` strays from `expected` (first output, batch first), or None."""
        difference, flips = distance(expected, found)
        if difference <= self.mean_difference and flips <= self.flips:
            return None
        return (
            f"computes something else: mean difference {difference:.2g} of the mean output (limit"
            f" {self.mean_difference:.2g}), top-1 changed in {flips:.1%} (limit {self.flips:.1%})"
        )

    def to_json(self) -> dict[str, float]:
        """Return the JSON form."""
        return asdict(self)


def limits_of(session: Session, inputs: Arrays, outputs: Arrays) -> Limits:
    """Return the limits for a quantized model that gives `outputs` for `inputs`.

    Half a quantization step of noise is added to the floating-point inputs; what that does to the
    outputs is doubled, and one example is given for good measure.
    """
    rng = np.random.default_rng(0)
    moved = {name: _half_a_step_off(array, rng) for name, array in inputs.items()}
    difference, flips = distance(outputs, run_batch(session, moved))
    one = 1 / len(next(iter(outputs.values())))
    return Limits(max(MOST_DIFFERENCE, 2 * difference), max(MOST_FLIPS, 2 * flips) + one)


def _half_a_step_off(array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if not np.issubdtype(array.dtype, np.floating):
        return array
    step = np.abs(array).max() / 127
    return np.asarray(array + step * rng.uniform(-0.5, 0.5, array.shape), dtype=array.dtype)


def distance(expected: Arrays, found: Arrays) -> tuple[float, float]:
    """Return the relative mean difference of the first output, and the share of changed top-1."""
    a, b = (next(iter(arrays.values())) for arrays in (expected, found))
    scale = float(np.abs(a).mean()) or 1.0
    flat = (len(a), -1)
    flips = a.reshape(flat).argmax(1) != b.reshape(flat).argmax(1)
    return float(np.abs(a - b).mean()) / scale, float(flips.mean())
