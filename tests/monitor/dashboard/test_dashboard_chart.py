"""Axes and drawings: places that follow from the values."""

import itertools
import re

import pytest

from fettle.monitor.dashboard import _format as form
from fettle.monitor.dashboard._axes import Scale, log_ticks, reach, ticks, time_ticks
from fettle.monitor.dashboard._chart import Line, Series, Told, charts
from fettle.monitor.dashboard._drift import heat, strips

TOLD = [Told("w", ("x",))] * 4


def series(*lines, starts=(0, 60, 120, 180), **more):
    return Series(starts, 60.0, lines, TOLD[: len(starts)], str, **more)


def ys(path):
    return [float(y) for y in re.findall(r"[ML]\S+ (\S+?)(?=[ML]|$)", path)]


def test_a_scale_keeps_to_its_edges():
    scale = Scale(0, 10, 100, 200)
    assert [scale(v) for v in (-5, 0, 5, 10, 99)] == [100, 100, 150, 200, 200]
    assert Scale(1, 100, 0, 100, log=True)(10) == 50


def test_ticks_are_round_and_few():
    assert ticks(0, 9.3, 5) == [0, 2, 4, 6, 8]
    assert ticks(-0.07, 0.03, 5) == [-0.06, -0.04, -0.02, 0, 0.02]
    assert log_ticks(0.8, 60, 8) == [1, 2, 5, 10, 20, 50]
    assert len(log_ticks(0.001, 1000, 5)) <= 5


@pytest.mark.parametrize("span", [1, 59, 3600, 86_400, 5e6, 4e8])
def test_ticks_of_time_are_few_and_within(span):
    found = time_ticks(1e9, 1e9 + span, 6)
    assert len(found) <= 6
    assert all(1e9 <= at <= 1e9 + span for at, _ in found)


def test_an_axis_is_never_empty():
    for values in ([], [0.0], [3.0, 3.0], [-1.0]):
        low, high = reach(values)
        assert low < high
        assert low <= 0 <= high


def test_higher_values_stand_higher_and_gaps_break_the_line():
    wide, narrow = charts(series(Line("p50", "one", [1.0, 3.0, None, 2.0])))
    path = wide.lines[0].path
    first, _, second, *rest = ys(path)
    assert second < first
    assert path.count("M") == 2
    assert len(rest) == 2
    assert narrow.width < wide.width


def test_windows_that_are_missing_break_the_line_too():
    (wide, _) = charts(series(Line("p50", "one", [1.0, 1.0, 1.0]), starts=(0, 60, 600)))
    assert wide.lines[0].path.count("M") == 2


def test_bars_stand_one_upon_the_other():
    lines = (Line("answered", "one", [2.0]), Line("failed", "bad", [1.0]))
    (wide, _) = charts(series(*lines, starts=(0,), bars=True))
    feet = [float(re.search(r"M\S+ (\S+?)V", line.path)[1]) for line in wide.lines]
    tops = [float(re.search(r"V([\d.]+)H", line.path)[1]) for line in wide.lines]
    assert feet[0] == wide.bottom
    assert feet[1] == tops[0]
    assert tops[1] < tops[0]


def test_names_at_the_ends_of_lines_never_touch():
    lines = [Line(f"p{n}", "one", [5.0, 5.0 + n / 1000]) for n in range(3)]
    (wide, _) = charts(series(*lines, starts=(0, 60)))
    places = sorted(label.y for label in wide.labels)
    assert all(b - a > 13.9 for a, b in itertools.pairwise(places))


def test_a_promise_lies_within_the_drawing():
    (wide, _) = charts(series(Line("p50", "one", [1.0] * 4, reference=50.0)))
    assert wide.top <= wide.dashes[0][1] <= wide.bottom


def test_no_windows_are_no_drawing():
    assert charts(series(starts=())) == []


def test_heat_past_the_threshold_needs_an_alarm():
    assert [heat(s, 1.0, False) for s in (0.1, 0.3, 0.9, 9.0)] == [0, 1, 2, 2]
    assert [heat(s, 1.0, True) for s in (0.9, 1.5, 3.0, 9.0)] == [3, 3, 4, 5]
    assert heat(None, None, False) == 0


def test_what_moved_most_comes_first():
    def feature(name, score, alarm):
        window = {"start": 0.0, "score": score, "threshold": 1.0, "alarm": alarm}
        return {"name": name, "windows": [window]}

    report = {
        "features": [feature("a", 0.2, False), feature("b", 3.0, True), feature("c", 9, False)]
    }
    assert [strip.name for strip in strips(report)] == ["b", "c", "a"]
    assert strips(None) == []


def test_numbers_are_made_for_people():
    assert form.milliseconds(0.0421) == "42\xa0µs"
    assert form.milliseconds(1500) == "1.5\xa0s"
    assert form.percent(0.00021) == "0.021\xa0%"
    assert form.points(-0.0033) == "−0.33\xa0pp"
    assert form.length(5400) == "1.5\xa0h"
    assert form.significant(float("nan")) == form.DASH
    assert form.bounds({"low": 0.1, "high": 0.2}, form.percent) == "[10.0,\xa020.0]"
    assert form.bounds({"low": None, "high": 1}) == ""
