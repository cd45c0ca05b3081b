from __future__ import annotations

import pytest

from fettle import report


def line_of(text, *words):
    return next(line for line in text.splitlines() if all(word in line for word in words))


def test_one_line_a_trial_under_the_verdict(result):
    text = report.table(result)
    assert text.startswith("PASS: Distilled + QAT on openvino loses at most 1.55 pp of top1")
    line = line_of(text, "INT8 PTQ", "openvino")
    assert " ".join(line.split()) == (
        "INT8 PTQ openvino int8 312 kB 28 % 0.458"
        " 3.1 [2.9, 3.3] 98.4 [97.2, 99.5] 0.35 [−0.25, 0.95]"
    )


def test_best_and_baseline_are_marked(result):
    lines = report.table(result).splitlines()
    assert [line.split()[1] for line in lines if line.startswith("→ ") and "]" in line] == [
        "distilled",
        "best",
    ]
    assert line_of(report.table(result), "pytorch").startswith("·")


def test_columns_are_aligned_and_fit_a_terminal(result):
    lines = report.table(result).splitlines()
    rule = next(i for i, line in enumerate(lines) if set(line) == {"-"})
    rows = lines[rule - 1 : rule + 1 + len(result["trials"]) - 1]
    assert len({len(row) for row in rows}) == 1
    assert max(map(len, lines)) <= 120


def test_a_long_name_is_cut_not_wrapped(result):
    for trial in result["trials"]:
        trial["name"] = "n" * 300
        trial["runtime"] = "r" * 300
    lines = report.table(result).splitlines()
    assert max(map(len, lines)) <= 120
    assert any("nnn…" in line for line in lines)


def test_names_cant_drive_the_terminal(result):
    result["trials"][0]["name"] = "\x1b]0;owned\x07\x1b[2J"
    assert "\x1b" not in report.table(result)
    assert "\x07" not in report.table(result)


def test_the_noise_and_its_warning_are_told(result):
    text = report.table(result | {"warning": "this machine is noisy"})
    assert "noise floor: the baseline against itself gives 1.00× [0.97, 1.04]" in text
    assert text.endswith("this machine is noisy")


@pytest.mark.parametrize("empty", [{}, {"trials": []}, {"trials": [{}]}])
def test_missing_values_are_dashes_not_errors(empty):
    assert "technique" in report.table(empty)
