"""The dashboard of a log that is being written: what is kept, who makes it, and that it ends."""

import io
import os
import sys
import time

import pytest

from fettle.core.errors import DataError
from fettle.monitor.dashboard import gather
from fettle.monitor.dashboard._worker import HEAD, Maker, Showing, work
from fettle.monitor.dashboard.live import Live
from fettle.monitor.dashboard.state import Wanted
from fettle.monitor.log import PredictionLog, open_log
from fettle.monitor.prediction import Prediction

NOW = int(time.time())
FAKE = """
import struct, sys
for whole, main in {pages}:
    sys.stdout.buffer.write(struct.pack(">II", len(whole), len(main)) + whole + main)
    sys.stdout.buffer.flush()
{then}
"""
WAIT = "sys.stdin.buffer.read()"


def fake(pages=((b"<p>whole", b"<p>main"),), then=WAIT):
    return (sys.executable, "-S", "-c", FAKE.format(pages=repr(tuple(pages)), then=then))


def until(what, seconds=60.0):
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)
    return found


@pytest.fixture
def showing(tmp_path):
    """A log of a minute, a quarter of an hour ago."""
    path = tmp_path / "log.db"
    with PredictionLog(path) as log:
        for at in range(60):
            start = (NOW - 900 + at) * 10**9
            log.add(Prediction(f"r{at}", start, "digits", compute_us=100, total_us=400))
    return Showing(log=str(path), every_s=0.05)


@pytest.fixture
def live(showing):
    found = []

    def start(command=None):
        found.append(Live(showing, command or fake()))
        found[0].start()
        return found[0]

    yield start
    for each in found:
        each.close()


def test_before_the_first_page_there_is_one_that_says_so(showing):
    answer = Live(showing).answer()
    assert answer.status == 200
    assert b"reading the log" in answer.body
    assert b'data-every="0.05"' in answer.body


def test_what_the_worker_makes_is_given_out(live):
    shown = live()
    until(lambda: shown.answer().body == b"<p>whole")
    part = shown.answer(b"part=main")
    assert part.body == b"<p>main"
    headers = dict(part.headers)
    assert headers[b"cache-control"] == b"no-store"
    same = shown.answer(b"part=main", headers[b"etag"])
    assert (same.status, same.body) == (304, b"")
    assert shown.answer(b"part=main", b'"other"').status == 200
    assert shown.answer(b"part=other&x=%ff").body == b"<p>whole"


def test_the_newest_page_wins(live):
    shown = live(fake([(b"1", b"1"), (b"2", b"2")]))
    until(lambda: shown.answer().body == b"2")


def test_a_worker_that_dies_is_started_again_and_its_page_stays(live, monkeypatch):
    monkeypatch.setattr("fettle.monitor.dashboard.live._AGAIN_S", (0.01, 0.02))
    shown = live(fake(then="sys.exit(3)"))
    until(lambda: shown.starts >= 3)
    assert shown.answer().body == b"<p>whole"


@pytest.mark.parametrize("nonsense", [b"", b"\xff" * 4, b"\xff" * 64, HEAD.pack(5, 5) + b"abc"])
def test_a_worker_that_speaks_nonsense_changes_nothing(live, monkeypatch, nonsense):
    monkeypatch.setattr("fettle.monitor.dashboard.live._AGAIN_S", (0.01, 0.02))
    script = f"import sys; sys.stdout.buffer.write({nonsense!r})"
    shown = live((sys.executable, "-S", "-c", script))
    until(lambda: shown.starts >= 2)
    assert b"reading the log" in shown.answer().body


def test_closing_ends_the_worker(showing):
    shown = Live(showing, fake())
    shown.start()
    until(lambda: shown.answer().body == b"<p>whole")
    process = shown._process
    shown.close()
    assert process.poll() is not None
    assert not shown._thread.is_alive()


def test_one_that_was_never_started_closes_too(showing):
    Live(showing).close()


def test_the_worker_ends_with_its_standard_input(showing):
    reading, writing = os.pipe()
    os.close(writing)
    told = io.BytesIO()
    with os.fdopen(reading, "rb") as given:
        work(showing, given, told)
    sizes = HEAD.unpack(told.getvalue()[: HEAD.size])
    assert len(told.getvalue()) == HEAD.size + sum(sizes)
    assert b"Healthy: 60 requests" in told.getvalue()


def test_a_log_that_is_not_there_yet_is_waited_for(tmp_path, caplog):
    reading, writing = os.pipe()
    os.close(writing)
    told = io.BytesIO()
    with os.fdopen(reading, "rb") as given:
        work(Showing(str(tmp_path / "none.db")), given, told)
    assert told.getvalue() == b""
    assert "no such file" in caplog.text


def test_settings_survive_the_command_line(showing):
    assert Showing.from_text(showing.to_text()) == showing


def test_settings_that_make_no_sense_are_told_at_once(tmp_path):
    with pytest.raises(DataError):
        Maker(Showing("log.db", prices=str(tmp_path / "none.json")))


def test_silence_is_told_and_can_be_a_reason_for_an_alert(showing, tmp_path):
    rules = tmp_path / "rules.json"
    rules.write_text(
        '{"rules": [{"name": "silent", "measure": "requests_per_second", "below": 0.1,'
        ' "for": "5m"}], "to": ["log"]}'
    )
    settings = Showing(showing.log, rules=str(rules))
    found = Maker(settings, clock=lambda: float(NOW)).state()
    (alert,) = found["alerts"]["firing"]
    assert alert["name"] == "silent"
    assert found["findings"][0]["text"].startswith("requests_per_second of digits is 0")


def test_only_what_was_of_late_is_told(showing):
    with open_log(showing.log) as log:
        wanted = Wanted(last_s=600.0, clock=lambda: float(NOW))
        assert gather(log, wanted)["series"] == []
        late = Wanted(last_s=3600.0, clock=lambda: float(NOW))
        assert gather(log, late)["series"][0]["all"]["n"] == 60


@pytest.mark.slow
def test_a_real_worker_shows_what_is_written_meanwhile(showing, tmp_path):
    shown = Live(showing)
    shown.start()
    try:
        until(lambda: b"60 requests" in shown.answer().body)
        mark = dict(shown.answer().headers)[b"etag"]
        with PredictionLog(showing.log) as log:
            log.add(Prediction("new", time.time_ns(), "digits", total_us=400))
        until(lambda: b"61 requests" in shown.answer().body)
        assert shown.answer(b"part=main", mark).status == 200
    finally:
        shown.close()
