from __future__ import annotations

import re

import pytest

from fettle.report import bench_page
from fettle.report._bench_lines import groups_of
from fettle.report._bench_picture import picture


def test_it_says_first_which_is_the_fastest_and_what_is_the_same(bench_result):
    page = bench_page(bench_result).replace("\u00a0", " ")
    assert (
        "At batch 1, 2 threads, m.onnx @ openvino is the fastest: 3.9 ms; no difference could be"
        " shown to m.onnx @ onnxruntime; 10× as fast as net @ pytorch."
    ) in page.replace("10.0×", "10×")


def test_names_in_a_result_stay_text(bench_result):
    bench_result["rows"][0]["subject"] = "<script>alert(1)</script>"
    page = bench_page(bench_result)
    assert "<script>alert" not in page
    assert "not &lt;b&gt;installed&lt;/b&gt;" in page
    assert len(re.findall("<script>", page)) == 1


def test_marks_lie_on_one_common_scale(bench_result):
    drawn = picture(groups_of(bench_result))
    marks = [mark for panel in drawn.panels for mark in panel.marks]
    times = [mark.line.row["latency_ms"]["p50"] for mark in marks]
    assert [m.at for m in sorted(marks, key=lambda m: m.at)] == [
        at for _, at in sorted(zip(times, (m.at for m in marks), strict=True))
    ]
    for mark in marks:
        assert 0 <= mark.low <= mark.at <= mark.high <= 100
        assert mark.at <= mark.tail <= 100
    assert marks[0].bound < marks[0].at
    low, high = drawn.panels[0].floor
    assert low < marks[0].at < high
    assert drawn.panels[1].floor is None


@pytest.mark.parametrize("rows", [[], "refused"])
def test_nothing_ran(bench_result, rows):
    if rows:
        rows = [row for row in bench_result["rows"] if row["refused"]]
    page = bench_page({"rows": rows, "ratios": [], "noise": None})
    assert "Nothing ran" in page
    assert ("What didn't run" in page) == bool(rows)
