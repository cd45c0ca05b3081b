"""Export a torch model to ONNX: dynamic batch, checked, and compared with the module."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fettle.cli._options import add_data, add_model
from fettle.cli._outcome import Outcome
from fettle.core.errors import InputError
from fettle.core.files import replacing, storage_errors

if TYPE_CHECKING:
    from torch import nn

    from fettle.export import Parity
    from fettle.tasks import Task


def options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_model(parser)
    add_data(parser, required=False)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.onnx")


def run(args: argparse.Namespace) -> Outcome:
    """Export the model; without data, random inputs of the family's usual shape are used."""
    from fettle import measure, models, tasks
    from fettle.search.subject import default_data

    if args.out.suffix != ".onnx":
        raise InputError(f"`--out` expects a name that ends with .onnx, got {args.out}")
    task = tasks.load(args.data or default_data(args.model), seed=args.seed, task=args.task)
    model = models.load(args.model, weights=args.weights, signature=task.signature, seed=args.seed)
    parity = _export(model, task, args.out)
    size = measure.onnx_bytes(args.out)
    data: dict[str, Any] = {
        "model": args.model,
        "onnx": str(args.out),
        "size_bytes": size,
        "parity": parity.to_json(),
    }
    text = (
        f"onnx     {args.out}, {size / 1e6:.2f} MB\n"
        f"parity   mean difference {parity.mean_difference:.2g} of the mean output, largest"
        f" {parity.max_difference:.2g}, top-1 agreement {parity.agreement:.2%}, n = {parity.n}"
    )
    return Outcome(data, text)


def _export(model: nn.Module, task: Task, out: Path) -> Parity:
    """Export into a folder beside `out`, then put each file in its place, the graph last."""
    from fettle.export import export_onnx

    with storage_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=".export.") as name:
            parity = export_onnx(model, task, Path(name) / "onnx", out.name)
            for file in sorted((Path(name) / "onnx").iterdir(), reverse=True):
                with replacing(out.with_name(file.name)) as temporary:
                    shutil.copyfile(file, temporary)
    return parity
