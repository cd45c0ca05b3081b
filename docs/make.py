"""Generate the reference pages, and check that no documentation has drifted.

python docs/make.py            write docs/cli.md and docs/plugins.md
python docs/make.py --check    fail when they are out of date, when a command in a document
                               doesn't parse, or when a local link leads nowhere
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

from fettle.cli import build_parser, verbs
from fettle.core.errors import InputError
from fettle.core.knobs import Knob
from fettle.core.shelf import SHELVES, Shelf

ROOT = Path(__file__).resolve().parent.parent
GENERATED = "<!-- Written by docs/make.py; change the source, then run `make docs`. -->"
SHIPPED = ("README.md", "CONTRIBUTING.md", "docs/**/*.md")


def main() -> int:
    """Write or check the pages."""
    pages = {ROOT / "docs/cli.md": cli_page(), ROOT / "docs/plugins.md": plugins_page()}
    if "--check" not in sys.argv:
        for path, text in pages.items():
            path.write_text(text, encoding="utf-8")
        return 0
    faults = [
        f"{path.relative_to(ROOT)} is out of date: run `make docs`"
        for path, text in pages.items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    for document in documents():
        faults += [*bad_commands(document), *bad_links(document)]
    for fault in faults:
        print(fault, file=sys.stderr)  # noqa: T201
    return 1 if faults else 0


def cli_page() -> str:
    """Return the help of every verb."""
    os.environ["COLUMNS"] = "96"
    parser = build_parser()
    parts = [GENERATED, "# The command line", "", "```text", help_of(parser).rstrip(), "```", ""]
    for name in verbs():
        with contextlib.redirect_stdout(io.StringIO()) as shown, contextlib.suppress(SystemExit):
            parser.parse_args([name, "--help"])
        parts += [f"## fettle {name}", "", "```text", shown.getvalue().rstrip(), "```", ""]
    return "\n".join(parts)


def help_of(parser: argparse.ArgumentParser) -> str:
    """Return a parser's help."""
    return parser.format_help()


def _plural(noun: str) -> str:
    return f"{noun}es" if noun.endswith("s") else f"{noun}s"


def plugins_page() -> str:
    """Return the card and the knobs of every plug-in."""
    parts = [GENERATED, "# Plug-ins", "", "One module each; the folder is the registry.", ""]
    for shelf in SHELVES:
        if shelf.names():
            parts += [f"## {_plural(shelf.kind.capitalize())}", ""]
            for name in shelf.names():
                parts += [*plugin_section(shelf, name), ""]
    return "\n".join(parts)


def plugin_section(shelf: Shelf, name: str) -> list[str]:
    """Return the section of one plug-in."""
    cls = shelf.load(name)
    card = (sys.modules[cls.__module__].__doc__ or "").strip()
    rows = [knob_row(knob) for knob in cls.knobs()]
    table = ["", "| knob | default | bounds | meaning |", "|---|---|---|---|", *rows]
    return [f"### `{name}`", "", card, *(table if rows else [])]


def knob_row(knob: Knob) -> str:
    """Return one row of a table of knobs."""
    bounds = str(knob.bounds).replace("|", "or") if knob.bounds else ""
    return f"| `{knob.name}` | `{knob.default!r}` | {bounds} | {knob.meaning} |"


def documents() -> list[Path]:
    """Return every document that a person reads."""
    return [path for pattern in SHIPPED for path in sorted(ROOT.glob(pattern))]


def bad_commands(document: Path) -> Iterator[str]:
    """Yield the `fettle …` lines in code blocks that the real parser refuses."""
    if document.name == "cli.md":
        return
    text = document.read_text(encoding="utf-8").replace("\\\n", " ")
    for block in re.findall(r"```(?:sh|bash|console)\n(.*?)```", text, re.DOTALL):
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["fettle"] and not parses(words[1:]):
                yield f"{document.relative_to(ROOT)}: `{line.strip()}` doesn't parse"


def parses(words: list[str]) -> bool:
    """Say whether the command line takes these words."""
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            build_parser(words[:1]).parse_args(words)
    except (SystemExit, InputError) as stop:
        return getattr(stop, "code", 2) in (0, None)
    return True


def bad_links(document: Path) -> Iterator[str]:
    """Yield the local links that lead nowhere."""
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8")):
        if "://" not in target and not (document.parent / target).exists():
            yield f"{document.relative_to(ROOT)}: the link `{target}` leads nowhere"


if __name__ == "__main__":
    sys.exit(main())
