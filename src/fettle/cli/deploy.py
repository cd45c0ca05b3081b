"""Write a bundle as what another server takes: Triton, KServe, Ray Serve."""

from __future__ import annotations

import argparse
from pathlib import Path

from fettle.cli._options import add_knobs, knob_values
from fettle.cli._outcome import Outcome


def options(parser: argparse.ArgumentParser) -> None:
    """Declare the options: those of every way of deploying under its own name."""
    from fettle.core.shelf import DEPLOYMENTS

    ways = parser.add_subparsers(title="ways", metavar="WAY", required=True, dest="way")
    for name in DEPLOYMENTS.names():
        cls = DEPLOYMENTS.load(name)
        summary = (cls.__doc__ or "").partition("\n")[0]
        way = ways.add_parser(name, help=summary, description=summary)
        way.add_argument("bundle", metavar="BUNDLE", help="a folder that `fettle optimize` wrote")
        way.add_argument("--out", type=Path, required=True, metavar="DIR", help="an empty folder")
        way.add_argument("--name", default="model", help="what the model is called, default model")
        way.add_argument(
            "--allow-unproven", action="store_true", help="also where the verdict is no pass"
        )
        way.add_argument(
            "--json", action="store_true", help="print one JSON object on stdout, nothing else"
        )
        add_knobs(way, cls)


def run(args: argparse.Namespace) -> Outcome:
    """Write the files and say what comes next."""
    from fettle.core.bundle import Bundle
    from fettle.core.shelf import DEPLOYMENTS
    from fettle.serve.deploy import Deployment, deploy

    cls = DEPLOYMENTS.load(args.way)
    way = cls(**knob_values(args, cls))
    assert isinstance(way, Deployment)
    done = deploy(way, Bundle.open(args.bundle), args.name, args.out, args.allow_unproven)
    lines = [*(f"{args.out}/{file}" for file in done.files), "", "then:", *done.commands]
    data = {"way": str(way), "out": str(args.out), **done.to_json()}
    return Outcome(data, "\n".join(lines))
