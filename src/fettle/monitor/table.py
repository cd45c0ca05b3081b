"""Predictions of any other server, from a table: CSV, or Parquet where pyarrow is installed.

The table is read once, into a prediction log in a temporary folder. From there on it is read as any
log is: in the order of time, in windows, in bounded memory.
"""

from __future__ import annotations

import csv
import importlib
import itertools
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from fettle.core.errors import DataError, MissingError
from fettle.monitor._cells import Columns
from fettle.monitor._reading import LogFile
from fettle.monitor._schema import open_to_write
from fettle.monitor.prediction import OK

_AT_ONCE = 10_000
_SECOND = 10**9
_SQLITE = b"SQLite format 3\0"
_PREDICTION = "INSERT INTO predictions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_LABEL = "INSERT OR REPLACE INTO labels VALUES (?, ?, ?)"
_ORIGIN = "INSERT INTO origins VALUES (?, ?, ?, ?, ?, ?, ?)"

Rows = Iterable[Sequence[Any]]


class Table(LogFile):
    """A table of predictions, read as a log.

    Its columns are named as a log's are; `latency_ms`, `prediction`, `timestamp` and `target` are
    known too. What a table doesn't say is missing: rows without a time lie a second apart, in the
    order of the file.

    Attributes:
        features: columns that no log has.
        classes: numbers of classes that the table tells by their names.

    Raises:
        DataError: there is none, or what stands in a cell makes no sense; the line is named.
        MissingError: Parquet, without pyarrow.
    """

    def __init__(self, path: str | Path) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="fettle-table-")
        try:
            file = Path(self._folder.name) / "log.db"
            columns = _import(Path(path), file)
            super().__init__(file)
        except BaseException:
            self._folder.cleanup()
            raise
        self.features, self.classes = columns.features, columns.classes

    def close(self) -> None:
        """Let go of the table, and of the space that it took."""
        super().close()
        self._folder.cleanup()


def open_source(path: str | Path) -> LogFile:
    """Open predictions wherever they are: a log, or a table in CSV or Parquet.

    Raises:
        DataError: there is none, or it is damaged.
        MissingError: Parquet, without pyarrow.
    """
    place = Path(path)
    if not place.is_file():
        raise DataError(f"a log, CSV or Parquet file was expected at {place}, but there is none")
    with place.open("rb") as stream:
        start = stream.read(len(_SQLITE))
    return LogFile(place) if start == _SQLITE or place.suffix == ".db" else Table(place)


def _import(path: Path, file: Path) -> Columns:
    """Write the table in `path` as a log into `file`."""
    names, rows = _parquet(path) if path.suffix == ".parquet" else _csv(path)
    columns = Columns(names)
    database = open_to_write(file)
    try:
        database.execute("PRAGMA synchronous = OFF")  # it goes when it was read
        _write(database, columns, _checked(path, len(names), rows))
        database.execute("PRAGMA journal_mode = DELETE")
    finally:
        database.close()
    return columns


def _write(database: sqlite3.Connection, columns: Columns, rows: Rows) -> None:
    origins: dict[tuple[str, ...], int] = {}
    lines = enumerate(rows, 1)
    while piece := list(itertools.islice(lines, _AT_ONCE)):
        made = [_row(columns, line, row, origins) for line, row in piece]
        database.execute("BEGIN")
        database.executemany(_PREDICTION, [row for row, _ in made])
        labels = [(row[3], label, row[1]) for row, label in made if label is not None]
        database.executemany(_LABEL, labels)
        database.execute("COMMIT")
    database.executemany(_ORIGIN, [(number, *origin) for origin, number in origins.items()])


def _row(
    columns: Columns, line: int, row: Sequence[Any], origins: dict[tuple[str, ...], int]
) -> tuple[tuple[Any, ...], Any]:
    """Return a row of the log, and its label."""
    try:
        time = columns.time_ns(row)
        names = ("model", "version", "sha", "route", "protocol")
        origin = (*(columns.text(row, n) for n in names), columns.text(row, "status", OK))
        durations = [columns.duration(row, n) for n in ("queue_us", "compute_us", "total_us")]
        found = (
            line,
            line * _SECOND if time is None else time,
            origins.setdefault(origin, len(origins) + 1),
            columns.text(row, "id", f"row-{line}"),
            columns.text(row, "key"),
            columns.text(row, "error"),
            columns.number(row, "batch"),
            *durations,
            columns.answer(row, "top"),
            columns.number(row, "confidence"),
            columns.number(row, "agreement"),
        )
        return found, columns.answer(row, "label")
    except DataError as error:
        raise DataError(f"row {line}: {error}") from None


def _checked(path: Path, width: int, rows: Rows) -> Iterator[Sequence[Any]]:
    """Yield rows that have as many cells as the table has columns; blank lines are left out."""
    for line, row in enumerate(rows, 1):
        if len(row) == width:
            yield row
        elif row:
            raise DataError(
                f"{path}, row {line}: {width} cells were expected, got {len(row)}; was the file"
                " truncated?"
            )


def _csv(path: Path) -> tuple[list[str], Rows]:
    """Return the names of the columns and an iterator of rows; `,`, `;` or tabs part the cells."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
        head = stream.readline()
    if not head.strip():
        raise DataError(f"{path} is empty: a line with the names of its columns was expected")
    separator = max(",;\t", key=head.count)
    rows = _lines(path, separator)
    return list(next(rows)), rows


def _lines(path: Path, separator: str) -> Iterator[Sequence[str]]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        try:
            yield from csv.reader(stream, delimiter=separator)
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"{path} can't be read as CSV in UTF-8 ({error})") from error


def _parquet(path: Path) -> tuple[list[str], Rows]:
    try:
        parquet: Any = importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise MissingError("reading Parquet needs pyarrow", "pip install pyarrow") from None
    try:
        file = parquet.ParquetFile(path)
    except (OSError, ValueError) as error:  # which pyarrow's own errors are
        raise DataError(f"{path} can't be read as Parquet ({error})") from error
    names = list(file.schema_arrow.names)

    def rows() -> Iterator[Sequence[Any]]:
        for batch in file.iter_batches(_AT_ONCE):
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)

    return names, rows()
