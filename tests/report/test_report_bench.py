from __future__ import annotations

import pytest

from fettle.report import bench_table


def cells(line):
    return " ".join(line.split())


def test_a_table_for_each_group_with_the_fastest_first(bench_result):
    lines = bench_table(bench_result).splitlines()
    assert lines[0] == "batch 1, 2 threads   noise floor ±4.0%"
    assert cells(lines[1]) == (
        "artifact runtime type p50 ms [95 %] p90 p95 mean × best per s of bound MB peak MB"
    )
    assert cells(lines[2]) == (
        "→ m.onnx openvino int8 3.90 [3.51, 4.29] 7.80 11.7 3.90 best 256 33% 1.10 –"
    )
    assert cells(lines[3]).startswith("= m.onnx onnxruntime f32 4.00 [3.60, 4.40] 8.00 12.0 4.00")
    assert cells(lines[3]).endswith("same 250 – 1.10 90.0")
    assert cells(lines[4]).endswith("10.00 [9.52, 10.53] 25 – 1.10 –")
    assert lines[6] == "batch 8, 2 threads"
    assert "best" in lines[8]
    assert "2.00 [1.90, 2.10]" in lines[9]


def test_what_did_not_run_and_how_noisy_it_was(bench_result):
    lines = bench_table(bench_result).splitlines()[11:]
    assert lines == [
        "refused: m.onnx @ absent (batch 1): not <b>installed</b>",
        "refused: net @ pytorch (batch 8): fails at batch 8: no",
        "not on this machine: tensorrt: no GPU",
        "noise floor: an artifact against itself gives 1.00× [0.97, 1.04];"
        " = marks what can't be told from the best",
        "the machine is noisy",
    ]


def test_nothing_ran(bench_result):
    rows = [row for row in bench_result["rows"] if row["refused"]]
    text = bench_table({"rows": rows, "ratios": [], "noise": None})
    assert text.splitlines()[0].startswith("refused: m.onnx @ absent")


def test_the_same_reason_is_told_once(bench_result):
    bad = next(row for row in bench_result["rows"] if row["refused"])
    text = bench_table({"rows": [bad, {**bad, "batch": 8}], "noise": None})
    assert text == "refused: m.onnx @ absent (batch 1, batch 8): not <b>installed</b>"


@pytest.mark.parametrize("name", ["a" * 80, "folder/" * 20 + "model.onnx"])
def test_long_names_keep_their_end(bench_result, name):
    for row in bench_result["rows"]:
        row["subject"] = name
    shown = bench_table({**bench_result, "ratios": []}).splitlines()[2].split()[1]
    assert shown[0] == "…"
    assert len(shown) == 32
    assert name.endswith(shown[1:])
