"""Where bundles lie: what a command line names, what a folder of several holds, what has changed.

A place is given as `PATH`, `NAME=PATH` or `NAME:VERSION=PATH`. The path is a bundle, or a folder of
several: `NAME/` or `NAME/VERSION/` in it, as other servers lay out a repository.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from pathlib import Path

from fettle.core.bundle import is_bundle
from fettle.core.errors import BundleError, InputError

_GIVEN = re.compile(r"(?:(?P<name>[^=:/\\]+)(?::(?P<version>[^=]*))?=)?(?P<path>.+)", re.DOTALL)
_NAME = re.compile(r"[\w][\w.\-]*")
FIRST = "1"


@dataclass(frozen=True)
class Place:
    """A bundle's folder, and under what name and version it is served."""

    name: str
    version: str
    path: Path

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise InputError(
                f"a model's name expects letters, digits, `_`, `-` and `.`, got {self.name!r};"
                " give it one: NAME=PATH"
            )
        if not is_version(self.version):
            raise InputError(f"a model's version expects a whole number, got {self.version!r}")


def is_version(text: str) -> bool:
    """Say whether `text` is a version: a whole number above 0, written plainly."""
    return text.isascii() and text.isdigit() and not text.startswith("0") and len(text) < 19


def given(text: str) -> tuple[str, str, Path]:
    """Return the name ('' for none), the version ('' for none) and the path of `[NAME[:V]=]PATH`.

    Raises:
        InputError: nothing that reads so.
    """
    found = _GIVEN.fullmatch(text)
    if found is None:
        raise InputError(f"PATH, NAME=PATH or NAME:VERSION=PATH was expected, got {text!r}")
    return found["name"] or "", found["version"] or "", Path(found["path"])


def name_of(path: Path) -> str:
    """Return what a bundle in folder `path` is called: `best` takes the name of its study."""
    whole = path.absolute()
    return whole.parent.name if whole.name == "best" else whole.name


def bundles_in(folder: Path) -> list[Place]:
    """Return the bundles in a folder of several; what is none is passed over.

    Raises:
        BundleError: there is no such folder.
    """
    if not folder.is_dir():
        raise BundleError(f"a bundle, or a folder that holds some, was expected at {folder}")
    found = []
    for child in _folders(folder):
        if is_bundle(child):
            found.append(Place(child.name, FIRST, child))
            continue
        versions = (path for path in _folders(child) if is_version(path.name) and is_bundle(path))
        found += [Place(child.name, path.name, path) for path in versions]
    return found


def state_of(path: Path) -> Hashable:
    """Return what changes whenever the bundle in folder `path` is replaced or a file in it is.

    Costs a look at each of its few files and reads none.
    """
    try:
        files = sorted(path.resolve().iterdir())
        looks = [(file.name, file.stat()) for file in files]
    except OSError:
        return None
    return tuple((n, s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns) for n, s in looks)


def _folders(folder: Path) -> Iterable[Path]:
    """Return the folders in a folder; hidden ones are half-written ones of someone's."""
    children = sorted(folder.iterdir())
    return [p for p in children if p.is_dir() and _NAME.fullmatch(p.name)]
