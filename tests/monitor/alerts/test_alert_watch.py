"""When an alert begins and is over: waits, hysteresis, and what a restart finds."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fettle.core.errors import DataError, StorageError
from fettle.monitor.alerts import Alerts, Rule, Rules, Watch
from fettle.monitor.alerts.history import History
from fettle.monitor.alerts.readings import Reading, over_time
from fettle.monitor.alerts.receivers import Undelivered

MODEL = {"model": "digits", "route": "only"}


def looked(watch, values, step=60.0, labels=MODEL, measure="p99_ms"):
    """Return what changed at each value: "+" began, "-" ended, "." nothing."""
    told = ""
    for at, value in enumerate(values):
        readings = [] if value is None else [Reading(measure, labels, value)]
        changes = watch.look(at * step, readings)
        told += "." if not changes else "-" if changes[0].ended is not None else "+"
    return told


def watch(**changes):
    return Watch((Rule(**{"name": "slow", "measure": "p99_ms", "limit": 20.0, **changes}),))


def test_past_the_limit_is_an_alert_and_back_within_is_its_end():
    assert looked(watch(), [10, 20, 21, 30, 20, 10]) == "..+.-."


def test_it_must_last_before_it_is_told():
    assert looked(watch(wait_s=120), [30, 30, 10, 30, 30, 30, 30]) == ".....+."


def test_between_clear_and_limit_it_stays():
    assert looked(watch(clear=15.0), [30, 18, 16, 22, 17, 15, 18]) == "+....-."


def test_it_must_be_clear_for_a_while_before_it_is_over():
    assert looked(watch(clear_s=120), [30, 10, 10, 30, 10, 10, 10]) == "+.....-"


def test_below_works_the_other_way_round():
    rule = watch(above=False, limit=1.0, clear=2.0)
    assert looked(rule, [5, 0.5, 1.5, 2.5]) == ".+.-"


def test_nothing_to_read_changes_nothing():
    assert looked(watch(wait_s=120), [30, None, None, 30]) == "...+"
    assert looked(watch(), [30, None, None, 10]) == "+..-"


def test_what_is_not_read_any_more_while_other_things_are_is_over():
    rules = watch()
    assert rules.look(0, [Reading("p99_ms", MODEL, 30)])
    other = [Reading("p99_ms", {"model": "other"}, 1.0)]
    assert rules.look(600, other) == []
    (ended,) = rules.look(900, other)
    assert (ended.labels, ended.ended) == (MODEL, 900)


def test_each_model_has_an_alert_of_its_own():
    rules = watch()
    changes = rules.look(0, [Reading("p99_ms", {"model": m}, v) for m, v in (("a", 30), ("b", 5))])
    assert [change.labels for change in changes] == [{"model": "a"}]


def test_a_rule_looks_only_where_it_should():
    rules = watch(where={"model": "other"})
    assert looked(rules, [99, 99]) == ".."
    assert looked(watch(), [99], measure="p95_ms") == "."


def test_the_summary_is_filled_in():
    rules = watch(summary="p99 of {model} is {value} ms {nonsense}")
    (alert,) = rules.look(0, [Reading("p99_ms", MODEL, 23.4567)])
    assert alert.summary == "p99 of digits is 23.46 ms {nonsense}"
    (alert,) = watch().look(0, [Reading("p99_ms", MODEL, 23.0)])
    assert alert.summary == "p99_ms of digits is 23, above 20"


@given(st.lists(st.floats(0, 40) | st.none(), max_size=40), st.sampled_from([0, 60, 180]))
def test_alerts_begin_and_end_in_turn(values, wait):
    told = looked(watch(clear=10.0, wait_s=wait, clear_s=wait), values).replace(".", "")
    assert told == ("+-" * len(told))[: len(told)]


def test_a_restart_goes_on_with_what_was_firing(tmp_path):
    path = tmp_path / "alerts.jsonl"
    rules = watch()
    first = History(path)
    first.add(rules.look(0, [Reading("p99_ms", MODEL, 30)]), until=0)
    second = History(path)
    assert (len(second.firing), second.until) == (1, 0)
    again = Watch(rules.rules, second.firing)
    assert looked(again, [30, 30, 10]) == "..-"


def test_a_history_with_a_cut_line_is_read_and_written_on(tmp_path):
    path = tmp_path / "alerts.jsonl"
    History(path).add(watch().look(0, [Reading("p99_ms", MODEL, 30)]), until=5)
    path.write_text(path.read_text() + '{"name": "cu', "utf-8")
    found = History(path)
    assert (len(found.alerts), found.until) == (1, 5)
    found.add([], until=6)
    assert History(path).until == 6
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="JSON"):
        History(path)


def test_a_history_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        History(tmp_path / "file" / "alerts.jsonl").add([], until=1)


def window(start, p99, n=2000, failed=0.0):
    quantiles = {"p50": {"value": 1.0}, "p95": {"value": 2.0}, "p99": p99 and {"value": p99}}
    shares = {"failed": {"value": failed}, "saturated": {"value": 0.0}, "waiting": 0.1}
    return {"start": start, "rate": n / 60, **shares, "latency_ms": quantiles,
            "compute_ms": quantiles}  # fmt: skip


def state(*values, made=1e9):
    windows = [window(60.0 * at, value) for at, value in enumerate(values) if value is not None]
    series = {"model": "digits", "version": "1", "sha": "", "route": "only", "windows": windows}
    return {"window_seconds": 60.0, "made": made, "series": [series]}


def test_readings_follow_the_windows():
    found = dict(over_time(state(5.0, 30.0)))
    assert list(found) == [60.0, 120.0]
    values = {reading.measure: reading.value for reading in found[120.0]}
    assert values["p99_ms"] == 30.0
    assert values["requests_per_second"] == pytest.approx(2000 / 60)


def test_a_window_without_requests_of_one_of_two_reads_as_none():
    both = state(1.0, 1.0)
    gone = {**both["series"][0], "route": "canary", "windows": both["series"][0]["windows"][:1]}
    both["series"].append(gone)
    last = dict(over_time(both))[120.0]
    rates = {r.labels["route"]: r.value for r in last if r.measure == "requests_per_second"}
    assert rates["canary"] == 0


class Heard:
    def __init__(self, trouble=""):
        self.told, self.trouble = [], trouble

    def tell(self, changes, firing):
        if self.trouble:
            raise Undelivered(self.trouble)
        self.told.append(([c.name for c in changes], [f.name for f in firing]))


def test_each_window_is_looked_at_once_and_only_when_it_is_over(tmp_path):
    rules = Rules((Rule("slow", "p99_ms", 20.0),), (), tmp_path / "h.jsonl")
    heard = Heard()
    alerts = Alerts(rules, [heard])
    assert alerts.look(state(5.0, 30.0, made=119.0)) == []
    assert len(alerts.look(state(5.0, 30.0, made=121.0))) == 1
    assert alerts.look(state(5.0, 30.0, made=122.0)) == []
    assert heard.told == [([], []), (["slow"], ["slow"]), ([], ["slow"])]
    later = Alerts(rules, [heard])
    (ended,) = later.look(state(5.0, 30.0, 6.0))
    assert ended.ended == 180.0
    told = later.to_json()
    assert (told["rules"], told["firing"], len(told["history"])) == (1, [], 1)
    json.dumps(told, allow_nan=False)


def test_one_who_cannot_be_told_keeps_nobody_else_from_it():
    heard = Heard()
    rules = Rules((Rule("slow", "p99_ms", 20.0),))
    alerts = Alerts(rules, [Heard("nobody there"), heard])
    alerts.look(state(30.0))
    assert heard.told == [(["slow"], ["slow"])]
    assert alerts.to_json()["undelivered"] == ["nobody there"]
