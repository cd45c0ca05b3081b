"""Quality: what a running session scores on a task, example by example."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fettle.core.arrays import Arrays, Batch, Split, repeat_to, rows
from fettle.core.errors import DataError
from fettle.runtimes import Session

if TYPE_CHECKING:
    from fettle.tasks._task import Task


@dataclass(frozen=True)
class Agreement:
    """How alike two models answer the same `n` examples.

    `top1` is the share whose largest logit is in the same place; the differences are absolute,
    over all logits. An output that is no finite number agrees with nothing: it counts as an
    infinite difference.
    """

    top1: float
    max_abs: float
    mean_abs: float
    n: int

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form; an infinite difference is null there."""
        return {k: v if np.isfinite(v) else None for k, v in asdict(self).items()}


def scores_of(session: Session, task: Task, split: Split, batch_size: int = 64) -> np.ndarray:
    """Return what every example of a split adds to the metric, in its order, shape (n,), float64.

    Their mean is the metric: for most, these are the examples' scores. Two models scored on the
    same split are thus paired.

    Raises:
        DataError: the split is empty, or the task doesn't give one finite score an example.
    """
    found = [
        _checked(task.score(run_batch(session, batch.inputs), batch), batch)
        for batch in _batches(session, task, split, batch_size)
    ]
    if not found:
        raise DataError(f"the split `{split}` holds no examples, so there is nothing to score")
    return np.asarray(task.contributions(np.concatenate(found), split), dtype=np.float64)


def outputs_of(
    session: Session,
    task: Task,
    split: Split,
    batch_size: int = 64,
    limit: int | None = None,
) -> dict[str, np.ndarray]:
    """Return the outputs by name for a split (its first `limit` examples), batch first.

    Raises:
        DataError: the split is empty.
    """
    parts: list[Arrays] = []
    seen = 0
    for batch in _batches(session, task, split, batch_size):
        parts.append(run_batch(session, batch.inputs))
        seen += len(batch)
        if limit is not None and seen >= limit:
            break
    if not parts:
        raise DataError(f"the split `{split}` holds no examples, so there is nothing to run")
    return {name: np.concatenate([part[name] for part in parts])[:limit] for name in parts[0]}


def run_batch(session: Session, inputs: Arrays) -> Arrays:
    """Return the outputs for `inputs`, also when the model was exported with a fixed batch.

    Such a model gets whole batches; the last is filled by repeating rows, and their answers
    are dropped.
    """
    n, fixed = _length(inputs), fixed_batch(session)
    if fixed is None or n == fixed:
        return session.run(inputs)
    parts = [
        session.run(repeat_to(rows(inputs, at, at + fixed), fixed)) for at in range(0, n, fixed)
    ]
    return {name: np.concatenate([part[name] for part in parts])[:n] for name in parts[0]}


def agreement(outputs_a: Arrays, outputs_b: Arrays) -> Agreement:
    """Compare the first output of two models on the same examples, shape (n, classes, …).

    Raises:
        DataError: the shapes differ, or there is nothing to compare.
    """
    a, b = _first(outputs_a), _first(outputs_b)
    if a.shape != b.shape or a.size == 0 or a.ndim < 2:
        raise DataError(
            "agreement expects two outputs of the same shape (n, classes, …),"
            f" got {list(a.shape)} and {list(b.shape)}"
        )
    gap = _gap(a, b)
    sound = np.isfinite(gap).all(axis=1)
    same = (a.argmax(axis=1) == b.argmax(axis=1)) & sound
    return Agreement(float(same.mean()), float(gap.max()), float(gap.mean()), len(a))


def _first(outputs: Arrays) -> np.ndarray:
    return np.asarray(next(iter(outputs.values()), np.empty(0)))


def _gap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return |a − b| in float64; infinite where either is no finite number."""
    finite = np.isfinite(a) & np.isfinite(b)
    clean = [np.where(finite, x, 0).astype(np.float64) for x in (a, b)]
    return np.where(finite, np.abs(clean[0] - clean[1]), np.inf)


def _batches(session: Session, task: Task, split: Split, batch_size: int) -> Iterator[Batch]:
    if batch_size < 1:
        raise DataError(f"`batch_size` expects at least 1, got {batch_size}")
    return task.batches(split, fixed_batch(session) or batch_size)


def fixed_batch(session: Session) -> int | None:
    """Return the batch that the model insists on, or None when it is free."""
    shape = session.inputs[0].shape if session.inputs else ()
    return shape[0] if shape and shape[0] > 0 else None


def _length(inputs: Arrays) -> int:
    return next((len(array) for array in inputs.values() if array.ndim), 1)


def _checked(scores: np.ndarray, batch: Batch) -> np.ndarray:
    scores = np.asarray(scores, dtype=np.float64)
    if scores.shape != (len(batch),):
        raise DataError(
            f"a task's `score` expects to give one number an example, shape ({len(batch)},),"
            f" got shape {scores.shape}"
        )
    if not np.isfinite(scores).all():
        raise DataError(
            "a task's `score` gave a value that is no finite number; check the data's targets"
            " and the model's outputs for NaN"
        )
    return scores
