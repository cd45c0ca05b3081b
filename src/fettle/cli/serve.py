"""Serve bundles over the Open Inference Protocol, until SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import sys
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fettle.cli._outcome import Outcome
from fettle.core.errors import InputError
from fettle.core.knobs import Knob, Range, knobs_of

if TYPE_CHECKING:
    from fettle.serve.http.server import Server
    from fettle.serve.repository import Repository
    from fettle.serve.rollout.settings import RolloutSettings
    from fettle.serve.settings import Settings

Options = argparse.ArgumentParser | argparse._ArgumentGroup
_KINDS = ("shadow", "ab", "canary")
_FILES = {
    "log": ("FILE.db", "log of all predictions, which is made where there is none"),
    "capsules": ("DIR", "keep failed predictions here, for `fettle replay`"),
    "certificate": ("FILE.pem", "speak TLS: the certificate, with its chain"),
    "key": ("FILE.pem", "its private key"),
}
_TOKENS = {
    "tokens": ("--token-file", "tokens of those who may ask for predictions, one a line"),
    "control_tokens": ("--control-token-file", "tokens of those who may load and read metrics"),
}


def options(parser: argparse.ArgumentParser) -> None:
    """Declare the options: the bundles, and a knob of the settings each."""
    parser.add_argument(
        "bundles",
        nargs="+",
        metavar="[NAME[:VERSION]=]BUNDLE",
        help="a folder that `fettle optimize` wrote, or one that holds several: NAME/ or"
        " NAME/VERSION/ in it",
    )
    for knob in _knobs():
        _add(parser, knob)
    rollout = parser.add_argument_group("what rides along")
    for knob in _rollout_knobs():
        _add(rollout, knob)
    rollout.add_argument(
        "--decisions",
        type=Path,
        metavar="FILE.jsonl",
        help="keep a canary's decisions here, and go on from them after a restart",
    )
    for name, (metavar, meaning) in _FILES.items():
        parser.add_argument(f"--{name}", type=Path, metavar=metavar, help=meaning)
    for option, meaning in _TOKENS.values():
        parser.add_argument(option, type=Path, metavar="FILE", help=meaning)


def run(args: argparse.Namespace) -> Outcome:
    """Serve; the answer is printed when the models are ready, not at the end."""
    from fettle.cli import INTERRUPTED
    from fettle.serve.http.server import new_loop
    from fettle.serve.running import serve

    settings, rollout = settings_of(args), rollout_of(args)
    riding = {kind: bundle for kind in _KINDS if (bundle := getattr(rollout, kind))}

    def announce(server: Server, repository: Repository) -> None:
        data = {
            "url": server.url,
            "grpc": server.grpc,
            "models": repository.index(),
            "rollout": riding,
        }
        sys.stdout.write((json.dumps(data) if args.json else _text(data)) + "\n")
        sys.stdout.flush()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        interrupted = runner.run(serve(args.bundles, settings, announce, rollout))
    return Outcome({}, "", INTERRUPTED if interrupted else 0, shown=True)


def settings_of(args: argparse.Namespace) -> Settings:
    """Return what the options were given.

    Raises:
        KnobError: an option out of its bounds.
        InputError: a file of tokens that can't be read.
    """
    from fettle.serve.settings import Settings

    values = {name: getattr(args, name) for name in (*(k.name for k in _knobs()), *_FILES)}
    for name, (option, _) in _TOKENS.items():
        path = getattr(args, option.removeprefix("--").replace("-", "_"))
        values[name] = _lines(option, path) if path else ()
    assert values.keys() == {field.name for field in dataclasses.fields(Settings)}
    return Settings(**values)


def rollout_of(args: argparse.Namespace) -> RolloutSettings:
    """Return what rides along.

    Raises:
        KnobError: an option out of its bounds.
        InputError: options that contradict each other.
    """
    from fettle.serve.rollout.settings import RolloutSettings

    given = {knob.name: getattr(args, knob.name) for knob in _rollout_knobs()}
    return RolloutSettings(**given, decisions=args.decisions)


def _knobs() -> list[Knob]:
    from fettle.serve.settings import Settings

    return list(knobs_of(Settings))


def _rollout_knobs() -> list[Knob]:
    from fettle.serve.rollout.settings import RolloutSettings

    return list(knobs_of(RolloutSettings))


def _add(parser: Options, knob: Knob) -> None:
    option = f"--{knob.name.replace('_', '-')}"
    bounds = f" ({knob.bounds})" if isinstance(knob.bounds, Range) else ""
    meaning = f"{knob.meaning}{bounds}, default {_shown(knob.default)}".replace("%", "%%")
    if knob.type is bool:
        how: Any = argparse.BooleanOptionalAction if knob.default else "store_true"
        parser.add_argument(option, action=how, default=knob.default, help=knob.meaning)
        return
    kinds = [kind for kind in typing.get_args(knob.type) or (knob.type,) if kind is not type(None)]
    parser.add_argument(option, type=kinds[0], default=knob.default, metavar="X", help=meaning)


def _shown(value: Any) -> str:
    return "none" if value in (None, "") else str(value)


def _lines(option: str, path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text("ascii").split()
    except (OSError, UnicodeError) as error:
        raise InputError(f"`{option}` expects a file of tokens, one a line: {error}") from error
    if not lines:
        raise InputError(f"`{option}` expects a file of tokens, one a line, and {path} is empty")
    return tuple(lines)


def _text(data: dict[str, Any]) -> str:
    models = [
        f"  {row['name']} version {row['version']}: {row['state']}"
        + (f" ({row['reason']})" if row["reason"] else "")
        for row in data["models"]
    ]
    grpc = f", gRPC at {data['grpc']}" if data["grpc"] else ""
    riding = [f"  {kind}: {bundle}" for kind, bundle in data["rollout"].items()]
    return "\n".join([f"serving at {data['url']}{grpc}", *models, *riding])
