"""Latency and failures over time: each figure agrees with numpy's over the same rows."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from fettle.core.bundle import Manifest
from fettle.core.errors import InputError
from fettle.monitor import _reading, latency
from fettle.monitor.latency import Cell, Who, share, summarize
from fettle.monitor.log import PredictionLog, open_log
from fettle.monitor.promise import compared, promised

STATUSES = ["ok", "ok", "ok", "ok", "ok", "ok", "Broken", "Busy"]


@pytest.fixture
def rows(make):
    """Some thousand requests to two routes over 80 seconds, of which some fail."""
    rng = np.random.default_rng(0)
    found = []
    for at in range(4000):
        total = int(rng.lognormal(8, 1))
        status = STATUSES[rng.integers(len(STATUSES))]
        error = f"index {at} is out" if status == "Broken" else ""
        found.append(
            make(
                20 * at, total_us=total, queue_us=total // 4, compute_us=total // 2, status=status,
                error=error, route="ab"[at % 2], batch=1 + at % 4, id=f"r{at}",
            )
        )  # fmt: skip
    return found


def of(rows, route, status="ok"):
    return [r for r in rows if r.route == route and r.status == status]


@pytest.mark.parametrize("at_once", [100, 20_000])
def test_figures_agree_with_numpy(written, rows, monkeypatch, at_once):
    monkeypatch.setattr(_reading, "_AT_ONCE", at_once)
    with open_log(written(rows)) as log:
        summary = summarize(log, 10)
    assert {who.route for who in summary.cells} == {"a", "b"}
    for who, cells in summary.cells.items():
        assert who[:3] == ("digits", "2", "0123456789abcdef")
        ours = of(rows, who.route)
        start = min(cells)
        assert sorted(cells) == [start + 10**10 * at for at in range(8)]
        for begin, cell in cells.items():
            inside = [r for r in rows if r.route == who.route and begin <= r.time < begin + 10**10]
            errors = Counter(r.status for r in inside if r.status != "ok")
            assert (cell.n, cell.errors) == (len(inside), errors)
            assert cell.total.n == len(inside) - sum(errors.values())
        found = summary.overall(who).to_json()
        for key, name in (("latency_ms", "total_us"), ("queue_ms", "queue_us")):
            durations = [getattr(r, name) / 1000 for r in ours]
            assert found[key]["mean"] == pytest.approx(np.mean(durations))
            for q in (50, 95, 99):
                exact = np.quantile(durations, q / 100, method="inverted_cdf")
                assert found[key][f"p{q}"]["value"] == pytest.approx(exact, rel=1 / 256)
        assert found["batch"] == pytest.approx(np.mean([r.batch for r in ours]))
        waited = sum(r.queue_us for r in ours) / sum(r.total_us for r in ours)
        assert found["waiting"] == pytest.approx(waited)
        busy = len(of(rows, who.route, "Busy"))
        assert found["saturated"]["value"] == busy / 2000
        assert found["failed"]["value"] == (busy + len(of(rows, who.route, "Broken"))) / 2000


def test_the_json_form_holds_nothing_but_json(written, rows):
    with open_log(written(rows[:50])) as log:
        told = json.loads(json.dumps(summarize(log).to_json(), allow_nan=False))
    assert told["window_seconds"] == 1
    assert [series["route"] for series in told["series"]] == ["a", "b"]
    first = told["series"][0]["windows"][0]
    assert first["latency_ms"]["p99"] is None
    assert first["rate"] == first["n"]


def test_failures_that_read_alike_are_counted_together(written, make):
    many = [make(at, status="Late", error="too late", id=str(at)) for at in range(5)]
    other = [make(9, status="Broken", error="the engine failed"), make(10)]
    with open_log(written(many + other)) as log:
        first, second = summarize(log).to_json()["failures"]
    assert (first["status"], first["error"], first["n"]) == ("Late", "too late", 5)
    assert first["last"] - first["first"] == pytest.approx(0.004, abs=1e-5)
    assert (second["status"], second["id"]) == ("Broken", "r9")


def test_an_empty_log_and_one_row(written, make, path):
    with open_log(written([])) as log:
        assert summarize(log).to_json()["series"] == []
    with PredictionLog(path) as log:
        log.add(make(1, status="Broken"))
    with open_log(path) as log:
        (series,) = summarize(log).to_json()["series"]
    assert series["all"]["failed"] == {"value": 1, "low": 0.025, "high": 1, "n": 1}
    assert series["all"]["latency_ms"] == {**dict.fromkeys(("p50", "p95", "p99", "mean")), "n": 0}
    assert series["all"]["batch"] is series["all"]["waiting"] is None


def test_a_clock_that_leaps_makes_wide_windows_not_many(written, make):
    rows = [make(0), make(1), make(2, time=make(0).time + 400 * 86_400 * 10**9)]
    with open_log(written(rows)) as log:
        summary = summarize(log)
    (cells,) = summary.cells.values()
    assert [cell.n for _, cell in sorted(cells.items())] == [2, 1]


def test_too_many_windows_are_refused(written, rows, monkeypatch):
    monkeypatch.setattr(latency, "_MOST_CELLS", 10)
    with open_log(written(rows)) as log:
        with pytest.raises(InputError, match="too short"):
            summarize(log, 1)
        with pytest.raises(InputError, match="seconds"):
            summarize(log, 0)


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (10, 10), (3, 17), (1, 100_000)])
def test_a_share_has_the_exact_interval_of_scipy(hits, n):
    exact = stats.binomtest(hits, n).proportion_ci(method="exact")
    found = share(hits, n)
    assert found["value"] == hits / n
    assert (found["low"], found["high"]) == pytest.approx((exact.low, exact.high))
    assert share(0, 0) is None


CHECKS = ({"name": "latency", "sizes": {
    "1": {"p50": 1.0, "p95": 2.0, "p99": None}, "4": {"p50": 3.0, "p95": 4.0, "p99": 6.0},
}},)  # fmt: skip


def cell_of(milliseconds, batch):
    cell = Cell(n=len(milliseconds), rows=batch * len(milliseconds))
    for histogram in (cell.total, cell.compute):
        histogram.add(np.asarray(milliseconds) * 1000.0)
    return cell


def test_computing_is_held_against_what_was_proven_for_its_batch():
    promises = promised(Manifest((), (), "", checks=CHECKS))
    assert promises == {1: {"p50": 1.0, "p95": 2.0}, 4: {"p50": 3.0, "p95": 4.0, "p99": 6.0}}
    slow = compared(cell_of(np.linspace(5.9, 6.1, 2000), 2), promises)
    assert (slow["batch"], slow["slower"]) == (4, ["p50", "p95"])
    assert slow["ratio"]["p50"] == pytest.approx(2, rel=0.01)
    assert compared(cell_of(np.full(2000, 1.05), 1), promises)["slower"] == []
    assert compared(cell_of(np.full(2000, 1.05), 9), promises)["batch"] == 4


def test_nothing_to_compare_with():
    assert promised(Manifest((), (), "")) == {}
    assert compared(cell_of([1.0], 1), {}) is None
    assert compared(replace(Cell()), {1: {"p50": 1.0}}) is None


def test_who_is_told_in_order():
    assert Who("m", "1", "s", "a") < Who("m", "1", "s", "b")
