"""The notes below a benchmark's table, from rows made by hand."""

import pytest

from fettle.report import bench_page, bench_table


def served(bench_result, failed_at):
    trials = [{"rate": r, "n": n, "answer": a} for r, n, a in
              ((50.0, 1800, "holds"), (75.0, 1800, "fails"), (60.0, 2000, "fails"),
               (60.0, 3000, "holds"))]  # fmt: skip
    found = {"name": "server", "rate": 60.0, "bound_ms": 50.0, "failed_at": failed_at,
             "latency_ms": {"p99": 41.0}, "trials": trials}  # fmt: skip
    return {**bench_result["rows"][0], "scenario": found}


def text_of(bench_result, *rows):
    return " ".join(bench_table({**bench_result, "rows": list(rows)}).split())


@pytest.mark.parametrize(
    ("failed_at", "words"),
    [(75.0, "75/s did not hold"), (120.0, "120/s is all that it can do without a line")],
)
def test_what_a_rate_rests_on(bench_result, failed_at, words):
    text = text_of(bench_result, served(bench_result, failed_at))
    assert "60/s held 1 of 2 times over 5,000 requests, the last time with new arrivals" in text
    assert "p99 41.0 of 50 ms" in text
    assert words in text
    assert text.count("requests come at random") == 1


def test_a_file_of_a_fixed_batch(bench_result):
    fixed = {**bench_result["rows"][0], "batch": 5, "fixed_batch": 2, "calls": 3}
    text = text_of(bench_result, fixed)
    assert "3 of 2" in text
    assert "the last call filled up" in text
    assert "batch of the file" in bench_page({**bench_result, "rows": [fixed]})
    assert "filled up" not in text_of(bench_result, {**fixed, "batch": 2, "calls": 1})


def test_why_there_is_no_memory_is_told_once(bench_result):
    first = {**bench_result["rows"][0], "no_memory": "made by a function"}
    text = text_of(bench_result, first, {**first, "batch": 2})
    assert text.count("no memory of m.onnx @ onnxruntime: made by a function") == 1
