"""The store of stages: whatever was made once is found again by the hash of what made it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fettle.core.errors import InputError
from fettle.core.files import replacing_folder, storage_errors, write_json
from fettle.search.journal import Journal

_RECORD = "stage.json"


@dataclass(frozen=True)
class Stage:
    """One piece of work: its name, how long it took when it was done, and whether it was found."""

    name: str
    seconds: float
    cached: bool

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"name": self.name, "seconds": round(self.seconds, 3), "cached": self.cached}


class Store:
    """Folders by key under `root/stages`; a folder exists only when its stage was finished."""

    def __init__(self, root: Path, journal: Journal) -> None:
        self.root, self.journal = root, journal

    def make(self, key: str, name: str, work: Callable[[Path], None]) -> tuple[Path, Stage]:
        """Return the folder of stage `key`, letting `work` fill it if it isn't there yet."""
        folder, found = self.folder(key), self.find(key, name)
        if found is not None:
            return folder, found
        started = time.perf_counter()
        with replacing_folder(folder) as temporary:
            work(temporary)
            seconds = self._seconds(temporary, time.perf_counter() - started)
            write_json(temporary / _RECORD, {"name": name, "seconds": seconds})
        self.drop_checkpoints(key)
        self.journal.write("stage", key=key, name=name, seconds=round(seconds, 3))
        return folder, Stage(name, seconds, cached=False)

    def folder(self, key: str) -> Path:
        """Return where stage `key` is, or would be."""
        return self.root / "stages" / key

    def find(self, key: str, name: str) -> Stage | None:
        """Return the record of stage `key` when it is finished, else None."""
        record = self._record(self.folder(key))
        return Stage(name, record["seconds"], cached=True) if record else None

    def has(self, key: str) -> bool:
        """Say whether stage `key` is finished."""
        return self._record(self.folder(key)) is not None

    def value(self, key: str, name: str, work: Callable[[], Any]) -> tuple[Any, Stage]:
        """Return the JSON value of stage `key`, computing it if it isn't there yet."""
        folder, stage = self.make(
            key, name, lambda temporary: write_json(temporary / "value.json", work())
        )
        return json.loads((folder / "value.json").read_text(encoding="utf-8")), stage

    def checkpoints(self, key: str) -> Path:
        """Return where the training of stage `key` may save its state."""
        return self.root / "checkpoints" / key

    def drop_checkpoints(self, key: str) -> None:
        """Remove the saved state of a training whose outcome is kept elsewhere by now."""
        shutil.rmtree(self.checkpoints(key), ignore_errors=True)

    def _seconds(self, folder: Path, here: float) -> float:
        """Return how long a stage took: what its record says where another machine made it."""
        record = self._record(folder)
        return float(record["seconds"]) if record else here

    @staticmethod
    def _record(folder: Path) -> dict[str, Any] | None:
        try:
            record: Any = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return record if isinstance(record, dict) and "seconds" in record else None


@contextlib.contextmanager
def sole_worker(root: Path) -> Iterator[None]:
    """Hold the folder `root` for this process; remove what a killed one left half-written.

    Raises:
        InputError: another process works in it.
    """
    with storage_errors(root):
        root.mkdir(parents=True, exist_ok=True)
        lock = (root / ".lock").open("w", encoding="utf-8")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(
                f"another fettle is working in {root}: wait for it, or give another `--out`"
            ) from error
        for folder in (root, root / "stages"):
            for left in folder.glob(".*.tmp"):
                if left.is_dir():
                    shutil.rmtree(left, ignore_errors=True)
                else:
                    left.unlink(missing_ok=True)
        yield
