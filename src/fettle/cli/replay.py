"""Run a failed prediction again, on the model that failed and on the one beside it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from fettle.cli._outcome import Outcome

if TYPE_CHECKING:
    from fettle.monitor.replay import Difference, Replayed


def options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "capsule", type=Path, metavar="CAPSULE", help="an .npz that `fettle serve` wrote"
    )
    parser.add_argument(
        "--model", type=Path, required=True, metavar="BUNDLE", help="the bundle to run it on"
    )
    parser.add_argument(
        "--shadow", type=Path, metavar="BUNDLE", help="another one, to compare the outputs with"
    )


def run(args: argparse.Namespace) -> Outcome:
    """Replay the capsule; exit code 1 when the model fails again."""
    from fettle.monitor.capsule import Capsule
    from fettle.monitor.replay import replay

    bundles = {"model": args.model}
    if args.shadow:
        bundles["shadow"] = args.shadow
    replayed = replay(Capsule.open(args.capsule), bundles)
    return Outcome(replayed.to_json(), text_of(replayed), int(replayed.failed))


def text_of(replayed: Replayed) -> str:
    """Return the replay as plain text."""
    row = replayed.capsule.prediction
    inputs = [f"{name} {list(a.shape)}" for name, a in replayed.capsule.inputs.items()]
    lines = [
        f"request {row.id} of {row.model} (bundle {row.sha or 'unknown'}): {row.status}",
        f"  {row.error or 'no message'}",
        f"  inputs: {', '.join(inputs)}",
        "",
    ]
    for run in replayed.runs:
        said = f"fails: {run.error}" if run.error else "answers"
        lines.append(f"{run.who:8}{run.path} (bundle {run.sha}) {said}")
    lines += [f"        {_apart(difference)}" for difference in replayed.differences]
    if replayed.changed:
        pairs = [f"{name} {then} → {now}" for name, (then, now) in replayed.changed.items()]
        lines += ["", "changed since: " + ", ".join(pairs)]
    return "\n".join(lines)


def _apart(difference: Difference) -> str:
    if difference.reason:
        return f"`{difference.output}` can't be compared: {difference.reason}"
    flips = "" if difference.flips is None else f", top-1 moved in {difference.flips}"
    return (
        f"`{difference.output}` differs by {difference.mean:.3g} in the mean (at most"
        f" {difference.max:.3g}; values of {difference.scale:.3g}){flips} of {difference.n}"
    )
