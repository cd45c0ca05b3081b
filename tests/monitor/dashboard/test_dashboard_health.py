"""What is said first: the worst, and nothing where nothing is wrong."""

import pytest

from fettle.monitor.dashboard._health import findings, headline, lately


def cell(n, **errors):
    return {"n": n, "errors": errors, "waiting": 0.1}


def series(*windows, route="only", promise=None):
    return {"model": "digits", "route": route, "windows": list(windows), "promise": promise,
            "all": {"n": sum(w["n"] for w in windows), "errors": {}}}  # fmt: skip


def state(*series, **more):
    found = {"series": series, "span": [0.0, 3600.0], "losses": {}, **more}
    found["findings"] = findings(found)
    return found


def test_nothing_out_of_the_ordinary_is_healthy():
    told = headline(state(series(cell(500), cell(500))))
    assert told["level"] == "good"
    assert told["text"] == "Healthy: 1,000 requests in 1\xa0h"


def test_a_shadow_is_no_traffic():
    assert headline(state(series(cell(500), route="shadow")))["text"] == "No predictions yet"


def test_failures_of_long_ago_are_no_news():
    old = series(cell(500, Broken=100), cell(500), cell(500))
    assert headline(state(old))["level"] == "good"
    new = series(cell(500), cell(500), cell(500, Broken=100))
    assert headline(state(new))["text"] == "digits: 10.0\xa0% of requests fail, mostly Broken"


def test_one_failure_among_few_is_not_enough_to_cry():
    assert headline(state(series(cell(100), cell(100, Broken=2))))["level"] == "good"


def test_a_full_queue_says_what_to_do():
    found = state(series(cell(500, Busy=100)))["findings"]
    assert any(f["action"] == "add workers, or send less" for f in found)


def test_the_worst_comes_first():
    slow = {"slower": ["p95", "p99"], "ratio": {"p95": 1.3, "p99": 1.5}}
    firing = [{"name": "x", "summary": "It burns", "severity": "page"}]
    found = state(
        series(cell(500), promise=slow), alerts={"firing": firing}, losses={"queue": 3}
    )  # fmt: skip
    assert [f["level"] for f in found["findings"]] == ["bad", "warn", "note"]
    assert headline(found)["text"] == "It burns"
    assert "p99 of computing is 1.5× what was proven" in found["findings"][1]["text"]


@pytest.mark.parametrize(
    ("action", "level"), [("roll back", "bad"), ("retrain", "warn"), ("nothing", None)]
)
def test_triage_weighs_by_its_action(action, level):
    found = state(series(cell(500)), triage={"action": action, "reason": "inputs moved."})
    levels = [f["level"] for f in found["findings"]]
    assert levels == ([level] if level else [])


def test_the_last_windows_are_taken_together():
    told = lately(series(cell(1000), cell(50, Late=1), cell(50, Busy=1, Broken=2)))
    assert told["n"] == 100
    assert told["failed"]["value"] == pytest.approx(0.04)
    assert told["saturated"]["value"] == pytest.approx(0.02)
