"""Search for the fastest artifact that can be proven inside an accuracy budget."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from fettle import report
from fettle.cli._options import (
    add_data,
    add_model,
    add_seconds,
    add_study,
    add_teachers,
    check_out,
    command_line,
    teachers_of,
)
from fettle.cli._outcome import Outcome, judged
from fettle.cli._targets import targets
from fettle.core.progress import reporter

_UNITS = {"s": 1, "m": 60, "h": 3600}


def options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from fettle.search.objective import OBJECTIVES

    add_model(parser)
    add_data(parser)
    add_study(parser)
    parser.add_argument(
        "--time-limit", type=duration, metavar="T", help="90s, 20m or 2h; none: try everything"
    )
    parser.add_argument(
        "--objective", choices=list(OBJECTIVES), default="latency", help="what is made small"
    )
    for name, what in (("only", "use these alone"), ("skip", "leave these out")):
        parser.add_argument(
            f"--{name}", action="append", default=[], metavar="SHELF",
            help=f"{what}: prune, distill, quantize, graph, or names such as quantize.aware",
        )  # fmt: skip
    add_teachers(parser)
    add_seconds(parser, 20.0, "the finalists together are timed")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")


def run(args: argparse.Namespace) -> Outcome:
    """Search."""
    from fettle import tasks
    from fettle.core.context import Context
    from fettle.core.verdict import Budget
    from fettle.search.optimize import Wish, optimize
    from fettle.search.study import Setting
    from fettle.search.workshop import Source

    setting = Setting(
        budget=Budget(max_drop=args.max_drop, confidence=args.confidence),
        target=targets(args.target),
        batch=args.batch,
        threads=args.threads,
        seconds=args.seconds,
        command=command_line(),
        data=args.data,
    )
    wish = Wish(args.time_limit, args.objective, tuple(args.only), tuple(args.skip))
    out = check_out(args.out)
    task = tasks.load(args.data, seed=args.seed)
    context = Context(seed=args.seed, progress=reporter())
    source = Source(args.model, args.weights)
    result = optimize(source, task, out, setting, wish, context=context, teacher=teachers_of(args))
    outcome = judged(result, f"{report.table(result)}\n\nreport   {out / 'report.html'}")
    if result["interrupted"]:
        return Outcome(outcome.data, outcome.text, 130)
    return outcome


def duration(text: str) -> float:
    """Return the seconds of a duration such as `90s`, `20m` or `2h`: an argparse type."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smh]?)", text.strip())
    if not match or float(match[1]) <= 0:
        raise argparse.ArgumentTypeError(
            f"a duration such as 90s, 20m or 2h was expected, got `{text}`"
        )
    return float(match[1]) * _UNITS[match[2] or "s"]
