"""What the original model answers: the labels of a task that has none of its own.

The original is run as ONNX in f32, so this works without torch where the model came as a file. Its
answers are kept in the store, by the model's content, the engine and the examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from fettle import measure
from fettle.core.arrays import SPLITS, Arrays, Split
from fettle.core.errors import CheckFailed, DataError, FettleError, InputError
from fettle.core.hashing import fingerprint
from fettle.core.machine import this_machine, versions
from fettle.core.recipe import Recipe
from fettle.core.shelf import RUNTIMES
from fettle.runtimes import Runtime, Session
from fettle.search._smoke import fault_of
from fettle.tasks import Task

if TYPE_CHECKING:
    from fettle.search.workshop import Workshop

_FIRST = "onnxruntime"  # computes in f32 everywhere


def judged_task(workshop: Workshop, target: Sequence[str]) -> Task:
    """Return the workshop's task, judged by its original model where it has no labels.

    Args:
        workshop: makes the original's ONNX file.
        target: runtimes to ask where onnxruntime doesn't run the model.

    Raises:
        CheckFailed: no runtime runs the original.
        DataError: the data doesn't fit the model.
        ModelError: the answers are nothing to judge by.
    """
    task = workshop.task
    if not task.needs_original:
        return task
    made = workshop.make(Recipe())
    say = workshop.context.progress.say
    say("no labels: the original's answers are the measure")
    runtime, session = _open(made.path, dict.fromkeys((_FIRST, *target)), task)
    try:
        answers = {
            split: _answers(workshop, session, split, [made.key, runtime.name(), runtime.values()])
            for split in SPLITS
            if task.size(split)
        }
    finally:
        session.close()
    judged = task.answered(answers)
    say(f"the budget is on {judged.metric} with the original")
    return judged


def _open(
    path: Path, names: Sequence[str] | dict[str, None], task: Task
) -> tuple[Runtime, Session]:
    """Return the first of the runtimes that runs the model, and its session."""
    reasons = []
    for name in names:
        runtime = cast(Runtime, RUNTIMES.make(name))
        fault = runtime.supports()
        try:
            session = runtime.build(path) if fault is None else None
            fault = fault if session is None else fault_of(session, task.example_inputs(2))
        except InputError as error:
            raise DataError(
                f"the model takes other inputs than the data has: {error}; give data of the"
                " model's shape, or a model of the data's"
            ) from error
        except FettleError as error:
            fault = str(error)
        if fault is None and session is not None:
            return runtime, session
        reasons.append(f"{name}: {fault}")
    raise CheckFailed(
        "no runtime runs the model as it is, so there are no answers to judge by"
        f" ({'; '.join(reasons)}); see `fettle doctor`"
    )


def _answers(workshop: Workshop, session: Session, split: Split, who: list[object]) -> Arrays:
    """Return the original's outputs for a split, in its order."""
    task, here = workshop.task, [this_machine().to_json(), versions()]
    key = fingerprint(["answers", *who, split, task.fingerprint(split), here])

    def work(folder: Path) -> None:
        np.savez(folder / "answers.npz", allow_pickle=False, **_numbered(session, task, split))

    folder, _ = workshop.store.make(key, f"the original's answers on {split}", work)
    workshop.answers[split] = key
    return answers_in(folder)


def answers_in(folder: Path) -> Arrays:
    """Return the original's outputs for a split from the folder of their stage."""
    with np.load(folder / "answers.npz", allow_pickle=False) as archive:
        return {name: archive[name] for name in sorted(archive.files, key=_number)}


def _numbered(session: Session, task: Task, split: Split) -> dict[str, np.ndarray]:
    """Return the outputs under names that no archive minds."""
    outputs = measure.outputs_of(session, task, split)
    return {f"output_{i}": array for i, array in enumerate(outputs.values())}


def _number(name: str) -> int:
    return int(name.rpartition("_")[2])
