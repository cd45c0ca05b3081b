"""A table of predictions is read as a log: columns found, cells checked, rows in order."""

import re
import sys
from datetime import UTC, datetime

import numpy as np
import pytest

from fettle.core.errors import DataError, MissingError
from fettle.monitor.latency import summarize
from fettle.monitor.table import Table, open_source


@pytest.fixture
def table(tmp_path):
    """Write a CSV file."""

    def write(text, name="table.csv"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def rows_of(path):
    with open_source(path) as log:
        return list(log.rows())


def test_columns_are_known_by_their_names(table):
    (row,) = rows_of(table(
        "id,Timestamp,model,route,status,latency_ms,queue_us,compute_s,prediction,confidence,"
        "target,batch,key\nr1,2026-01-02T03:04:05.5Z,m,a,ok,1.5,20,0.001,3,0.75,4,8,me\n"
    ))  # fmt: skip
    moment = datetime(2026, 1, 2, 3, 4, 5, 500_000, tzinfo=UTC)
    assert row.time == int(moment.timestamp() * 1000) * 10**6
    assert (row.id, row.model, row.route, row.status, row.key) == ("r1", "m", "a", "ok", "me")
    assert (row.total_us, row.queue_us, row.compute_us) == (1500, 20, 1000)
    assert (row.top, row.confidence, row.label, row.batch) == (3, 0.75, 4, 8)


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1700000000", 1_700_000_000 * 10**9),
        ("1700000000.25", 1_700_000_000 * 10**9 + 250_000_000),
        ("1700000000123", 1_700_000_000_123 * 10**6),
        ("1700000000123456", 1_700_000_000_123_456 * 10**3),
        ("1700000000123456789", 1_700_000_000_123_456_789),
        ("2023-11-14 22:13:20", 1_700_000_000 * 10**9),
        ("2023-11-14T23:13:20+01:00", 1_700_000_000 * 10**9),
    ],
)
def test_times_of_all_kinds(table, text, ns):
    assert rows_of(table(f"time,label\n{text},1\n"))[0].time == ns


def test_rows_come_in_the_order_of_time_and_without_one_in_that_of_the_file(table):
    timed = table("time,id\n3,c\n1,a\n2,b\n")
    assert [row.id for row in rows_of(timed)] == ["a", "b", "c"]
    untimed = table("label\n5\n6\n", "other.csv")
    assert [(row.id, row.label) for row in rows_of(untimed)] == [("row-1", 5), ("row-2", 6)]


def test_classes_told_by_name_have_one_number_in_both_columns(table):
    path = table("prediction;label\ncat;dog\ndog;dog\nbird;cat\n")
    with Table(path) as log:
        found = [(row.top, row.label) for row in log.rows()]
        assert log.classes == {"cat": 0, "dog": 1, "bird": 2}
    assert found == [(0, 1), (1, 1), (2, 0)]


def test_values_of_a_regression_and_missing_ones(table):
    rows = rows_of(table("prediction\tlabel\tconfidence\n0.5\t\tnan\n2\t1.5\t0.1\n"))
    assert [(r.top, r.label, r.confidence) for r in rows] == [(0.5, None, None), (2, 1.5, 0.1)]


def test_a_summary_needs_no_more_than_latencies(table):
    lines = "\n".join(f"{at},{at * 10}" for at in range(1, 101))
    with open_source(table(f"time,latency_ms\n{lines}\n")) as log:
        (series,) = summarize(log, 1000).to_json()["series"]
    found = series["all"]
    assert found["n"] == 100
    assert found["latency_ms"]["p50"]["value"] == pytest.approx(500, rel=0.004)
    assert found["latency_ms"]["p50"]["n"] == 100
    assert (found["compute_ms"]["n"], found["batch"], found["waiting"]) == (0, None, None)


def test_columns_that_no_log_has_are_features(table):
    with Table(table("time,age,income,label\n1,2,3,4\n")) as log:
        assert log.features == ("age", "income")


def test_the_temporary_log_goes(table):
    log = Table(table("label\n1\n"))
    assert log.path.exists()
    log.close()
    assert not log.path.exists()


def test_many_rows_and_blank_lines(table):
    text = "time,label\n" + "".join(f"{at},{at % 7}\n\n" for at in range(25_000))
    with open_source(table(text)) as log:
        assert len(log) == 25_000
        frames = list(log.frames(["label"]))
    labels = np.concatenate([frame["label"] for frame in frames])
    assert labels.tolist() == [at % 7 for at in range(25_000)]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("a,b\n1,2\n", "no column is known among a, b"),
        ("time,label\n1,2\n3\n", "row 2: 2 cells were expected, got 1; was the file truncated"),
        ("time,label\nnever,2\n", "row 1: column `time` expects a number or ISO 8601, got 'never'"),
        ("time,confidence\n1,high\n", "row 1: column `confidence` expects a number, got 'high'"),
        ("time,confidence\n1,inf\n", "finite"),
        ("time,confidence\nnan,1\n", "column `time`"),
        ("latency_ms\n1\n-2\n", "row 2: column `total_us` expects a duration, got -2"),
    ],
)
def test_what_makes_no_sense_is_told_with_its_place(table, text, says):
    with pytest.raises(DataError, match=re.escape(says)):
        open_source(table(text))


def test_what_is_no_text_is_told(tmp_path):
    path = tmp_path / "table.csv"
    path.write_bytes(b"time,label\n\xff\xfe\x00,1\n")
    with pytest.raises(DataError, match="UTF-8"):
        open_source(path)
    with pytest.raises(DataError, match="there is none"):
        open_source(tmp_path / "none.csv")


def test_a_log_is_told_by_what_it_is(written, make, tmp_path):
    path = written([make(1)])
    other = tmp_path / "log.data"
    path.rename(other)
    with open_source(other) as log:
        assert not isinstance(log, Table)
        assert [row.id for row in log.rows()] == ["r1"]


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow isn't installed")
    from pyarrow import parquet

    moments = [datetime(2026, 1, 1, 0, 0, second, tzinfo=UTC) for second in (2, 1)]
    columns = {"time": moments, "prediction": ["cat", None], "latency_ms": [1.5, float("nan")]}
    path = tmp_path / "table.parquet"
    parquet.write_table(pyarrow.table(columns), path)
    with Table(path) as log:
        last, first = log.rows()
    assert (first.top, first.total_us, last.top) == (0, 1500, None)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(DataError, match="Parquet"):
        Table(path)


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    path = tmp_path / "table.parquet"
    path.write_bytes(b"PAR1")
    with pytest.raises(MissingError, match="pip install pyarrow"):
        Table(path)
