"""Apply one recipe, measure it beside the original, and prove it."""

from __future__ import annotations

import argparse
from pathlib import Path

from fettle import report
from fettle.cli._options import (
    add_data,
    add_executor,
    add_model,
    add_seconds,
    add_study,
    add_teachers,
    check_out,
    command_line,
    teachers_of,
)
from fettle.cli._outcome import Outcome, judged
from fettle.core.errors import InputError
from fettle.core.progress import reporter
from fettle.core.targets import targets


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
    add_teachers(parser)
    add_study(parser)
    add_executor(parser)
    add_seconds(parser, 20.0, "all artifacts together are timed")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")


def run(args: argparse.Namespace) -> Outcome:
    """Run the recipe."""
    from fettle import tasks
    from fettle.core.context import Context
    from fettle.core.recipe import Recipe
    from fettle.core.verdict import Budget
    from fettle.search.compress import compress
    from fettle.search.executors import executor
    from fettle.search.study import Setting
    from fettle.search.workshop import Source

    recipe = Recipe.parse(" > ".join(args.technique))
    teachers = teachers_of(args)
    if teachers and not any(getattr(step, "takes_teacher", False) for step in recipe.steps):
        raise InputError(
            f"`--teacher {args.teacher[0]}` expects a step that learns from one, such as"
            f" `distill.logits`, and the recipe is `{recipe}`"
        )
    setting = Setting(
        budget=Budget(max_drop=args.max_drop, confidence=args.confidence),
        target=targets(args.target),
        batch=args.batch,
        threads=args.threads,
        seconds=args.seconds,
        only_given=True,
        command=command_line(),
        data=args.data,
        kind=args.task,
        executor=executor(args.executor),
    )
    out = check_out(args.out)
    task = tasks.load(args.data, seed=args.seed, task=args.task)
    context = Context(seed=args.seed, progress=reporter())
    source = Source(args.model, args.weights)
    result = compress(source, task, recipe, out, setting, context, teachers)
    return judged(result, f"{report.table(result)}\n\nreport   {out / 'report.html'}")
