"""Walk one model through everything, on embedded real data: about three minutes on two cores."""

from __future__ import annotations

import argparse
from pathlib import Path

from fettle import report
from fettle.cli._options import check_out, command_line
from fettle.cli._outcome import Outcome, judged
from fettle.core.progress import reporter


def options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), metavar="DIR")


def run(args: argparse.Namespace) -> Outcome:
    """Run the demonstration."""
    from fettle.search.demo import demo

    out = check_out(args.out)
    result = demo(out, reporter(), command_line())
    return judged(result, f"{report.table(result)}\n\n{where_next(out)}")


def where_next(out: Path) -> str:
    """Return where to look next."""
    return (
        f"report   {out / 'report.html'}  (open it in a browser)\n"
        f"bundle   {out / 'best'}\n"
        f"next     fettle inspect {out / 'best'}\n"
        f"         fettle bench {out / 'best'} --batch 1,8,64\n"
        f"         fettle compress --model cifar:resnet20 --data digits -t quantize.static"
        " --out runs/mine"
    )
