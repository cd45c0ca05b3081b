"""The command line: one file a verb, which parses, makes one call, and prints.

Every verb takes `--json`: one JSON object on stdout and nothing else there. Progress goes to
stderr. Exit codes: 0 done or verdict pass, 1 verdict fail or inconclusive or a failed check,
2 wrong input, 3 something missing on this machine, 130 interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pkgutil
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any, NoReturn

from fettle.cli._outcome import Outcome
from fettle.core.errors import FettleError, InputError, MissingError, UnknownName
from fettle.core.shelf import INSTALL

INTERRUPTED = 130


class Parser(argparse.ArgumentParser):
    """A parser that leaves it to `main` to say what is wrong, and takes no shortened options."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **settings})

    def error(self, message: str) -> NoReturn:
        """Raise InputError, so that `--json` holds for a mistyped option too."""
        raise InputError(f"{message}; see `{self.prog} --help`")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    wants_json = "--json" in arguments
    try:
        _refuse_unknown_verb(arguments)
        parser = build_parser(arguments[:1])
        args = parser.parse_args(arguments)
        outcome: Outcome = args.run(args)
    except FettleError as error:
        return _fail(str(error), error.exit_code, wants_json)
    except ModuleNotFoundError as error:
        missing = _missing(error)
        if missing is None:
            raise
        return _fail(str(missing), missing.exit_code, wants_json)
    except MemoryError as error:
        message = f"out of memory ({error}): ask for a smaller batch or model, or free some"
        return _fail(message, InputError.exit_code, wants_json)
    except KeyboardInterrupt:
        return _fail(
            "interrupted; the same command continues where it stopped", INTERRUPTED, wants_json
        )
    if not outcome.shown:
        _show(json.dumps(outcome.data, allow_nan=False) if args.json else outcome.text)
    return outcome.exit_code


def verbs() -> dict[str, ModuleType]:
    """Return the verbs by name: the modules of this folder."""
    names = sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))
    return {name: importlib.import_module(f"{__name__}.{name}") for name in names}


def build_parser(chosen: Sequence[str] | None = None) -> argparse.ArgumentParser:
    """Return the parser, with the options of the `chosen` verbs; None means all of them.

    Options may need heavy packages to be declared, so that only the verb at hand declares its own.

    Raises:
        InputError: on parsing, when the arguments are wrong.
    """
    parser = Parser(
        prog="fettle",
        description="The fastest artifact of a trained model that is proven inside a budget.",
    )
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    for name, module in verbs().items():
        summary = (module.__doc__ or "").partition("\n")[0]
        verb = commands.add_parser(name, help=summary, description=summary)
        verb.add_argument(
            "--json", action="store_true", help="print one JSON object on stdout, nothing else"
        )
        if chosen is None or name in chosen:
            module.options(verb)
        verb.set_defaults(run=module.run)
    return parser


def _refuse_unknown_verb(arguments: Sequence[str]) -> None:
    verb = next(iter(arguments), "-")
    if not verb.startswith("-") and verb not in verbs():
        raise UnknownName("verb", verb, verbs())


def _fail(message: str, exit_code: int, wants_json: bool) -> int:
    print(f"fettle: {message}", file=sys.stderr)  # noqa: T201
    if wants_json:
        _show(json.dumps({"error": message, "exit_code": exit_code}))
    return exit_code


def _show(text: str) -> None:
    """Print on stdout; whoever reads it may have left already, as `head` does."""
    try:
        print(text, flush=True)  # noqa: T201
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())  # or the interpreter complains when it flushes


def _missing(error: ModuleNotFoundError) -> MissingError | None:
    package = (error.name or "").partition(".")[0]
    if package in INSTALL:
        return MissingError(f"this needs the package `{package}`", INSTALL[package])
    return None


def _version() -> str:
    from fettle import __version__

    return f"fettle {__version__}"
