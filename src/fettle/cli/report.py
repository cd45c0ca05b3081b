"""Draw a study's folder as one HTML file that needs nothing but itself."""

from __future__ import annotations

import argparse
from pathlib import Path

from fettle import report
from fettle.cli._outcome import Outcome


def options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="where a study was written")


def run(args: argparse.Namespace) -> Outcome:
    """Write the report."""
    path = report.write(args.folder)
    return Outcome({"report": str(path)}, f"report   {path}")
