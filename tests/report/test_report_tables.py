from __future__ import annotations

import pytest

from fettle.report import _tables as tables
from fettle.report._record import read_record


def named(rows, name, runtime):
    return next(row for row in rows if row.trial.name == name and row.trial.runtime == runtime)


def test_a_technique_stands_beside_the_guides_row(result):
    row = named(tables.technique_rows(read_record(result)), "INT8 PTQ", "onnxruntime")
    assert row.size == 312_000 / 1_101_000
    assert row.speed.value == pytest.approx(3.1)
    assert (row.speed.low, row.speed.high) == pytest.approx((3.1 * 0.95, 3.1 * 1.05))
    assert row.drop.value == pytest.approx(0.0035)
    assert row.guide.name == "INT8 PTQ"
    assert (row.size_met, row.speed_met, row.drop_met) == (False, True, True)


def test_a_row_past_the_guides_drop_misses_it(result):
    row = named(tables.technique_rows(read_record(result)), "pruned + QAT", "openvino")
    assert row.guide.name == "all combined"
    assert (row.size_met, row.speed_met, row.drop_met) == (None, False, False)


def test_a_row_that_the_guide_lacks_meets_nothing(result):
    row = named(tables.technique_rows(read_record(result)), "FP32", "openvino")
    assert (row.guide, row.size_met, row.speed_met, row.drop_met) == (None, None, None, None)


def test_best_and_baseline_are_marked_once_each(result):
    rows = tables.technique_rows(read_record(result))
    assert [row.trial.title for row in rows if row.best] == ["distilled + QAT on openvino"]
    assert [row.trial.title for row in rows if row.baseline] == ["FP32 on pytorch"]


def test_the_technique_table_shows_the_trials_own_drop(result):
    row = named(tables.technique_rows(read_record(result)), "distilled + QAT", "openvino")
    assert row.drop.value == pytest.approx(0.01)  # on select; the verdict's, on test, is 0.0067


def test_missing_p99_is_explained(result):
    assert tables.p99_reason(read_record(result)) == (
        "p99 is shown from 1,000 samples on; the largest such run has 300."
    )


def test_nothing_is_explained_when_every_p99_is_there(result):
    for trial in result["trials"]:
        trial.setdefault("latency_ms", {})["p99"] = 1.0
    assert tables.p99_reason(read_record(result)) == ""


def test_costs_add_up_and_keep_the_cache_apart(result):
    rows = {row.title: row for row in tables.cost_rows(read_record(result))}
    row = rows["distilled + QAT on onnxruntime"]
    assert row.cached == pytest.approx(18.2)
    assert row.paid == pytest.approx(6.4 + 1.0 + 2.1)
    assert [part.kind for part in row.segments] == ["distill", "quantize", "export", "measure"]


def test_bars_share_one_scale_and_leave_no_gap(result):
    rows = tables.cost_rows(read_record(result))
    ends = [row.segments[-1].start + row.segments[-1].width for row in rows]
    assert max(ends) == pytest.approx(100)
    seconds = [row.paid + row.cached for row in rows]
    assert ends == pytest.approx([100 * s / max(seconds) for s in seconds])
    for row in rows:
        for left, right in zip(row.segments, row.segments[1:], strict=False):
            assert left.start + left.width == pytest.approx(right.start)


def test_trials_that_share_their_stages_share_a_row():
    stages = [{"name": "export", "seconds": 1.0, "cached": False}]
    trials = [{"name": "A", "runtime": runtime, "stages": stages} for runtime in ("x", "y")]
    assert [row.title for row in tables.cost_rows(read_record({"trials": trials}))] == ["A on x, y"]


def test_stages_without_time_draw_nothing():
    trial = {"name": "A", "stages": [{"name": "odd.thing", "seconds": -3}]}
    (row,) = tables.cost_rows(read_record({"trials": [trial]}))
    assert [(part.kind, part.width) for part in row.segments] == [("other", 0.0)]


def test_kinds_come_in_the_order_of_the_walk(result):
    rows = tables.cost_rows(read_record(result))
    assert tables.kinds_used(rows) == ["distill", "prune", "quantize", "export", "measure"]


def test_the_refused_keep_their_reasons(result):
    (trial,) = tables.refused_rows(read_record(result))
    assert trial.refused == "the CPU has no float16 kernels for Conv; use `--target cuda`"


def test_machine_rows_name_each_version_once(result):
    rows = tables.machine_rows(read_record(result))
    assert rows[:4] == [
        ("processor", "AMD EPYC 9R14"),
        ("instruction sets", "avx2, avx512f, avx512_vnni"),
        ("threads", "2"),
        ("onnxruntime", "1.31.1"),
    ]
    names = [name for name, _ in rows]
    assert len(names) == len(set(names))
