"""The tables of a prediction log, and how its file is opened.

A prediction refers to its origin: the model, version, bundle, route, protocol and status that
thousands of rows share. Labels have a table of their own, for they come when they like: late,
twice, or before the prediction. A label's id is looked up when rows are read, so that writing a
prediction touches no index but that of time, which only grows at its end.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from fettle.core.errors import DataError, StorageError

VERSION = 2
_APPLICATION = 0x66746C65  # "ftle"
_PATIENCE_S = 5.0  # for another process that writes

ORIGIN = ("model", "version", "sha", "route", "protocol", "status")
NUMBERS = ("batch", "queue_us", "compute_us", "total_us", "top", "confidence", "agreement")
COLUMNS = ("row", "time", "origin", "id", "key", "error", *NUMBERS)

_TABLES = """
CREATE TABLE origins (
    origin INTEGER PRIMARY KEY, model TEXT NOT NULL, version TEXT NOT NULL, sha TEXT NOT NULL,
    route TEXT NOT NULL, protocol TEXT NOT NULL, status TEXT NOT NULL,
    UNIQUE (model, version, sha, route, protocol, status)
);
CREATE TABLE predictions (
    row INTEGER PRIMARY KEY, time INTEGER NOT NULL, origin INTEGER NOT NULL, id TEXT NOT NULL,
    key TEXT NOT NULL, error TEXT NOT NULL, batch INTEGER, queue_us INTEGER,
    compute_us INTEGER, total_us INTEGER, top INTEGER, confidence REAL,
    agreement REAL
);
CREATE INDEX predictions_time ON predictions (time);
CREATE TABLE labels (id TEXT PRIMARY KEY, value NOT NULL, time INTEGER NOT NULL);
CREATE INDEX labels_time ON labels (time);
CREATE TABLE examples (row INTEGER PRIMARY KEY, arrays BLOB NOT NULL);
CREATE TABLE losses (time INTEGER NOT NULL, kind TEXT NOT NULL, count INTEGER NOT NULL);
CREATE TRIGGER example_goes AFTER DELETE ON predictions BEGIN
    DELETE FROM examples WHERE row = old.row;
END;
CREATE VIEW log AS
    SELECT row, datetime(p.time / 1000000000, 'unixepoch') AS at, p.time, p.id, model, version,
        sha, route, protocol, status, key, error, batch, queue_us, compute_us, total_us, top,
        confidence, agreement, value AS label
    FROM predictions p JOIN origins USING (origin) LEFT JOIN labels l ON l.id = p.id;
"""


def open_to_write(path: Path) -> sqlite3.Connection:
    """Open the log in file `path`, or make it.

    Raises:
        DataError: the file is something else, or of a schema that isn't known here.
        sqlite3.Error: it can't be written now.
    """
    database = sqlite3.connect(path, _PATIENCE_S, isolation_level=None, check_same_thread=False)
    try:
        with _no_database(path):
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")  # a log may lose its last second
            database.execute("PRAGMA journal_size_limit = 67108864")
            _make(database)
            check(database, path)
    except BaseException:
        database.close()
        raise
    return database


def open_to_read(path: Path) -> sqlite3.Connection:
    """Open the log in file `path`, which may be written meanwhile.

    Raises:
        DataError: there is none, it is something else, damaged, or of an unknown schema.
    """
    if not path.is_file():
        raise DataError(f"a prediction log was expected at {path}, but there is no such file")
    database = _reading(path)
    try:
        with damage(path), _no_database(path):
            check(database, path)
    except BaseException:
        database.close()
        raise
    return database


def check(database: sqlite3.Connection, path: Path) -> None:
    """Raise DataError unless this is a log that this version reads."""
    found, version = _number(database, "application_id"), _number(database, "user_version")
    if found != _APPLICATION:
        raise DataError(f"{path} is a database of another program, not a prediction log of fettle")
    if version != VERSION:
        raise DataError(
            f"{path} has schema {version}, this fettle knows {VERSION}: upgrade fettle, or log to"
            " another file"
        )


@contextlib.contextmanager
def damage(path: Path) -> Iterator[None]:
    """Turn what SQLite says of a damaged file into a DataError."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise DataError(
            f"{path} is damaged or truncated ({error}); what can still be read of it is saved by"
            f" `sqlite3 {path.name} .recover`"
        ) from error


@contextlib.contextmanager
def refusals(path: Path) -> Iterator[None]:
    """Turn what keeps a log from being written at all into a StorageError."""
    try:
        yield
    except sqlite3.Error as error:
        raise StorageError(
            f"the prediction log {path} can't be written ({error}): choose a file in a folder that"
            " you may write, with space left"
        ) from error


def _make(database: sqlite3.Connection) -> None:
    """Make the tables in a new file; another process may be about to do the same."""
    if _number(database, "application_id") or _tables(database):
        return
    database.execute("BEGIN IMMEDIATE")
    try:
        if not _tables(database):
            for statement in _statements():
                database.execute(statement)
            database.execute(f"PRAGMA application_id = {_APPLICATION}")
            database.execute(f"PRAGMA user_version = {VERSION}")
        database.execute("COMMIT")
    except BaseException:
        database.execute("ROLLBACK")
        raise


def _statements() -> Iterator[str]:
    """Yield the statements one by one: `executescript` would end the transaction."""
    text = ""
    for line in _TABLES.splitlines(keepends=True):
        text += line
        if sqlite3.complete_statement(text):
            yield text
            text = ""


def _reading(path: Path) -> sqlite3.Connection:
    """Open read-only; where not even the index of the journal can be made, as what doesn't move."""
    place = f"file:{quote(path.absolute().as_posix())}"
    for mode in ("mode=ro", "immutable=1"):
        database = sqlite3.connect(f"{place}?{mode}", _PATIENCE_S, uri=True, isolation_level=None)
        try:
            database.execute("SELECT 1 FROM sqlite_master").fetchone()
        except sqlite3.OperationalError:
            database.close()
        except sqlite3.DatabaseError:  # no database at all: told by whoever looks into it
            return database
        else:
            return database
    raise DataError(f"{path} can't be opened to be read: check that you may read it")


@contextlib.contextmanager
def _no_database(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        if "not a database" not in str(error):
            raise
        raise DataError(f"{path} is no prediction log: it isn't an SQLite database") from error


def _tables(database: sqlite3.Connection) -> int:
    return int(database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])


def _number(database: sqlite3.Connection, pragma: str) -> int:
    return int(database.execute(f"PRAGMA {pragma}").fetchone()[0])
