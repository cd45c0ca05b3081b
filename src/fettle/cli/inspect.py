"""Show what is in an artifact and what each layer really runs in, engine by engine."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from fettle.cli._outcome import Outcome


def options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("subject", metavar="X", help="bundle, .onnx file or model")
    parser.add_argument("--weights", metavar="W", help="weights of a torch model")
    parser.add_argument("--data", default="", help="the data that gives a torch model its shape")
    parser.add_argument("--layers", action="store_true", help="list every layer")


def run(args: argparse.Namespace) -> Outcome:
    """Inspect the artifact."""
    from fettle.search.inspection import inspect
    from fettle.search.subject import resolve

    with tempfile.TemporaryDirectory(prefix="fettle-inspect-") as scratch:
        result = inspect(resolve(args.subject, Path(scratch), args.weights, args.data))
    return Outcome(result, _text(result, args.layers))


def _text(result: dict[str, Any], with_layers: bool) -> str:
    macs = "unknown" if result["macs"] is None else f"{result['macs']:,}"
    operators = ", ".join(f"{op} {n}" for op, n in result["operators"].items())
    lines = [
        f"subject     {result['subject']}",
        f"parameters  {result['parameters']:,}",
        f"MACs        {macs} (one example)",
        f"sparsity    {result['sparsity']:.1%}",
        f"size        {result['size_bytes']:,} bytes",
        f"operators   {operators}",
        "precision of what computes, as each engine runs it:",
    ]
    for runtime, counts in result["precisions"].items():
        shown = ", ".join(f"{n} × {precision}" for precision, n in counts.items())
        lines.append(f"  {runtime:<12} {shown or 'not run'}")
    lines += [f"  {runtime:<12} refused: {why}" for runtime, why in result["refused"].items()]
    if with_layers:
        lines += [_layer(layer) for layer in result["layers"]]
    return "\n".join(lines)


def _layer(layer: dict[str, Any]) -> str:
    ((runtime, precision),) = layer["precision"].items()
    return f"  {runtime:<12} {precision:<6} {layer['op']:<24} {layer['name']}"
