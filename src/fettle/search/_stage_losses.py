"""What each step of a recipe cost in quality: every stage's artifact, scored on `select`.

Stages are found in the store, so nothing is trained again. Modules answer in PyTorch, the last
step's artifact as it was scored: on its engine, lowered. All of them answer the same examples, the
first `MOST` of the split, so that the losses add up.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fettle.core.hashing import fingerprint
from fettle.core.plugin import Plugin
from fettle.core.recipe import Recipe
from fettle.search._trial import Trial

if TYPE_CHECKING:
    from fettle.search.study import Study

MOST = 2000  # examples


@dataclass(frozen=True)
class StageLoss:
    """A step of the winner's recipe: the score after it, and what it lost against before it.

    `drop` is what was lost since the untouched model; all are means over `n` examples.
    """

    stage: str
    score: float
    lost: float
    drop: float
    n: int

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)


def stage_losses(study: Study, base: Trial, winner: Trial) -> list[StageLoss]:
    """Return one row for each step of the winner's recipe, in order; none for the model as it is.

    Raises:
        FettleError: a stage can't be opened or scored.
    """
    steps = winner.recipe.steps
    if not steps:
        return []
    names, means = [], [_mean(study.measuring.scores(base, "select"))]
    for end, step in enumerate(steps, start=1):
        scores = (
            study.measuring.scores(winner, "select")
            if end == len(steps)
            else _scores_after(study, winner, steps[:end])
        )
        if scores is not None:
            names.append(str(step))
            means.append(_mean(scores))
    n = min(study.workshop.task.size("select"), MOST)
    return [
        StageLoss(name, after, before - after, means[0] - after, n)
        for name, before, after in zip(names, means[:-1], means[1:], strict=True)
    ]


def _mean(scores: np.ndarray) -> float:
    return float(scores[:MOST].mean())


def _scores_after(study: Study, winner: Trial, steps: tuple[Plugin, ...]) -> np.ndarray | None:
    """Return scores after the first steps; None where their result isn't kept by itself."""
    recipe = Recipe(steps)
    if recipe.passes:
        made = study.workshop.make(recipe)
        trial = Trial("", recipe.on(winner.runtime), winner.runtime, made.key, made.path, "int8")
        study.measuring.open(trial)
        return None if trial.session is None else study.measuring.scores(trial, "select")
    store, key = study.workshop.store, study.workshop.key(steps)
    if not store.has(key):  # a final step, whose result the export alone keeps
        return None

    def work(folder: Path) -> None:
        np.save(folder / "scores.npy", _scores_of(study, steps))

    task = study.workshop.task
    name = fingerprint(["first scores", key, task.fingerprint("select"), MOST])
    folder, _ = store.make(name, f"score {steps[-1].name()}", work)
    scores: np.ndarray = np.load(folder / "scores.npy", allow_pickle=False)
    return scores


def _scores_of(study: Study, steps: tuple[Plugin, ...]) -> np.ndarray:
    """Return the scores of the first examples of `select`, shape (n,)."""
    import torch

    from fettle.train import first_output, inputs_of

    task, module = study.workshop.task, study.workshop.module(steps).eval()
    scores: list[np.ndarray] = []
    with torch.inference_mode():
        for batch in task.batches("select"):
            outputs = first_output(module(*inputs_of(batch, task, torch.device("cpu"))))
            scores.append(task.score({"output": outputs.float().numpy()}, batch))
            if sum(map(len, scores)) >= MOST:
                break
    return np.concatenate(scores)[:MOST]
