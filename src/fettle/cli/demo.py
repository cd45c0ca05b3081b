"""Walk one model through everything, on embedded real data: about three minutes on two cores."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

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
    progress = reporter()
    result = demo(out, progress, command_line())
    served = None
    if result["verdict"] == "pass":
        progress.say("serve it, and ask it once")
        served = _asked(out)
    text = [report.table(result), *([_told(served)] if served else []), where_next(out)]
    return judged({**result, "served": served}, "\n\n".join(text))


def _asked(out: Path) -> dict[str, Any]:
    from fettle.serve.once import ask_once

    return ask_once(out / "best").to_json()


def _told(served: dict[str, Any]) -> str:
    outputs = ", ".join(f"{each['name']} {each['shape']}" for each in served["answer"]["outputs"])
    return f"served   {served['url']} answered {outputs} in {served['ms']:.1f} ms, as was proven"


def where_next(out: Path) -> str:
    """Return where to look next."""
    return (
        f"report   {out / 'report.html'}  (open it in a browser)\n"
        f"bundle   {out / 'best'}\n"
        f"next     fettle inspect {out / 'best'}\n"
        f"         fettle bench {out / 'best'} --batch 1,8,64\n"
        f"         fettle check {out / 'best'} --data digits\n"
        f"         fettle serve {out / 'best'}"
    )
