"""Search for the fastest artifact that can be proven inside an accuracy budget."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from fettle.core.duration import seconds_of
from fettle.core.errors import KnobError
from fettle.core.progress import reporter

if TYPE_CHECKING:
    from fettle.search.asked import Asked


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
    add_executor(parser)
    add_seconds(parser, 20.0, "the finalists together are timed")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--dry-run", action="store_true",
        help="say what would be tried, in order, and what it would cost; writes nothing to --out",
    )  # fmt: skip
    parser.add_argument(
        "--explain", action="store_true",
        help="say why the winner won; of a finished search without running anything again",
    )  # fmt: skip


def run(args: argparse.Namespace) -> Outcome:
    """Search, or say what would be done, or why what was done won."""
    out = check_out(args.out)
    finished = _finished(out, args) if args.explain and not args.dry_run else None
    if finished is not None:
        return Outcome(finished, report.explanation(finished))
    search = _asked(args)
    if args.dry_run:
        from fettle.search.dry_run import forecast_text

        found = search.foresee()
        return Outcome(found, forecast_text(found))
    result = dict(search.run().result)
    said = [report.table(result), *([report.explanation(result)] if args.explain else [])]
    outcome = judged(result, "\n\n".join([*said, f"report   {out / 'report.html'}"]))
    if result["interrupted"]:
        return Outcome(outcome.data, outcome.text, 130)
    return outcome


def _asked(args: argparse.Namespace) -> Asked:
    """Return the search that is asked for: the options have the names that Python has."""
    from fettle.search.asked import asked

    named = ("weights", "task", "target", "max_drop", "confidence", "batch", "threads",
             "time_limit", "objective", "only", "skip", "seconds", "seed", "executor",
             "out")  # fmt: skip
    return asked(
        args.model,
        args.data,
        **{name: getattr(args, name) for name in named},
        teacher=teachers_of(args),
        progress=reporter(),
        command=command_line(),
    )


def _finished(out: Path, args: argparse.Namespace) -> dict[str, Any] | None:
    """Return the result of the same model and data that is there with its explanation, if any."""
    try:
        result = json.loads((out / "result.json").read_text(encoding="utf-8"))
        same = (result["model"], result["data"]) == (args.model, args.data)
        told = result["search"]["explanation"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return dict(result) if same and told else None


def duration(text: str) -> float:
    """Return the seconds of a duration such as `90s`, `20m` or `2h`: an argparse type."""
    try:
        return seconds_of(text)
    except KnobError as error:
        raise argparse.ArgumentTypeError(
            f"a duration such as 90s, 20m or 2h was expected, got `{text}`"
        ) from error
