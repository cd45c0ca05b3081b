"""What was written is read: as rows, as columns, in order, in part, and while it is written."""

import dataclasses
import sqlite3
import tracemalloc

import numpy as np
import pytest

from fettle.core.errors import DataError, InputError
from fettle.monitor import _reading
from fettle.monitor.frame import COLUMNS, Origin, joined
from fettle.monitor.log import LogSettings, PredictionLog, open_log


def test_rows_come_back_as_they_were(written, make):
    rows = [
        make(1, status="Late", error="too late", top=None, confidence=None),
        make(2, label="cat", route="a", key="", sha="ab"),
        make(3, model="other", label=0.25),
    ]
    with open_log(written(rows)) as log:
        assert list(log.rows()) == rows
        assert (len(log), log.labels) == (3, 2)
        assert log.span == (rows[0].time, rows[2].time)


def test_rows_of_a_clock_that_goes_backwards_come_in_order(written, make, monkeypatch):
    monkeypatch.setattr(_reading, "_AT_ONCE", 7)
    times = np.random.default_rng(0).integers(0, 40, size=100)
    path = written([make(at, time=make(int(t)).time) for at, t in enumerate(times)])
    with open_log(path) as log:
        ordered = [(p.time, int(p.id[1:])) for p in log.rows()]
        as_written = joined(list(log.frames(["id"], ordered=False)))
    assert ordered == sorted((make(int(t)).time, at) for at, t in enumerate(times))
    assert as_written["id"].tolist() == [f"r{at}" for at in range(100)]


@pytest.mark.parametrize("ordered", [True, False])
def test_a_part_is_read(written, make, ordered):
    with open_log(written([make(at) for at in range(50)])) as log:
        part = (make(10).time, make(20).time)
        expected = [f"r{at}" for at in range(10, 20)]
        assert [p.id for p in log.rows(*part)] == expected
        found = joined(list(log.frames(["id"], *part, ordered=ordered)))
    assert found["id"].tolist() == expected


def test_columns_say_what_rows_say(written, make):
    rows = [make(at, total_us=at, route="ab"[at % 2]) for at in range(30)]
    rows += [make(30, top=None, confidence=None, status="Broken", label=5)]
    with open_log(written(rows)) as log:
        frame = joined(list(log.frames()))
    assert set(frame.columns) == set(COLUMNS)
    for name in ("time", "batch", "queue_us", "compute_us", "total_us", "id", "key", "error"):
        assert frame[name].tolist() == [getattr(row, name) for row in rows]
    assert frame["time"].dtype == np.int64
    assert np.isnan(frame["top"][30])
    assert np.isnan(frame["confidence"][30])
    assert frame["label"].tolist() == [None] * 30 + [5]
    origin = frame.origins[int(frame["origin"][30])]
    assert origin == Origin("digits", "2", "0123456789abcdef", "only", "rest", "Broken")
    assert len(frame.where(route="b")) == 15
    assert len(frame.where(route="b", status="Broken")) == 0


def test_an_unknown_column_is_named(written, make):
    with open_log(written([make(1)])) as log, pytest.raises(InputError, match="colour"):
        next(log.frames(["colour"]))


def test_rows_that_come_while_it_is_read_are_read_too(path, make, monkeypatch):
    monkeypatch.setattr(_reading, "_AT_ONCE", 3)
    with PredictionLog(path) as log:
        for at in range(5):
            log.add(make(at, route="only"))
        assert log.flush()
        with open_log(path) as read:
            rows = read.rows()
            first = [next(rows).id for _ in range(4)]
            log.add(make(5, route="new"))
            assert log.flush()
            later = [row.id for row in rows]
    assert first + later == [f"r{at}" for at in range(6)]


def test_an_empty_log(written):
    with open_log(written([])) as log:
        assert (len(log), log.span, log.losses, list(log.rows())) == (0, None, {}, [])
        assert list(log.frames()) == []


def test_memory_is_bounded(written, make, monkeypatch):
    monkeypatch.setattr(_reading, "_AT_ONCE", 500)
    one = make(0)
    path = written([dataclasses.replace(one, id=f"{at:060}", time=at) for at in range(20_000)],
                   settings=LogSettings(retention_days=36500))  # fmt: skip
    with open_log(path) as log:
        next(log.rows())
        tracemalloc.start()
        assert sum(1 for _ in log.rows()) == 20_000
        assert sum(len(frame) for frame in log.frames()) == 20_000
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 2_000_000  # all of them are twenty times as much


def test_what_is_no_log_is_told(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        open_log(tmp_path / "none.db")
    text = tmp_path / "text.db"
    text.write_text("time,model\n" * 100)
    with pytest.raises(DataError, match="SQLite"):
        open_log(text)
    empty = tmp_path / "empty.db"
    empty.touch()
    with pytest.raises(DataError, match="another program"):
        open_log(empty)


def test_a_truncated_file_is_told_after_what_can_be_read(written, make):
    path = written([make(at) for at in range(20_000)])
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match="truncated"), open_log(path) as log:
        list(log.rows())


def test_columns_that_were_taken_away_are_told(written, make):
    path = written([make(1)])
    database = sqlite3.connect(path)
    database.execute("DROP VIEW log")
    database.execute("ALTER TABLE predictions DROP COLUMN confidence")
    database.close()
    with pytest.raises(DataError, match="confidence"), open_log(path) as log:
        list(log.rows())


def test_a_log_in_a_folder_that_can_not_be_written_is_read(written, make, tmp_path):
    path = written([make(1)])
    odd = tmp_path / "a ?#%20 folder"
    odd.mkdir()
    (odd / "log.db").write_bytes(path.read_bytes())
    odd.chmod(0o500)
    try:
        with open_log(odd / "log.db") as log:
            assert len(list(log.rows())) == 1
    finally:
        odd.chmod(0o700)
