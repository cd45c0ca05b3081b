"""Reading a prediction log, however long it is and while it is written, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from fettle.core.errors import InputError
from fettle.monitor._packing import unpack
from fettle.monitor._schema import damage, open_to_read
from fettle.monitor.frame import COLUMNS, Frame, Origin, column
from fettle.monitor.prediction import Prediction

_AT_ONCE = 20_000
_FEW = 32  # with their arrays
_FIRST, _LAST = -(2**63), 2**63 - 1
_ROW = tuple(name for name in COLUMNS if name != "origin")


_FAILURES = """
SELECT origin, substr(error, 1, 200) AS told, count(*), min(time), max(time), id
FROM predictions WHERE origin IN (SELECT origin FROM origins WHERE status != 'ok')
GROUP BY origin, told ORDER BY count(*) DESC, min(time) LIMIT ?
"""


class Failure(NamedTuple):
    """Failures of one origin that read alike: how many, from when to when, and one's id."""

    origin: Origin
    error: str
    n: int
    first: int
    last: int
    id: str


class LogFile:
    """A prediction log, to be read; a server may go on writing it.

    Rows are read some thousands at a time, each time anew: no reader holds up the writer, and rows
    that come meanwhile are read too.

    Raises:
        DataError: there is none, it is something else, damaged, or of an unknown schema.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._database = open_to_read(self.path)
        self._origins: dict[int, Origin] = {}

    def __len__(self) -> int:
        """How many predictions it holds."""
        return int(self.query("SELECT count(*) FROM predictions")[0][0])

    @property
    def origins(self) -> dict[int, Origin]:
        """All origins, by the numbers that frames refer to."""
        found = self.query("SELECT * FROM origins")
        self._origins.update((number, Origin(*values)) for number, *values in found)
        return self._origins

    @property
    def span(self) -> tuple[int, int] | None:
        """The first and the last time in it, in nanoseconds of the epoch; None of an empty log."""
        first, last = self.query("SELECT min(time), max(time) FROM predictions")[0]
        return None if first is None else (int(first), int(last))

    @property
    def losses(self) -> dict[str, int]:
        """What was not logged, by kind; see `Counts`."""
        return dict(self.query("SELECT kind, sum(count) FROM losses GROUP BY kind ORDER BY kind"))

    @property
    def labels(self) -> int:
        """How many labels it holds, of predictions or still without."""
        return int(self.query("SELECT count(*) FROM labels")[0][0])

    def failures(self, most: int = 1000) -> list[Failure]:
        """Return what failed, the most frequent first, at most so many kinds."""
        found = self.query(_FAILURES, most)
        known = self._known(row[0] for row in found)
        return [Failure(known[number], *values) for number, *values in found]

    def rows(
        self, since: int = _FIRST, until: int = _LAST, examples: bool = False
    ) -> Iterator[Prediction]:
        """Yield predictions in the order of their times, with their labels.

        Args:
            since: from which time on, in nanoseconds of the epoch.
            until: before which time.
            examples: only those whose arrays were kept, with these.

        Raises:
            DataError: the file is damaged; rows before the damage were yielded.
        """
        names = ("origin", *_ROW, "row") + (("arrays",) if examples else ())
        for piece in self._pieces(names, since, until, "time"):
            known = self._known(row[0] for row in piece)
            for number, *values in piece:
                yield _prediction(known[number], dict(zip(names[1:], values, strict=True)))

    def frames(
        self,
        columns: Sequence[str] = COLUMNS,
        since: int = _FIRST,
        until: int = _LAST,
        ordered: bool = True,
    ) -> Iterator[Frame]:
        """Yield all rows as columns, some thousands at a time.

        Args:
            columns: of `COLUMNS`; time and origin always come along.
            since: as `rows`.
            until: as `rows`.
            ordered: by time; else as they were written, which is quicker.

        Raises:
            InputError: no such column.
            DataError: as `rows`.
        """
        if unknown := set(columns) - set(COLUMNS):
            raise InputError(f"a log has the columns {', '.join(COLUMNS)}, not {sorted(unknown)}")
        names = tuple(dict.fromkeys(("time", "origin", *columns)))
        for piece in self._pieces((*names, "row"), since, until, "time" if ordered else "row"):
            values = list(zip(*piece, strict=True))
            found = {name: column(name, values[at]) for at, name in enumerate(names)}
            yield Frame(found, self._known(values[1]))

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _pieces(
        self, names: Sequence[str], since: int, until: int, order: str
    ) -> Iterator[list[tuple[Any, ...]]]:
        """Yield rows, each piece beginning after the last row of the one before."""
        statement = _statement(names, order, bool(self.labels))
        row, time = names.index("row"), names.index("time")
        at: tuple[int, ...] = (since, _FIRST) if order == "time" else (_FIRST,)
        at_once = _FEW if "arrays" in names else _AT_ONCE
        while piece := self.query(statement, *at, since, until, at_once):
            yield piece
            last = piece[-1]
            at = (last[time], last[row]) if order == "time" else (last[row],)

    def _known(self, numbers: Any) -> dict[int, Origin]:
        return self._origins if self._origins.keys() >= set(numbers) else self.origins

    def query(self, statement: str, *values: int) -> list[tuple[Any, ...]]:
        """Return what a statement on the tables of `_schema` gives.

        Raises:
            DataError: the file is damaged.
        """
        with damage(self.path):
            return self._database.execute(statement, values).fetchall()


def open_log(path: str | Path) -> LogFile:
    """Open a prediction log to read it.

    Raises:
        DataError: there is none, it is something else, damaged, or of an unknown schema.
    """
    return LogFile(path)


def _statement(names: Sequence[str], order: str, labelled: bool) -> str:
    places = {"label": "l.value" if labelled else "NULL", "arrays": "e.arrays"}
    chosen = ", ".join(places.get(name, f"p.{name}") for name in names)
    tables = "predictions p"
    if "arrays" in names:
        tables += " JOIN examples e ON e.row = p.row"
    if labelled and "label" in names:
        tables += " LEFT JOIN labels l ON l.id = p.id"
    after, by = ("(p.time, p.row) > (?, ?)", "p.time, p.row")
    if order == "row":
        after, by = ("p.row > ?", "p.row")
    return (
        f"SELECT {chosen} FROM {tables}"  # noqa: S608 - names of columns, checked
        f" WHERE {after} AND p.time >= ? AND p.time < ? ORDER BY {by} LIMIT ?"
    )


def _prediction(origin: Origin, values: dict[str, Any]) -> Prediction:
    del values["row"]
    sections = unpack(values.pop("arrays")) if "arrays" in values else {}
    for name in ("batch", "queue_us", "compute_us", "total_us"):
        values[name] = values[name] or 0
    values |= {"inputs": sections.get("input"), "outputs": sections.get("output")}
    return Prediction(**origin._asdict(), **values)
