"""A job: one piece of a study's work as data alone, which any process with fettle can do.

What a job reads goes along as parcels (the bytes of files, by name), fetched only where they are
not to be had otherwise; what it makes comes back as a parcel too. No object of ours is sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from fettle.core.errors import CheckFailed

RECORD = "stage.json"  # of a stage: its name and how long it took
ARRAYS = "arrays.npz"  # what a session is given, and what it gives
Parcel = dict[str, bytes]  # by a path relative to its folder, parts joined by `/`
Order = dict[str, Any]  # JSON


@dataclass(frozen=True)
class Need:
    """Files that a job reads: some of a folder of the driver's, under a name for this study."""

    name: str
    folder: Path
    files: tuple[str, ...] | None = None  # None: all

    def pack(self) -> Parcel:
        """Return the files; those that aren't there are left out."""
        if self.files is None:
            return pack(self.folder)
        found = {name: self.folder / name for name in self.files}
        return {name: path.read_bytes() for name, path in found.items() if path.is_file()}


@dataclass(frozen=True)
class Job:
    """One piece of work.

    Attributes:
        key: what is asked for under one key is asked for once.
        name: for people.
        order: what is to be done, as JSON: `fettle.search.executors._node` reads it.
        needs: what it reads of the driver's files.
        measures: whether this has to be done on a node of the target, with the node to itself.
        files: what goes along that lies in no folder.
    """

    key: str
    name: str
    order: Order
    needs: tuple[Need, ...] = ()
    measures: bool = False
    files: Parcel = field(default_factory=dict)


@dataclass(frozen=True)
class Done:
    """What came of a job: files, a JSON value, and the lines that were said meanwhile."""

    files: Parcel
    value: Any = None
    said: tuple[str, ...] = ()


class Lost(Exception):
    """Whoever did a job is gone, and the job with it; the message says who. No user's error."""


def pack(folder: Path) -> Parcel:
    """Return all files of a folder, empty when there is no such folder."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def unpack(parcel: Mapping[str, bytes], folder: Path) -> None:
    """Write the files of a parcel into a folder.

    Raises:
        CheckFailed: one of them would lie outside of the folder.
    """
    for name, content in parcel.items():
        inside = PurePosixPath(name)
        if inside.is_absolute() or ".." in inside.parts:
            raise CheckFailed(f"a node sent `{name}`, which leaves the stage's folder: refused")
        path = folder / inside
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
