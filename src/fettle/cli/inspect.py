"""Show what is in an artifact and what each layer really runs in, engine by engine."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from fettle.cli._options import at_least
from fettle.cli._outcome import Outcome
from fettle.core.progress import reporter


def options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("subject", metavar="X", help="bundle, .onnx file or model")
    parser.add_argument("--weights", metavar="W", help="weights of a torch model")
    parser.add_argument("--data", default="", help="real inputs; they give a model its shape")
    parser.add_argument(
        "--layers", action="store_true", help="list every layer, with engines as columns"
    )
    parser.add_argument(
        "--profile", action="store_true", help="time every layer on every engine, slowest first"
    )
    parser.add_argument(
        "--saturation",
        action="store_true",
        help="emulate what an INT8 model computes on a processor without VNNI; on such a processor"
        " this is done without being asked",
    )
    parser.add_argument(
        "--trtexec", action="store_true", help="print trtexec's command lines for TensorRT"
    )
    parser.add_argument(
        "--threads", type=at_least(0), default=0, help="of --profile; 0: all there are"
    )


def run(args: argparse.Namespace) -> Outcome:
    """Inspect the artifact."""
    from fettle import report
    from fettle.search.inspection import Asked, inspect
    from fettle.search.subject import resolve

    asked = Asked(args.profile, args.saturation, args.trtexec, args.threads)
    with tempfile.TemporaryDirectory(prefix="fettle-inspect-") as scratch:
        subject = resolve(args.subject, Path(scratch), args.weights, args.data)
        result = inspect(subject, asked, reporter())
    return Outcome(result, report.inspect_text(result, args.layers))
