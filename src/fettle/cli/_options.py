"""Options that several verbs share, and how they become values."""

from __future__ import annotations

import argparse
import math
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fettle.core.errors import InputError, KnobError
from fettle.core.knobs import Choice, Range
from fettle.core.plugin import Plugin

if TYPE_CHECKING:
    from fettle.search.workshop import Source

_WHOLE = re.compile(r"-?[0-9]{1,19}")


def add_model(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Add `--model` and `--weights`."""
    parser.add_argument(
        "--model",
        required=required,
        metavar="M",
        help="cifar:resnet20, torchvision:NAME, timm:NAME, hf:NAME, hf:FOLDER, rnn:lstm,"
        " file.py:function, module:function, a folder that `fettle train` wrote, or an .onnx file",
    )
    parser.add_argument(
        "--weights", metavar="W", help="a .safetensors file (or .pt, read without pickles)"
    )


def add_data(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Add `--data`, `--task` and `--seed`."""
    from fettle.tasks import AUTO, kinds

    parser.add_argument(
        "--data",
        required=required,
        metavar="D",
        help="digits, npz:FILE, imagefolder:DIR, torchvision:CIFAR10, cifar10:DIR, text:FILE.csv,"
        " rows:SOURCE, file.py:function; noise:3x224x224 or tokens:128 for speed alone",
    )
    parser.add_argument(
        "--task",
        choices=(AUTO, *kinds()),
        default=AUTO,
        help="what the model is for; auto: by the labels (classes, values, or none: then the"
        " original's own answers are the measure)",
    )
    parser.add_argument(
        "--seed", type=at_least(0), default=0, help="of splits, weights and training"
    )


def add_study(parser: argparse.ArgumentParser) -> None:
    """Add the options of a study: budget, target, batch, threads."""
    parser.add_argument(
        "--max-drop", type=float, default=0.01, help="what may be lost; 0.01 is one point"
    )
    parser.add_argument("--confidence", type=float, default=0.95, help="of the verdict, one-sided")
    parser.add_argument(
        "--target", default="cpu", help="cpu, tensorrt, or runtimes: openvino,onnxruntime"
    )
    parser.add_argument("--batch", type=at_least(1), default=1, help="examples a request")
    parser.add_argument("--threads", type=at_least(0), default=0, help="0: all there are")


def add_executor(parser: argparse.ArgumentParser) -> None:
    """Add `--executor`."""
    parser.add_argument(
        "--executor",
        default="local",
        metavar="E",
        help="who does the stages: local, this process; ray or ray://HOST:PORT, a cluster, where"
        " the nodes with the resource `target` measure; or with knobs, 'ray(tag=\"orin\")'",
    )


def add_teachers(parser: argparse.ArgumentParser) -> None:
    """Add `--teacher` and `--teacher-weights`."""
    parser.add_argument(
        "--teacher",
        action="append",
        default=[],
        metavar="M2",
        help="a model to distill from; given several times, they teach as one: their mean"
        " probabilities",
    )
    parser.add_argument(
        "--teacher-weights",
        action="append",
        default=[],
        metavar="W2",
        help="its weights; once for each teacher, in their order, '' where one brings its own",
    )


def add_seconds(parser: argparse.ArgumentParser, default: float, what: str) -> None:
    """Add `--seconds`, the time that is given to timing."""
    parser.add_argument(
        "--seconds", type=positive, default=default, help=f"how long {what}, default {default:g}"
    )


def add_knobs(parser: argparse.ArgumentParser, plugin: type[Plugin]) -> None:
    """Add an option for each knob of a plug-in."""
    for knob in plugin.knobs():
        chosen = knob.bounds.options if isinstance(knob.bounds, Choice) else None
        options: dict[str, Any] = {"choices": chosen} if chosen else {}
        bounds = f" ({knob.bounds})" if isinstance(knob.bounds, Range) else ""
        parser.add_argument(
            f"--{knob.name.replace('_', '-')}",
            type=knob.type,
            default=knob.default,
            help=f"{knob.meaning}{bounds}, default {knob.default}".replace("%", "%%"),
            **options,
        )


def knob_values(args: argparse.Namespace, plugin: type[Plugin]) -> dict[str, Any]:
    """Return what the options of `add_knobs` were given."""
    return {knob.name: getattr(args, knob.name) for knob in plugin.knobs()}


def teachers_of(args: argparse.Namespace) -> list[Source]:
    """Return the teachers of `add_teachers`, each with its weights.

    Raises:
        InputError: weights that belong to no teacher.
    """
    from fettle.search.workshop import Source

    models, weights = args.teacher, args.teacher_weights
    if weights and not models:
        raise InputError("`--teacher-weights` expects `--teacher`, the model that they belong to")
    if weights and len(weights) != len(models):
        raise InputError(
            f"`--teacher-weights` is expected once for each of the {len(models)} teachers, in their"
            f" order, got {len(weights)}; give '' for one that brings its own"
        )
    paired = zip(models, weights or [None] * len(models), strict=True)
    return [Source(model, own or None) for model, own in paired]


def numbers(text: str) -> list[int]:
    """Return the positive numbers of a list such as `1,8,64`.

    Raises:
        KnobError: something else stands there.
    """
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 1:
        raise KnobError(f"a list of positive numbers such as 1,8,64 was expected, got `{text}`")
    return found


def at_least(least: int) -> Any:
    """Return an argparse type: a whole number from `least` on that 64 bits hold."""

    def whole(text: str) -> int:
        number = int(text) if _WHOLE.fullmatch(text) else least - 1
        if not least <= number < 2**63:
            raise argparse.ArgumentTypeError(
                f"a whole number from {least} to 2^63 - 1 was expected, got `{text}`"
            )
        return number

    return whole


def positive(text: str) -> float:
    """Return a finite number above zero: an argparse type."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"a number above 0 was expected, got `{text}`")
    return number


def command_line() -> str:
    """Return the command as a user could type it again."""
    return shlex.join(["fettle", *sys.argv[1:]])


def check_out(out: Path) -> Path:
    """Return the folder for output.

    Raises:
        InputError: a file stands there.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"`--out` expects a folder, and {out} is a file: choose another name")
    return out
