from __future__ import annotations

import pytest

from fettle.report._frontier import describe, frontier_info, plot
from fettle.report._record import read_record


@pytest.fixture
def info(result):
    return frontier_info(read_record(result))


def test_every_measured_trial_is_a_point(result, info):
    assert len(info.points) == len(result["trials"]) - 1
    assert [p.trial.title for p in info.points if p.best] == ["distilled + QAT on openvino"]
    assert [p.trial.title for p in info.points if p.baseline] == ["FP32 on pytorch"]


def test_kinds_tell_precision_and_torch_apart(info):
    kinds = {point.trial.title: point.kind for point in info.points}
    assert kinds["FP32 on pytorch"] == "torch"
    assert kinds["FP32 on openvino"] == "fp32"
    assert kinds["BF16 on openvino"] == "half"
    assert kinds["INT8 PTQ on onnxruntime"] == "int8"
    assert info.kinds == ["fp32", "half", "int8", "torch"]


def test_the_floor_is_the_baseline_less_the_budget(info):
    assert info.floor == pytest.approx(0.987 - 0.02)


def test_the_frontier_of_the_result_is_kept(info):
    names = [point.trial.title for point in info.points if point.frontier]
    assert names == ["distilled + QAT on openvino", "INT8 QAT on openvino", "BF16 on openvino"]


def test_a_missing_frontier_is_what_no_trial_beats(result, info):
    found = frontier_info(read_record(result | {"frontier": []}))
    for point in found.points:
        beaten = any(
            other.latency <= point.latency
            and other.quality.value >= point.quality.value
            and (other.latency, -other.quality.value) != (point.latency, -point.quality.value)
            for other in found.points
        )
        assert point.frontier is not beaten


def test_points_are_drawn_in_order(info):
    drawn = plot(info, 760, 420)
    assert [mark.x for mark in drawn.marks] == sorted(mark.x for mark in drawn.marks)
    for mark in drawn.marks:
        assert drawn.left <= mark.x <= drawn.right
        assert drawn.top <= mark.y_high <= mark.y <= mark.y_low <= drawn.bottom


def test_a_factor_in_latency_is_a_step_to_the_right(info):
    marks = {mark.point.trial.title: mark.x for mark in plot(info, 760, 420).marks}
    octave = marks["FP32 on openvino"] - marks["BF16 on openvino"]  # 1.6 times as slow
    both = marks["FP32 on onnxruntime"] - marks["INT8 PTQ on onnxruntime"]  # 3.1 times
    assert both / octave == pytest.approx(2.407, abs=0.01)  # log 3.1 / log 1.6


def test_a_collapsed_trial_does_not_flatten_the_rest(result):
    result["trials"][3]["metric"] = {"value": 0.11, "low": 0.09, "high": 0.13, "n": 450}
    drawn = plot(frontier_info(read_record(result)), 760, 420)
    below = [mark for mark in drawn.marks if mark.below]
    assert [mark.y for mark in below] == [drawn.bottom]
    others = [mark.y for mark in drawn.marks if not mark.below]
    assert max(others) - min(others) > 100


@pytest.mark.parametrize("size", [(760, 420), (328, 340)])
def test_labels_stay_inside_and_off_each_other(info, size):
    drawn = plot(info, *size)
    assert [label.text for label in drawn.labels] == ["best", "baseline"]
    for label in drawn.labels:
        width = 7.2 * len(label.text)
        left = label.x - {"start": 0, "middle": width / 2, "end": width}[label.anchor]
        assert drawn.left <= left
        assert left + width <= drawn.right
        for mark in drawn.marks:
            inside = left < mark.x < left + width and label.y - 11 < mark.y < label.y + 3
            assert not inside


def test_one_label_when_the_baseline_is_best(result):
    result["best"] = result["baseline"]
    drawn = plot(frontier_info(read_record(result)), 760, 420)
    assert [label.text for label in drawn.labels] == ["baseline = best"]


def test_a_single_point_can_be_drawn(result):
    only = result | {"trials": [], "frontier": [], "best": None}
    drawn = plot(frontier_info(read_record(only)), 760, 420)
    assert len(drawn.marks) == 1
    assert len(drawn.x_ticks) >= 2
    assert len(drawn.y_ticks) >= 2


@pytest.mark.parametrize("p50", [None, 0, -1.0])
def test_a_trial_without_a_usable_latency_is_no_point(result, p50):
    only = result | {"trials": [], "frontier": [], "best": None}
    only["baseline"]["latency_ms"]["p50"] = p50
    assert plot(frontier_info(read_record(only)), 760, 420) is None


def test_a_point_is_described_in_words(info):
    point = next(p for p in info.points if p.best)
    assert describe(point).replace("\u00a0", " ") == (
        "distilled + QAT on openvino, best, 97.7 % [96.3, 99.1], 0.19 ms, distill.logits("
        "student='cifar:resnet8', temperature=4) > quantize.aware(epochs=2) @ openvino"
    )
