"""Time bundles, ONNX files and models against each other on every runtime."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from fettle.cli._options import add_seconds, numbers
from fettle.cli._outcome import Outcome
from fettle.core.progress import reporter


def options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("subjects", nargs="+", metavar="X", help="bundle, .onnx file or model")
    parser.add_argument(
        "--runtime",
        default="all",
        help="all, or e.g. onnxruntime+openvino(precision='bf16')+pytorch(mode='compiled')",
    )
    parser.add_argument("--batch", default="1", help="batch sizes, e.g. 1,8,64")
    parser.add_argument("--threads", default="0", help="thread counts, e.g. 1,2; 0: all there are")
    add_seconds(parser, 10.0, "all artifacts of a batch and threads together are timed")
    parser.add_argument("--data", default="", help="inputs for torch models, e.g. digits")
    parser.add_argument("--no-memory", action="store_true", help="don't measure peak memory")


def run(args: argparse.Namespace) -> Outcome:
    """Time the artifacts."""
    from fettle import report
    from fettle.search.bench import BenchSetting, bench
    from fettle.search.subject import resolve

    setting = BenchSetting(
        runtimes=tuple(part.strip() for part in args.runtime.split("+")),
        batches=tuple(numbers(args.batch)),
        threads=(0,) if args.threads == "0" else tuple(numbers(args.threads)),
        seconds=args.seconds,
        memory=not args.no_memory,
    )
    with tempfile.TemporaryDirectory(prefix="fettle-bench-") as scratch:
        subjects = [resolve(name, Path(scratch), data=args.data) for name in args.subjects]
        result = bench(subjects, setting, reporter())
    return Outcome(result, report.bench_table(result))
