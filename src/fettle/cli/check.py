"""Run the pre-deployment checklist on a bundle, on this machine, and seal it into the manifest."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from fettle.cli._options import add_data, add_seconds, at_least, positive
from fettle.cli._outcome import Outcome
from fettle.core.progress import reporter


def options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from fettle.search.checklist import MAX_BATCH

    parser.add_argument("bundle", metavar="BUNDLE", help="a folder that `fettle optimize` wrote")
    add_data(parser)
    parser.add_argument(
        "--max-batch", type=at_least(1), default=MAX_BATCH, metavar="N",
        help=f"the largest batch that will be served, default {MAX_BATCH}",
    )  # fmt: skip
    parser.add_argument(
        "--threads", type=at_least(0), default=0, metavar="N", help="0: all there are"
    )
    parser.add_argument(
        "--p99-ms", type=positive, metavar="MS", help="what one example's p99 has to stay within"
    )
    parser.add_argument(
        "--memory-mb", type=positive, metavar="MB", help="what the process has to stay within"
    )
    add_seconds(parser, 20.0, "all batch sizes together are timed")


def run(args: argparse.Namespace) -> Outcome:
    """Check the bundle; exit code 1 when a check fails."""
    from fettle import report, tasks
    from fettle.search.checklist import CheckSetting, check

    setting = CheckSetting(
        max_batch=args.max_batch,
        threads=args.threads,
        seconds=args.seconds,
        p99_ms=args.p99_ms,
        memory_bytes=args.memory_mb and args.memory_mb * 2**20,
    )
    with tempfile.TemporaryDirectory(prefix="fettle-check-") as scratch:
        task = tasks.load(args.data, seed=args.seed, task=args.task)
        result = check(args.bundle, task, setting, reporter(), Path(scratch))
    data = {**result, "data": args.data}
    return Outcome(data, report.checklist_text(result), 0 if result["passed"] else 1)
