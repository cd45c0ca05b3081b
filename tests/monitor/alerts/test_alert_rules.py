"""Rules as a person writes them, and what is said of those that make no sense."""

import pytest

from fettle.core.errors import DataError, FettleError
from fettle.monitor.alerts import Rule, Rules
from fettle.monitor.alerts.rules import seconds

WHOLE = """
rules:
  - name: slow
    measure: p99_ms
    where: {model: digits}
    above: 20
    clear: 15
    for: 5m
    clear_for: 10m
    severity: page
    summary: p99 of {model} is {value} ms
  - {name: quiet, measure: requests_per_second, below: 0.5}
to:
  - log
  - webhook: https://hooks.example/x
  - alertmanager: http://alerts.example:9093
history: alerts.jsonl
"""


@pytest.fixture
def file(tmp_path):
    def write(text, name="rules.yaml"):
        path = tmp_path / name
        path.write_text(text, "utf-8")
        return path

    return write


def test_a_file_says_it_all(file):
    path = file(WHOLE)
    found = Rules.read(path)
    slow, quiet = found.rules
    assert slow == Rule("slow", "p99_ms", 20, True, 15, {"model": "digits"}, 300, 600, "page",
                        "p99 of {model} is {value} ms")  # fmt: skip
    assert (quiet.above, quiet.limit, quiet.wait_s) == (False, 0.5, 0)
    assert [kind for kind, _ in found.receivers] == ["log", "webhook", "alertmanager"]
    assert found.history == path.parent / "alerts.jsonl"


def test_json_will_do_too(file):
    path = file('{"rules": [{"name": "a", "measure": "failed", "above": 0.01}]}', "rules.json")
    assert Rules.read(path).receivers == (("log", ""),)


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("{name: a, measure: p98_ms, above: 1}", "p99_ms"),
        ("{name: a, measure: failed}", "above"),
        ("{name: a, measure: failed, above: 1, below: 0}", "either"),
        ("{measure: failed, above: 1}", "name"),
        ("{name: a, measure: failed, above: high}", "number"),
        ("{name: a, measure: failed, above: true}", "number"),
        ("{name: a, measure: failed, above: .inf}", "number"),
        ("{name: a, measure: failed, above: 1, clear: 2}", "good side"),
        ("{name: a, measure: failed, below: 1, clear: 0.5}", "good side"),
        ("{name: a, measure: failed, above: 1, for: soon}", "duration"),
        ("{name: a, measure: failed, above: 1, fro: 5m}", "fro"),
        ("{name: a, measure: failed, above: 1, where: {modle: m}}", "modle"),
        ("slow", "names with values"),
    ],
)
def test_a_rule_that_makes_no_sense_is_told(file, entry, told):
    with pytest.raises(FettleError, match=told):
        Rules.read(file(f"rules:\n  - {entry}\n"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("rules: []", "list of `rules`"),
        ("{}", "list of `rules`"),
        ("rule: []", "`rule`"),
        ("rules: [{name: a, measure: failed, above: 1}]\nto: [{webhook: ftp://x}]", "webhook"),
        ("rules: [{name: a, measure: failed, above: 1}]\nto: [mail]", "mail"),
        ("rules: [{name: a, measure: failed, above: 1}, {name: a, measure: waiting, above: 1}]",
         "twice"),
    ],
)  # fmt: skip
def test_a_file_that_makes_no_sense_is_told(file, text, told):
    with pytest.raises(DataError, match=told):
        Rules.read(file(text))


def test_durations_are_read():
    assert [seconds(t) for t in (30, "30", "30s", "1.5m", "2h", "1d")] == [
        30,
        30,
        30,
        90,
        7200,
        86400,
    ]
    with pytest.raises(DataError):
        seconds("-3s")
