"""The log writes what it is given, and says of everything else how much it was and why."""

import sqlite3
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from fettle.core.errors import DataError, InputError, KnobError, StorageError
from fettle.monitor import _schema, _writer
from fettle.monitor._preparing import sampled
from fettle.monitor.answered import Answered, predictions
from fettle.monitor.log import LogSettings, PredictionLog, open_log


def rows_in(path, statement="SELECT * FROM log ORDER BY row"):
    database = sqlite3.connect(path)
    database.row_factory = sqlite3.Row
    rows = [dict(row) for row in database.execute(statement)]
    database.close()
    return rows


def test_a_row_holds_all_that_was_said(written, make):
    path = written([make(1, status="Broken", error="no", top=None, confidence=None)])
    (row,) = rows_in(path)
    assert row.pop("at").startswith("2100-01-01 00:00:00")
    assert row == {
        "row": 1, "time": make(1).time, "id": "r1", "model": "digits", "version": "2",
        "sha": "0123456789abcdef", "route": "only", "protocol": "rest", "status": "Broken",
        "key": "me", "error": "no", "batch": 4, "queue_us": 30, "compute_us": 200,
        "total_us": 400, "top": None, "confidence": None, "agreement": None, "label": None,
    }  # fmt: skip


@pytest.mark.parametrize("count", [1, 255, 256, 257, 1000])
def test_no_row_is_lost_whatever_their_number(written, make, count):
    found = rows_in(written([make(at) for at in range(count)]))
    assert [row["id"] for row in found] == [f"r{at}" for at in range(count)]


def test_rows_of_one_origin_share_it(written, make):
    path = written([make(at, route=route) for at, route in enumerate("abab")])
    assert len(rows_in(path, "SELECT * FROM origins")) == 2


def test_a_log_is_continued(path, make):
    for at in (0, 1):
        with PredictionLog(path) as log:
            log.add(make(at))
    assert [row["row"] for row in rows_in(path)] == [1, 2]


def test_two_processes_may_write_one_log(path, make):
    with PredictionLog(path) as one, PredictionLog(path) as other:
        for at in range(100):
            (one, other)[at % 2].add(make(at))
            if at % 10 == 0:
                assert one.flush()
                assert other.flush()
    found = rows_in(path)
    assert sorted(row["id"] for row in found) == sorted(f"r{at}" for at in range(100))
    assert [row["row"] for row in found] == list(range(1, 101))


@pytest.mark.parametrize("value", [7, 0.5, "seven"])
def test_a_label_finds_its_prediction_before_and_after(written, make, value):
    before = [("r1", value, make(0).time)]
    path = written([make(1), make(2)], before)
    with PredictionLog(path) as log:
        log.label("r2", value, make(9).time)
    assert [row["label"] for row in rows_in(path)] == [value, value]


def test_the_latest_label_counts_in_whatever_order_they_come(written, make):
    path = written([make(1)], [("r1", value, make(value).time) for value in (1, 3, 2)])
    assert [row["label"] for row in rows_in(path)] == [3]


def test_a_prediction_may_bring_its_label(written, make):
    assert [row["label"] for row in rows_in(written([make(1, label=4)]))] == [4]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**63, "x" * 1025, None, [1], b"x"])
def test_what_is_no_label_is_refused(path, value):
    with PredictionLog(path) as log, pytest.raises(InputError, match="label"):
        log.label("r", value)


def test_a_sample_keeps_its_arrays_and_a_shadow_the_same_ones(path, make):
    inputs, outputs = {"x": np.arange(3.0)[None]}, {"y": np.ones((1, 2), np.float32)}
    with PredictionLog(path, LogSettings(sample=0.25)) as log:
        for at in range(400):
            log.seen(make(at, route="primary"), inputs, outputs)
            log.seen(make(at, route="shadow"), inputs, outputs)
    with open_log(path) as read:
        kept = list(read.rows(examples=True))
        assert len(read) == 800
    by_route = {r: {p.id for p in kept if p.route == r} for r in ("primary", "shadow")}
    assert by_route["primary"] == by_route["shadow"]
    assert 70 <= len(by_route["primary"]) <= 130  # 100, and 3.5 standard deviations around
    np.testing.assert_array_equal(kept[0].inputs["x"], inputs["x"])
    np.testing.assert_array_equal(kept[0].outputs["y"], outputs["y"])


def answered(at, **changes):
    """What a service saw: the `at`-th request, to a classifier."""
    plain = Answered(
        f"r{at}", 4_102_444_800 * 10**9 + at, "m", "1", "ab", "only", "", "rest", (3e-5, 2e-4, 4),
        4e-4, {"x": np.full((1, 4), at)}, {"y": np.eye(3)[at % 3][None]},
    )  # fmt: skip
    return plain._replace(**changes)


def test_what_is_told_is_logged_as_if_it_was_seen(path, tmp_path):
    told = [answered(at) for at in range(600)]
    told[5] = answered(5, outputs=None, error=OSError("broken"))
    with PredictionLog(path, LogSettings(sample=0.1)) as log:
        for seen in told:
            log.tell(seen)
    other = tmp_path / "other.db"
    with PredictionLog(other, LogSettings(sample=0.1)) as log:
        for seen, row in zip(told, predictions(told), strict=True):
            log.seen(row, seen.inputs, seen.outputs)
    assert rows_in(path) == rows_in(other)
    with open_log(path) as one, open_log(other) as two:
        kept, same = list(one.rows(examples=True)), list(two.rows(examples=True))
    assert kept == same
    assert 30 <= len(kept) <= 90
    for row in kept:
        assert (row.inputs["x"] == int(row.id[1:])).all()


def test_what_is_told_is_bounded_too(path, monkeypatch):
    monkeypatch.setattr("fettle.monitor.log._MOST_BYTES", 10_000)
    gate = threading.Event()
    write = _writer.Store.write
    monkeypatch.setattr(_writer.Store, "write", lambda *given: gate.wait(10) and write(*given))
    with PredictionLog(path, LogSettings(sample=1), most=300) as log:
        for at in range(1000):
            log.tell(answered(at))
        assert log.dropped >= 400
        gate.set()
        assert log.flush()
        assert log.counts.lost["queue"] == log.dropped == 1000 - len(rows_in(path))
        assert log.counts.lost["examples"] > 0
    with open_log(path) as read:
        examples = list(read.rows(examples=True))
    assert len(examples) == 1000 - log.counts.lost["queue"] - log.counts.lost["examples"]
    assert {row["top"] for row in rows_in(path)} == {0, 1, 2}


def test_a_sample_has_the_share_that_was_asked_for():
    chosen = sum(sampled(f"c0ffee-{at:x}", 0.1) for at in range(20_000))
    assert chosen == pytest.approx(2000, abs=150)
    assert not sampled("a", 0.0)
    assert sampled("a", 1.0)


def test_a_full_queue_refuses_at_once_and_the_log_says_how_many(path, make, monkeypatch):
    gate = threading.Event()
    write = _writer.Store.write
    monkeypatch.setattr(_writer.Store, "write", lambda *given: gate.wait(10) and write(*given))
    with PredictionLog(path, most=10) as log:
        taken = 0
        for at in range(100):
            taken += log.add(make(at))
        gate.set()
        assert log.flush()
        counts = log.counts
    assert 10 <= taken <= 20
    assert counts.lost == {"queue": 100 - taken}
    assert (counts.taken, counts.written, counts.waiting) == (taken, taken, 0)
    with open_log(path) as read:
        assert read.losses == {"queue": 100 - taken}
        assert len(read) == taken


def test_a_full_disk_is_survived_and_what_fits_no_more_is_counted(path, make, monkeypatch):
    pages = ["PRAGMA max_page_count = 60"]

    def small(place):
        database = _schema.open_to_write(place)
        database.execute(pages[0])
        return database

    monkeypatch.setattr("fettle.monitor._store.open_to_write", small)
    with PredictionLog(path, most=2000) as log:
        for at in range(50):
            log.add(make(at))
        assert log.flush()
        for at in range(50, 9050):
            log.add(make(at, key="x" * 100))
            if at == 4050:
                assert not log.flush(0.5)
        assert "full" in log.counts.trouble
        assert log.counts.lost["queue"] >= 9000 - 4000
        pages[0] = "PRAGMA max_page_count = 1000000"
        assert log.flush()
        counts = log.counts
    assert counts.trouble == ""
    assert counts.written == 9050 - counts.lost["queue"] == len(rows_in(path))
    with open_log(path) as read:
        assert read.losses == {"queue": counts.lost["queue"]}


def test_a_file_that_was_taken_away_is_begun_anew(path, make):
    with PredictionLog(path) as log:
        log.add(make(1))
        assert log.flush()
        for end in ("", "-wal", "-shm"):
            place = path.with_name(path.name + end)
            if place.exists():
                place.rename(place.with_name(f"yesterday.db{end}"))
        log.add(make(2))
        assert log.flush()
    assert [row["id"] for row in rows_in(path)] == ["r2"]
    assert [row["id"] for row in rows_in(path.with_name("yesterday.db"))] == ["r1"]


def test_the_oldest_go_when_there_are_too_many(written, make):
    path = written([make(at) for at in range(500)], settings=LogSettings(retention_rows=100))
    assert [row["id"] for row in rows_in(path)] == [f"r{at}" for at in range(400, 500)]


def test_what_is_too_old_goes_with_its_arrays_and_its_label(path, make):
    now, day = time.time_ns(), 86_400 * 10**9
    old, new = make(1, time=now - 8 * day), make(2, time=now - 6 * day)
    with PredictionLog(path, LogSettings(sample=1, retention_days=7)) as log:
        for prediction in (new, old):
            log.seen(prediction, {"x": np.zeros(1)}, None)
            log.label(prediction.id, 1, prediction.time)
    assert [row["id"] for row in rows_in(path)] == ["r2"]
    assert [row["row"] for row in rows_in(path, "SELECT row FROM examples")] == [1]
    assert [row["id"] for row in rows_in(path, "SELECT id FROM labels")] == ["r2"]


def test_a_clock_that_leaps_ahead_does_not_empty_the_log(path, make, monkeypatch):
    with PredictionLog(path, LogSettings(retention_days=1)) as log:
        log.add(make(1, time=time.time_ns()))
        assert log.flush()
        year = 365 * 86_400 * 10**9
        ahead = time.time_ns() + year
        monkeypatch.setattr(time, "time_ns", lambda: ahead)
        log.add(make(2, time=ahead))
    assert [row["id"] for row in rows_in(path)] == ["r1", "r2"]


REDACT = """
from dataclasses import replace

def blot(prediction):
    if prediction.key == "secret":
        return None
    if prediction.key == "odd":
        raise RuntimeError("odd")
    if prediction.key == "wrong":
        return "text"
    return replace(prediction, key="", inputs={"x": prediction.inputs["x"] * 0})
"""


def test_the_hook_blots_out_and_what_it_fails_on_is_not_kept(path, make, tmp_path):
    (tmp_path / "hook.py").write_text(REDACT)
    settings = LogSettings(sample=1, redact=f"{tmp_path}/hook.py:blot")
    with PredictionLog(path, settings) as log:
        for at, key in enumerate(["me", "secret", "odd", "wrong"]):
            log.seen(make(at, key=key), {"x": np.ones(2)}, None)
        assert log.flush()
        assert log.counts.lost == {"omitted": 1, "redaction": 2}
        assert log.counts.waiting == 0
    with open_log(path) as read:
        (row,) = read.rows(examples=True)
        assert read.losses == {"omitted": 1, "redaction": 2}
    assert (row.id, row.key, row.inputs["x"].tolist()) == ("r0", "", [0, 0])


def test_numbers_of_numpy_and_torn_text_are_stored_and_the_rest_is_counted(path, make):
    odd = [
        make(0, top=np.int64(5), confidence=np.float32(0.5)),
        make(1, id="\ud800"),
        make(2, batch=2**70),
        make(3, key=object()),
        make(4, model="\udfff", confidence=float("nan")),
    ]
    with PredictionLog(path) as log:
        for prediction in odd:
            log.add(prediction)
        assert log.flush()
        assert log.counts.lost == {"unfit": 2}
    found = [(row["id"], row["model"], row["top"], row["confidence"]) for row in rows_in(path)]
    assert found == [("r0", "digits", 5, 0.5), ("?", "digits", 3, 0.75), ("r4", "?", 3, None)]


def test_arrays_that_can_not_be_kept_cost_no_row(path, make):
    with PredictionLog(path, LogSettings(sample=1)) as log:
        log.seen(make(1), {"x": np.array([{}], dtype=object)}, None)
        assert log.flush()
        assert log.counts.lost == {"examples": 1}
    assert len(rows_in(path)) == 1


def test_arrays_past_their_share_of_memory_are_left_out(path, make, monkeypatch):
    monkeypatch.setattr("fettle.monitor.log._MOST_BYTES", 100)
    with PredictionLog(path, LogSettings(sample=1)) as log:
        log.seen(make(1), {"x": np.zeros(1000)}, None)
        assert log.counts.lost == {"examples": 1}
    assert len(rows_in(path)) == 1


def test_made_up_models_do_not_fill_the_memory(written, make, monkeypatch):
    monkeypatch.setattr("fettle.monitor._store._MOST_ORIGINS", 5)
    path = written([make(at, model=f"m{at}") for at in range(50)])
    models = [row["model"] for row in rows_in(path)]
    assert models == ["m0", "m1", "m2", "m3", "m4", *["(others)"] * 45]


def test_what_can_not_be_opened_is_refused_before_the_server_starts(path, tmp_path):
    with pytest.raises(StorageError, match="choose a file"):
        PredictionLog(tmp_path / "none" / "log.db")
    path.write_text("no database at all" * 100)
    with pytest.raises(DataError, match="SQLite"):
        PredictionLog(path)
    other = tmp_path / "other.db"
    database = sqlite3.connect(other)
    database.execute("CREATE TABLE mine (x)")
    database.close()
    with pytest.raises(DataError, match="another program"):
        PredictionLog(other)


def test_a_newer_schema_is_left_alone(written, make):
    path = written([make(1)])
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(DataError, match="schema 99"):
        PredictionLog(path)
    with pytest.raises(DataError, match="upgrade"):
        open_log(path)


@pytest.mark.parametrize(
    "knobs", [{"sample": 2}, {"retention_rows": 0}, {"retention_days": -1}, {"sample": "x"}]
)
def test_settings_out_of_bounds(knobs):
    with pytest.raises(KnobError, match=next(iter(knobs))):
        LogSettings(**knobs)


KILLED = """
import sys, time
from fettle.monitor.log import PredictionLog
from fettle.monitor.prediction import Prediction
log = PredictionLog(sys.argv[1])
for at in range(10**9):
    log.add(Prediction(f"r{at}", 4102444800 * 10**9 + at, "m"))
    if at % 1000 == 0:
        print(log.counts.written, flush=True)
        time.sleep(0.01)
"""


def test_a_server_that_is_killed_leaves_a_log_without_holes(path, make):
    command = [sys.executable, "-c", KILLED, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        written = 0
        while written < 3000:
            written = int(process.stdout.readline())
        process.kill()
    with PredictionLog(path) as log:
        log.add(make(0, id="after"))
    ids = [row["id"] for row in rows_in(path)]
    assert len(ids) > written
    assert ids == [*[f"r{at}" for at in range(len(ids) - 1)], "after"]


def test_after_it_is_closed_nothing_is_waited_for(path, make):
    log = PredictionLog(path)
    log.add(make(1))
    assert log.close()
    assert log.close()
    log.add(make(2))
    assert not log.close(60)
    assert log.counts.waiting == 1
    assert len(rows_in(path)) == 1


def test_threads_that_all_write(path, make):
    with PredictionLog(path) as log:
        threads = [
            threading.Thread(
                target=lambda t=t: [log.add(make(at, key=str(t))) for at in range(500)]
            )
            for t in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    counted = rows_in(path, "SELECT key, count(DISTINCT id) AS n FROM log GROUP BY key")
    assert [row["n"] for row in counted] == [500] * 4
