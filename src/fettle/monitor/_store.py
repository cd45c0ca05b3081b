"""Writing a prediction log: rows in bulk, labels, losses, and letting old ones go.

Rows go in 256 to a statement: SQLite's module gives up the interpreter's lock for each statement,
and getting it back from a busy server costs more than the rows.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from fettle.monitor._packing import pack
from fettle.monitor._schema import COLUMNS, open_to_write
from fettle.monitor._waiting import Load
from fettle.monitor.prediction import Prediction

_AT_ONCE = 256
_MOST_ORIGINS = 4096  # for who asks for models by made-up names
_OTHERS = ("(others)", "", "")
_UNFIT = (
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    sqlite3.DataError,
    sqlite3.IntegrityError,
    OverflowError,
    ValueError,
)
_NEW_ORIGIN = "INSERT OR IGNORE INTO origins VALUES (NULL, ?, ?, ?, ?, ?, ?)"
_FIND_ORIGIN = """
SELECT origin FROM origins
WHERE (model, version, sha, route, protocol, status) = (?, ?, ?, ?, ?, ?)
"""
_LABEL = """
INSERT INTO labels VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE
SET value = excluded.value, time = excluded.time WHERE excluded.time >= time
"""
_EXAMPLE = """
INSERT INTO examples SELECT ?1, ?2 WHERE EXISTS (SELECT 1 FROM predictions WHERE row = ?1)
"""
_AGED = """
DELETE FROM {table} WHERE rowid IN
(SELECT rowid FROM {table} WHERE time < ? ORDER BY time LIMIT ?)
"""
_SURPLUS = """
DELETE FROM {table} WHERE rowid IN (SELECT rowid FROM {table} WHERE rowid <= ? LIMIT ?)
"""


class Store:
    """An open log; used by one thread.

    Raises:
        DataError, sqlite3.Error: as `open_to_write`.
    """

    def __init__(self, path: Path) -> None:
        self._database = open_to_write(path)
        self._origins: dict[tuple[str, ...], int] = {}
        self._path, self._inode = path, path.stat().st_ino

    @property
    def moved(self) -> bool:
        """Whether the file was taken away, as is done to start a new one each day."""
        try:
            return self._path.stat().st_ino != self._inode
        except OSError:
            return True

    def write(self, load: Load, time_ns: int) -> Counter[str]:
        """Write all of `load` or nothing.

        Returns:
            What of it can't be stored as it is: "unfit" rows and labels, and "examples".

        Raises:
            sqlite3.Error: the disk is full, or fails.
        """
        with self._transaction():
            lost = self._write_predictions(load.predictions)
            lost["unfit"] += sum(not self._fits(_LABEL, label) for label in load.labels)
            self.lose(lost + Counter(load.lost), time_ns)
        return lost

    def lose(self, lost: Mapping[str, int], time_ns: int) -> None:
        """Note how many of each kind the log does not hold."""
        rows = [(time_ns, kind, count) for kind, count in lost.items() if count]
        self._database.executemany("INSERT INTO losses VALUES (?, ?, ?)", rows)

    def retain(self, most: int, oldest_ns: int, at_once: int) -> int:
        """Delete up to `at_once` rows of a table that are too old or too many; return how many.

        Raises:
            sqlite3.Error: as `write`.
        """
        deleted = 0
        with self._transaction():
            for table in ("predictions", "labels"):
                deleted += self._delete(_AGED.format(table=table), oldest_ns, at_once)
                surplus = self._last(table) - most
                deleted += self._delete(_SURPLUS.format(table=table), surplus, at_once)
        return deleted

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    def _write_predictions(self, predictions: Sequence[Prediction]) -> Counter[str]:
        first = self._last("predictions") + 1
        lost: Counter[str] = Counter()
        for start, stop in _pieces(len(predictions)):
            lost["unfit"] += self._write_piece(first + start, predictions[start:stop])
        for row, prediction in enumerate(predictions, first):
            if prediction.inputs is not None:
                lost["examples"] += not self._write_example(row, prediction)
        return lost

    def _write_piece(self, first: int, predictions: Sequence[Prediction]) -> int:
        """Write rows by one statement, or singly where one doesn't fit; return how many don't."""
        rows: list[Any] = []
        for row, p in enumerate(predictions, first):
            known = (p.model, p.version, p.sha, p.route, p.protocol, p.status)
            origin = self._origins.get(known) or self._origin(known)
            rows += (row, p.time, origin, p.id, p.key, p.error, p.batch)
            rows += (p.queue_us, p.compute_us, p.total_us, p.top, p.confidence, p.agreement)
        if self._fits(_insertion(len(predictions)), rows):
            return 0
        singles = (rows[at : at + len(COLUMNS)] for at in range(0, len(rows), len(COLUMNS)))
        return sum(not self._fits(_insertion(1), [_plain(v) for v in single]) for single in singles)

    def _origin(self, known: tuple[str, ...]) -> int:
        """Return the number under which an origin's values stand, and keep it in mind."""
        if len(self._origins) >= _MOST_ORIGINS:
            return self._numbered((*_OTHERS, *known[len(_OTHERS) :]))
        self._origins[known] = number = self._numbered(known)
        return number

    def _numbered(self, values: tuple[str, ...]) -> int:
        plain = [_plain(value) for value in values]
        self._database.execute(_NEW_ORIGIN, plain)
        return int(self._database.execute(_FIND_ORIGIN, plain).fetchone()[0])

    def _write_example(self, row: int, prediction: Prediction) -> bool:
        try:
            arrays = pack({"input": prediction.inputs, "output": prediction.outputs})
        except (ValueError, TypeError):  # neither numbers nor text
            return False
        return self._fits(_EXAMPLE, (row, arrays))

    def _fits(self, statement: str, values: Sequence[Any]) -> bool:
        try:
            self._database.execute(statement, values)
        except _UNFIT:
            return False
        return True

    def _delete(self, statement: str, *values: int) -> int:
        return max(0, self._database.execute(statement, values).rowcount)

    def _last(self, table: str) -> int:
        found = self._database.execute(f"SELECT max(rowid) FROM {table}")  # noqa: S608 - our names
        return found.fetchone()[0] or 0

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._database.execute("COMMIT")
        except BaseException:
            self._origins.clear()  # some may be of the rows that are taken back
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise


def _pieces(count: int) -> Iterator[tuple[int, int]]:
    """Yield bounds of pieces, of few different lengths: each needs a statement of its own."""
    start = 0
    while start < count:
        length = min(_AT_ONCE, 1 << (count - start).bit_length() - 1)
        yield start, start + length
        start += length


@cache
def _insertion(rows: int) -> str:
    marks = f"({', '.join('?' * len(COLUMNS))})"
    return f"INSERT INTO predictions VALUES {', '.join([marks] * rows)}"  # noqa: S608 - only marks


def _plain(value: Any) -> Any:
    """Return what SQLite stores: no numpy scalars, no halves of surrogate pairs."""
    if isinstance(value, np.generic):
        return value.item()
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
