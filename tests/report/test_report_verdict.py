from __future__ import annotations

import pytest

from fettle.report._format import plain
from fettle.report._interval import picture
from fettle.report._record import read_record
from fettle.report._verdict import verdict_info


def sentence(result):
    return plain(verdict_info(read_record(result)).sentence)


def test_a_pass_says_the_most_that_is_lost(result):
    assert sentence(result) == (
        "Distilled + QAT on openvino loses at most 1.55 pp of top1 with 95 % confidence;"
        " 2 pp were allowed."
    )


def test_a_pass_that_only_gains_loses_nothing(result):
    result["best"]["drop"] |= {"value": -0.02, "low": -0.03, "high": -0.01}
    assert "at most 0.00 pp" in sentence(result)


def test_a_fail_says_the_least_that_is_lost(failed_result):
    assert sentence(failed_result) == (
        "Distilled + QAT on openvino loses at least 3.01 pp of top1 with 95 % confidence;"
        " only 2 pp were allowed."
    )


def test_an_open_verdict_says_how_many_examples_would_settle_it(open_result):
    assert sentence(open_result) == (
        "Distilled + QAT on openvino may lose between 0.11 pp and 2.55 pp of top1; 2 pp were"
        " allowed, so the test can't tell. About 1,234 examples would settle it."
    )


def test_without_a_best_nothing_was_proven(result):
    assert sentence(result | {"best": None, "verdict": "fail"}) == (
        "No artifact was proven to lose at most 2 pp of top1."
    )


@pytest.mark.parametrize("verdict", [None, "<b>pass</b>", "PASS", 3])
def test_an_unknown_verdict_is_never_shown_as_a_pass(result, verdict):
    assert verdict_info(read_record(result | {"verdict": verdict})).word == "Inconclusive"


def test_the_three_denominators_are_named(result):
    info = verdict_info(read_record(result))
    shown = [(speedup.against, round(speedup.ratio.value, 2)) for speedup in info.speedups]
    assert shown == [
        ("FP32 on the same runtime", 7.4),
        ("the fastest FP32 runtime", 7.4),
        ("PyTorch eager", 27.62),
    ]


def test_size_is_a_share_of_the_baseline(result):
    info = verdict_info(read_record(result))
    assert info.size_ratio == 96_000 / 1_101_000


def test_the_picture_keeps_the_order_of_the_numbers(result, open_result, failed_result):
    passed, undecided, failed = (
        picture(read_record(r)) for r in (result, open_result, failed_result)
    )
    assert passed.low < passed.zero < passed.value < passed.high < passed.budget
    assert undecided.low < undecided.value < undecided.budget < undecided.high
    assert failed.zero < failed.budget < failed.low < failed.value < failed.high


def test_the_picture_is_drawn_to_scale(result):
    drawn = picture(read_record(result))
    per_point = (drawn.budget - drawn.zero) / 2
    assert drawn.value - drawn.zero == pytest.approx(0.67 * per_point, abs=0.2)
    places = {text: x for x, text in drawn.ticks}
    assert places["1"] - drawn.zero == pytest.approx(per_point, abs=0.2)


def test_no_drop_no_picture(result):
    del result["best"]["drop"]
    record = read_record(result)
    assert picture(record) is None
    assert "no drop of top1 was measured" in sentence(result)
