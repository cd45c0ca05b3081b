"""Compiled models, kept in the user's cache folder so that a session starts sooner.

An entry is named by all that it depends on: the bytes of the model, the lowering and its source,
the engine, its version and options, the processor. It is written to a temporary name first. Some
engines' entries are code that runs as this process, so none is taken but from a file and a folder
of this user's own, which nobody else can write, and with a SHA-256 that fits; it covers the entry's
name too, so that no entry passes for another. The oldest go when all together grow too large. A
cache that can't be written is no cache, never an error.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import inspect
import os
import stat
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fettle.core.cache import cache_folder
from fettle.core.errors import FettleError
from fettle.core.files import replacing
from fettle.core.hashing import file_sha256, json_sha256
from fettle.core.machine import this_machine
from fettle.core.recipe import parse_step
from fettle.runtimes import _graphs
from fettle.runtimes._lowering import Source

LARGEST = 1 << 30  # bytes of one entry
LIMIT = 4 << 30  # bytes of all
_FORMAT = b"fettle cache 2\n"
_DIGEST = 32
_PASSES = "fettle.graph"
_BELOW = ("onnx", "onnx-ir", "numpy")
_OTHERS = stat.S_IWGRP | stat.S_IWOTH


class Cache:
    """Entries of one engine: format, SHA-256 of the rest and of the name, contents."""

    def __init__(self, engine: str) -> None:
        self.folder = cache_folder() / engine

    def kept(self, key: str) -> bytes | None:
        """Return the entry, or None where there is no sound one."""
        path = self._path(key)
        try:
            with path.open("rb") as stream:
                # of the open file: its name may be another's the next moment
                if not (_own(self.folder.stat()) and _own(os.fstat(stream.fileno()))):
                    return None
                written = stream.read(len(_FORMAT)), stream.read(_DIGEST)
                entry = stream.read()
            os.utime(path)
        except OSError:
            return None
        return entry if written == (_FORMAT, self._digest(key, entry)) else None

    def keep(self, key: str, entry: bytes) -> None:
        """Write the entry, and let the oldest go."""
        if len(entry) > LARGEST:
            return
        with contextlib.suppress(OSError, FettleError):
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not _own(self.folder.stat()):
                return
            with replacing(self._path(key)) as temporary, temporary.open("wb") as stream:
                stream.write(_FORMAT)
                stream.write(self._digest(key, entry))
                stream.write(entry)
            self._shrink()

    def _digest(self, key: str, entry: bytes) -> bytes:
        digest = hashlib.sha256(f"{self.folder.name}/{key}\n".encode())
        digest.update(entry)
        return digest.digest()

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.model"

    def _shrink(self) -> None:
        entries = [(path, path.stat()) for path in self.folder.glob("*.model")]
        total = sum(found.st_size for _, found in entries)
        for path, found in sorted(entries, key=lambda entry: entry[1].st_mtime):
            if total <= LIMIT:
                return
            path.unlink(missing_ok=True)
            total -= found.st_size


def key_of(source: Source, engine: str, options: Any) -> str | None:
    """Return the name of what an engine makes of a model, or None for a file that isn't sound.

    Args:
        source: the ONNX file, of which weights beside it are a part, and the lowering, of which
            its source code is.
        engine: its name and version.
        options: what it is built with, as a JSON value.
    """
    try:
        contents = source.model.read_bytes()
        beside = sorted(_beside(source.model, contents))
        files = [hashlib.sha256(contents).hexdigest(), *(file_sha256(path) for path in beside)]
    except Exception:  # the build says what is wrong; protobuf's errors have no base in common
        return None
    steps = source.lowering
    about = [files, list(steps), _sources(steps), engine, options, this_machine().to_json()]
    return json_sha256(about)[:32]


def _beside(model: Path, contents: bytes) -> list[Path]:
    if b"location" not in contents:  # which each tensor that lies elsewhere has to say
        return []
    return [model.parent / name for name in _graphs.files_beside(_graphs.read(contents))]


def _sources(lowering: Sequence[str]) -> list[Any]:
    """Return hashes of the code of each step's package, and the versions of what it stands on."""
    if not lowering:
        return []
    files = sorted({path for step in lowering for path in _folder_of(step).glob("*.py")})
    return [*(file_sha256(path) for path in files), [version(name) for name in _BELOW]]


def _folder_of(step: str) -> Path:
    """Return where the code of a step lies; fettle's own isn't imported, which takes long."""
    found = importlib.util.find_spec(_PASSES)
    folder = Path(str(found.origin)).parent if found else Path()
    if (folder / f"{step.partition('(')[0].rpartition('.')[2]}.py").is_file():
        return folder
    return Path(inspect.getfile(type(parse_step(step)))).parent


def _own(found: os.stat_result) -> bool:
    """Say whether this is the user's, and nobody else can write it."""
    if not hasattr(os, "getuid"):
        return True
    return found.st_uid == os.getuid() and not found.st_mode & _OTHERS
