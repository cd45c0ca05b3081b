"""The demonstration: the whole walk on scikit-learn's digits, with no network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fettle import tasks
from fettle.core.context import Context
from fettle.core.progress import Reporter
from fettle.core.recipe import Recipe
from fettle.core.verdict import Budget
from fettle.search.compress import study
from fettle.search.study import Candidate, Setting
from fettle.search.workshop import Source

BASELINE = "cifar:resnet20"
TEACHER = "cifar:resnet32"
STUDENT = "distill.logits(student='cifar:resnet8', epochs=60, lr=0.1)"
RECIPES = {
    "INT8 PTQ": "quantize.static",
    "INT8 QAT": "quantize.aware(epochs=5)",
    "Pruned": "prune.channels(ratio=0.5, epochs=20)",
    "Distilled": STUDENT,
    "All combined": f"{STUDENT} > prune.channels(ratio=0.25, epochs=30) > quantize.aware",
}
BATCH = 64  # an image of 8×8 is so little work that a batch of one measures overhead alone
MAX_DROP = 0.02  # what about 600 test images can resolve


def demo(out: Path, progress: Reporter, command: str = "fettle demo") -> dict[str, Any]:
    """Train a teacher and a baseline, try each technique and all of them, prove the fastest.

    Returns:
        The result of the contract; `out/best` is the bundle, `out/report.html` the report.
    """
    from fettle.train import FitPlan

    task = tasks.load("digits")
    setting = Setting(
        budget=Budget(max_drop=MAX_DROP), batch=BATCH, seconds=25, command=command, data="digits"
    )
    candidates = [Candidate(Recipe.parse(line), name) for name, line in RECIPES.items()]
    source = Source(BASELINE, plan=FitPlan(epochs=30, lr=0.1))
    teacher = Source(TEACHER, plan=FitPlan(epochs=30, lr=0.1))
    context = Context(progress=progress)
    return study(source, task, candidates, out, setting, context, teacher)
