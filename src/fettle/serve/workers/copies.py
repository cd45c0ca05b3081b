"""Copies of bundles that worker processes read, whatever becomes of the folders meanwhile.

Each is locked by the server that made it. What a killed server left behind is unlocked, and is
removed when the next copy is made.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

from fettle.core.bundle import Bundle
from fettle.core.errors import StorageError

_PREFIX = "fettle-worker-"
_LOCK = "lock"


class Copy:
    """A copy of a bundle's folder, removed by `close`.

    Raises:
        StorageError: there is no room for it.
    """

    def __init__(self, bundle: Bundle) -> None:
        remove_abandoned()
        self._folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        self.path = self._folder / "bundle"
        self._lock = -1
        try:
            self._lock = _locked(self._folder)
            shutil.copytree(bundle.path, self.path)
        except (OSError, shutil.Error) as error:
            self.close()
            raise StorageError(
                f"worker processes expect room for a copy of {bundle.path} in"
                f" {self._folder.parent}: {error}; set TMPDIR to a folder that has it"
            ) from error

    def close(self) -> None:
        """Remove it."""
        shutil.rmtree(self._folder, ignore_errors=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def remove_abandoned() -> None:
    """Remove the copies of servers that are no more."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # someone else's, or gone meanwhile
            _remove_unlocked(folder)


def _remove_unlocked(folder: Path) -> None:
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(descriptor)


def _locked(folder: Path) -> int:
    """Return the descriptor of the folder's lock, which is there only once it is held."""
    fresh = folder / "fresh"
    descriptor = os.open(fresh, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    fresh.rename(folder / _LOCK)
    return descriptor
