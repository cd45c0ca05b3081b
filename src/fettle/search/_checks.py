"""The single checks of the pre-deployment checklist; each gives one row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from fettle import measure
from fettle.core.arrays import Arrays, repeat_to
from fettle.core.bundle import Bundle
from fettle.core.errors import FettleError
from fettle.core.progress import Reporter
from fettle.measure.replay import replay, replay_batch
from fettle.runtimes import Runtime, Session, match_inputs

if TYPE_CHECKING:
    from fettle.tasks import Task

Row = dict[str, Any]
DISTANCE = 0.2  # Kolmogorov and Smirnov's, past which samples are of another kind
_ENOUGH = 2000  # examples that are compared with the reference
_ENDS: dict[str, Callable[[np.ndarray], float]] = {
    "lowest": np.min,
    "highest": np.max,
    "zero": lambda _: 0.0,
}
_SURE = 1.63  # the quantile of Kolmogorov's distribution at 1 %


@dataclass(frozen=True)
class Ground:
    """What is checked: a bundle, open on this machine, on the data that it is meant for."""

    bundle: Bundle
    runtime: Runtime
    lowering: tuple[str, ...]
    session: Session
    task: Task

    def artifact(self, batch: int) -> measure.Artifact:
        """What a process of its own is given to measure."""
        return measure.Artifact(self.bundle.model_path, self.runtime, self.lowering, batch=batch)

    def reference(self) -> Arrays:
        """Return the inputs of the bundle's reference sample under the session's names."""
        named = self.bundle.reference()
        inputs = {k.removeprefix("input/"): v for k, v in named.items() if k.startswith("input/")}
        return match_inputs(self.session.inputs, inputs)

    def inputs(self, batch: int) -> Arrays:
        """Return real inputs of a batch."""
        return repeat_to(self.bundle.golden()[0], batch)


def row(name: str, passed: bool | None, text: str, **more: Any) -> Row:
    """Return one row; `passed` is None where there is nothing to hold a number against."""
    return {"name": name, "passed": passed, "text": text, **more}


def proven(bundle: Bundle) -> Row:
    """Check that the bundle's own verdict is a pass."""
    outcome = (bundle.manifest.verdict or {}).get("outcome", "none")
    return row("verdict", outcome == "pass", f"the study's verdict is {outcome}", outcome=outcome)


def golden(ground: Ground) -> Row:
    """Check that this processor computes what was proven."""
    found = replay(ground.session, ground.bundle)
    text = found.refused or f"{found.n} golden outputs are met on this processor"
    return row("golden", found.passed, text, **found.to_json())


def accuracy(ground: Ground) -> Row:
    """Check the metric on the data's `test` split against what the budget allows.

    On the examples of the proof the value itself has to lie within the budget, for the bound was
    proven on them; on others its interval has to, and may be too wide to tell.
    """
    task, manifest = ground.task, ground.bundle.manifest
    if task.needs_original:
        return row("accuracy", None, f"`{task.metric}` is judged by the original, not by labels")
    found = measure.mean_score(measure.scores_of(ground.session, task, "test"), task.metric)
    least = _least(manifest.verdict, manifest.measurements)
    same = task.fingerprint("test") == manifest.data.get("fingerprints", {}).get("test")
    told = f"{task.metric} {found.value:.4g} [{found.low:.4g}, {found.high:.4g}], n = {found.n}"
    numbers = {**found.to_json(), "metric": task.metric, "least": least, "same_examples": same}
    numbers.pop("name")
    if least is None:
        return row("accuracy", None, f"{told}; the bundle names no budget", **numbers)
    passed = found.value >= least if same else _within(found.low, found.high, least)
    return row("accuracy", passed, f"{told}; at least {least:.4g} is asked for", **numbers)


def representative(ground: Ground) -> Row:
    """Check that the data looks like what the bundle was calibrated with.

    The mean and the standard deviation of each example, input by input, in both samples, by the
    distance of Kolmogorov and Smirnov, less what chance explains at 1 %.
    """
    batch = next(iter(ground.task.batches("test", _ENOUGH)))
    reference = ground.reference()
    inputs = match_inputs(ground.session.inputs, batch.inputs)
    found = (_apart(_moments(array), _moments(reference[name])) for name, array in inputs.items())
    worst = max(found, default=0.0)
    text = f"inputs lie {worst:.2f} from the reference (0: alike, 1: apart; limit {DISTANCE})"
    return row("representative", worst <= DISTANCE, text, distance=worst, limit=DISTANCE)


def edges(ground: Ground) -> Row:
    """Check that inputs at the ends of the reference's ranges give finite outputs.

    Floating-point inputs alone: token ids and masks stay as they are.
    """
    reference = ground.reference()
    failed = [name for name, end in _ENDS.items() if not _finite(ground, reference, end)]
    text = f"not finite: {', '.join(failed)}" if failed else "lowest, highest and zero are answered"
    return row("edges", not failed, text, failed=failed)


def batches(ground: Ground, most: int) -> Row:
    """Find the batch sizes, 1 … `most`, whose outputs are those of single examples."""
    fixed = measure.fixed_batch(ground.session)
    sizes = [fixed] if fixed else [2**i for i in range(most.bit_length()) if 2**i <= most]
    if most not in sizes and not fixed:
        sizes.append(most)
    refused = {size: _refusal(ground, size) for size in sizes}
    good = [size for size, why in refused.items() if why is None]
    bad = [f"batch {size}: {why}" for size, why in refused.items() if why is not None]
    text = "; ".join([f"batches of {', '.join(map(str, good)) or 'no size'} agree", *bad])
    return row("batches", not bad, text, sizes=good)


def latencies(
    ground: Ground, sizes: Sequence[int], seconds: float, progress: Reporter
) -> dict[int, Row]:
    """Time each batch size, interleaved; return p50 … p99 of each in milliseconds."""
    subjects = [
        measure.Subject(
            f"batch {size}",
            partial(measure.run_batch, ground.session, ground.inputs(size)),
            batch=size,
            threads=ground.runtime.threads,
        )
        for size in sizes
    ]
    timing = measure.time_interleaved(subjects, measure.Plan(seconds=seconds), progress)
    return {size: measure.summary(timing[f"batch {size}"]) for size in sizes}


def memory(ground: Ground, batch: int, limit_bytes: float | None) -> Row:
    """Measure a fresh process that serves the largest batch."""
    try:
        peak = measure.peak_memory(ground.artifact(batch)).peak_bytes
    except FettleError as error:
        return row("memory", False, f"batch {batch} can't be served: {error}", batch=batch)
    text = f"{peak / 2**20:.0f} MiB at batch {batch}, the interpreter included"
    passed = None if limit_bytes is None else peak <= limit_bytes
    if limit_bytes is not None:
        text += f"; at most {limit_bytes / 2**20:.0f} MiB is asked for"
    return row("memory", passed, text, peak_bytes=peak, batch=batch, limit_bytes=limit_bytes)


def _least(verdict: Any, measurements: Any) -> float | None:
    baseline = measurements.get("baseline", {}).get("metric") or {}
    if not verdict or "value" not in baseline:
        return None
    return float(baseline["value"]) - float(verdict["budget"]["max_drop"])


def _within(low: float, high: float, least: float) -> bool | None:
    if low >= least:
        return True
    return False if high < least else None


def _moments(array: np.ndarray) -> np.ndarray:
    flat = array.reshape(len(array), -1).astype(np.float64)
    return np.stack([flat.mean(axis=1), flat.std(axis=1)])


def _apart(a: np.ndarray, b: np.ndarray) -> float:
    from scipy import stats

    chance = _SURE * float(np.sqrt(1 / a.shape[1] + 1 / b.shape[1]))
    found = [float(stats.ks_2samp(x, y).statistic) for x, y in zip(a, b, strict=True)]
    return max(0.0, max(found) - chance)


def _finite(ground: Ground, reference: Arrays, end: Callable[[np.ndarray], float]) -> bool:
    inputs = {
        name: np.full_like(array[:1], end(array)) if array.dtype.kind == "f" else array[:1]
        for name, array in reference.items()
    }
    outputs = measure.run_batch(ground.session, inputs)
    return all(np.isfinite(array).all() for array in outputs.values())


def _refusal(ground: Ground, size: int) -> str | None:
    try:
        return replay_batch(ground.session, ground.bundle, size).refused
    except FettleError as error:
        return str(error)
