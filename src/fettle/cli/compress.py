"""Apply one recipe, measure it beside the original, and prove it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from fettle import report
from fettle.cli._options import (
    add_data,
    add_model,
    add_seconds,
    add_study,
    check_out,
    command_line,
    targets,
)
from fettle.cli._outcome import Outcome, judged
from fettle.core.errors import InputError
from fettle.core.progress import reporter

if TYPE_CHECKING:
    from fettle.core.recipe import Recipe
    from fettle.search.workshop import Source


def options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_model(parser)
    add_data(parser)
    parser.add_argument(
        "-t",
        "--technique",
        action="append",
        default=[],
        metavar="'NAME(knob=value)'",
        help="a step of the recipe, in order; may be given several times; none: leave it alone",
    )
    parser.add_argument(
        "--teacher",
        action="append",
        default=[],
        metavar="M2",
        help="a model to distill from; given several times, they teach as one: their mean"
        " probabilities",
    )
    parser.add_argument(
        "--teacher-weights",
        action="append",
        default=[],
        metavar="W2",
        help="its weights; once for each teacher, in their order, '' where one brings its own",
    )
    add_study(parser)
    add_seconds(parser, 20.0, "all artifacts together are timed")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")


def run(args: argparse.Namespace) -> Outcome:
    """Run the recipe."""
    from fettle import tasks
    from fettle.core.context import Context
    from fettle.core.recipe import Recipe
    from fettle.core.verdict import Budget
    from fettle.search.compress import compress
    from fettle.search.study import Setting
    from fettle.search.workshop import Source

    recipe = Recipe.parse(" > ".join(args.technique))
    teachers = _teachers(args, recipe)
    setting = Setting(
        budget=Budget(max_drop=args.max_drop, confidence=args.confidence),
        target=targets(args.target),
        batch=args.batch,
        threads=args.threads,
        seconds=args.seconds,
        only_given=True,
        command=command_line(),
        data=args.data,
    )
    out = check_out(args.out)
    task = tasks.load(args.data, seed=args.seed)
    context = Context(seed=args.seed, progress=reporter())
    source = Source(args.model, args.weights)
    result = compress(source, task, recipe, out, setting, context, teachers)
    return judged(result, f"{report.table(result)}\n\nreport   {out / 'report.html'}")


def _teachers(args: argparse.Namespace, recipe: Recipe) -> list[Source]:
    """Return the teachers, unless nobody would learn from them."""
    from fettle.search.workshop import Source

    models, weights = args.teacher, args.teacher_weights
    if weights and not models:
        raise InputError("`--teacher-weights` expects `--teacher`, the model that they belong to")
    if weights and len(weights) != len(models):
        raise InputError(
            f"`--teacher-weights` is expected once for each of the {len(models)} teachers, in their"
            f" order, got {len(weights)}; give '' for one that brings its own"
        )
    if models and not any(getattr(step, "takes_teacher", False) for step in recipe.steps):
        raise InputError(
            f"`--teacher {models[0]}` expects a step that learns from one, such as"
            f" `distill.logits`, and the recipe is `{recipe}`"
        )
    paired = zip(models, weights or [None] * len(models), strict=True)
    return [Source(model, own or None) for model, own in paired]
