"""A model that knows nothing loses nothing: is the original any better than guessing?

Weights that were forgotten, or of another task, make every verdict a pass that means nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fettle.tasks import Task


def only_guesses(task: Task, metric: Mapping[str, Any]) -> str | None:
    """Return a warning when the original isn't shown to beat answers that ignore their inputs.

    Args:
        task: what it is judged by.
        metric: the original's, with its interval and its split, as results have it.
    """
    guess = task.guess(metric["split"])
    if guess is None or metric["low"] > guess:
        return None
    return (
        f"the original's {task.metric} is {metric['value']:.1%} [{metric['low']:.1%},"
        f" {metric['high']:.1%}], and always answering the most frequent class gives {guess:.1%}:"
        " a proof of losing nothing means nothing here; were its weights given (--weights, or a"
        " folder of `fettle train`), and is this its data?"
    )
