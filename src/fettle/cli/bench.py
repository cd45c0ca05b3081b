"""Time bundles, ONNX files and models against each other on every runtime."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from fettle.cli._options import add_seconds, numbers, positive
from fettle.cli._outcome import Outcome
from fettle.core.errors import InputError, KnobError
from fettle.core.files import write_text
from fettle.core.progress import reporter


def options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("subjects", nargs="+", metavar="X", help="bundle, .onnx file or model")
    parser.add_argument(
        "--runtime",
        default="all",
        help="all, or e.g. onnxruntime+openvino(precision='bf16')+pytorch(mode='compiled'); what"
        " builds slowly is timed on request only: pytorch(mode='aot') and"
        " pytorch(mode='compiled',layout='channels_last')",
    )
    parser.add_argument("--batch", default="1", help="batch sizes, e.g. 1,8,64")
    parser.add_argument("--threads", default="0", help="thread counts, e.g. 1,2; 0: all there are")
    parser.add_argument(
        "--concurrency", default="1", help="clients that ask at once, e.g. 1,4, in a closed loop"
    )
    parser.add_argument(
        "--scenario",
        choices=("single", "offline", "server"),
        help="as MLPerf asks: p90 of one stream, the best throughput, or the highest rate of"
        " random arrivals whose p99 stays within --p99-ms",
    )
    parser.add_argument(
        "--p99-ms", type=positive, default=50.0, help="bound of --scenario server, default 50"
    )
    add_seconds(parser, 10.0, "all artifacts of a batch and threads together are timed")
    parser.add_argument(
        "--weights",
        action="append",
        default=[],
        metavar="W",
        help="weights of a torch model; once for each of them, in their order, '' for its own",
    )
    parser.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="D",
        help="real inputs, e.g. digits; once for all X, or once for each, '' for what it brings;"
        " without it, a bundle's own inputs, else random ones",
    )
    parser.add_argument("--no-memory", action="store_true", help="don't measure peak memory")
    parser.add_argument("--no-roofline", action="store_true", help="don't measure peaks")
    parser.add_argument(
        "--startup", action="store_true", help="measure cold start too, in several processes"
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="draw the result, as one page")


def run(args: argparse.Namespace) -> Outcome:
    """Time the artifacts; draw them where that is asked for."""
    from fettle import report
    from fettle.search.bench import BenchSetting, bench, exit_code_of
    from fettle.search.subject import resolve_all

    setting = BenchSetting(
        runtimes=tuple(part.strip() for part in args.runtime.split("+")),
        batches=_counts("--batch", args.batch),
        threads=(0,) if args.threads == "0" else _counts("--threads", args.threads),
        seconds=args.seconds,
        memory=not args.no_memory,
        concurrency=_counts("--concurrency", args.concurrency),
        startup=args.startup,
        roofline=not args.no_roofline,
        scenario=args.scenario,
        bound_ms=args.p99_ms,
    )
    if args.html:
        _check_page(args.html)
    with tempfile.TemporaryDirectory(prefix="fettle-bench-") as scratch:
        subjects = resolve_all(args.subjects, Path(scratch), args.weights, args.data)
        result = bench(subjects, setting, reporter())
    text = report.bench_table(result)
    if args.html:
        write_text(args.html, report.bench_page(result))
        text = f"{text}\ndrawn in {args.html}"
    return Outcome(result, text, exit_code_of(result))


def _counts(option: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(dict.fromkeys(numbers(text)))
    except KnobError as error:
        raise KnobError(f"`{option}`: {error}") from error


def _check_page(path: Path) -> None:
    """Say before the timing that the page can't be written where it should be."""
    if path.is_dir():
        raise InputError(f"`--html` expects a file, and {path} is a folder: name a file in it")
    if not path.absolute().parent.is_dir():
        raise InputError(f"`--html` expects a file in a folder that exists; make {path.parent}")
