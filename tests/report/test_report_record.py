from __future__ import annotations

import math

import pytest

from fettle.core.errors import InputError
from fettle.report._record import Interval, interval, number, read_record, read_trial, text


@pytest.mark.parametrize("value", [None, "3", True, math.nan, math.inf, 1e300, 10**400, [1], {}])
def test_only_finite_numbers_are_numbers(value):
    assert number(value) is None


def test_integers_become_floats():
    assert number(3) == 3.0


def test_text_loses_what_could_drive_a_terminal():
    assert text("a\x1b[31mb\u202ec\n") == "a [31mb c"


@pytest.mark.parametrize("value", [None, ["a"], {"a": 1}])
def test_text_of_containers_is_empty(value):
    assert text(value) == ""


def test_interval_of_a_bare_number_has_no_width():
    found = interval(3.4)
    assert found == Interval(3.4, 3.4, 3.4)
    assert not found.bounded


def test_interval_keeps_a_missing_bound_at_the_value():
    assert interval({"value": 1.0, "low": 0.5, "n": 9}) == Interval(1.0, 0.5, 1.0, 9)


@pytest.mark.parametrize("value", [None, {}, {"low": 1, "high": 2}, {"value": math.nan}, "fast"])
def test_interval_needs_a_value(value):
    assert interval(value) is None


def test_an_empty_result_is_read_as_missing_everything():
    record = read_record({})
    assert record.best is None
    assert record.candidates == ()
    assert record.confidence == 0.95


@pytest.mark.parametrize("value", [None, [], "text", 3])
def test_a_result_that_is_no_object_is_refused(value):
    with pytest.raises(InputError, match="expects the object"):
        read_record(value)


def test_a_newer_schema_is_refused_with_the_mend():
    with pytest.raises(InputError, match=r"schema 2.*upgrade fettle"):
        read_record({"schema": 2})


def test_hostile_types_count_as_missing():
    record = read_record(
        {"trials": [3, None, {"recipe": [1], "latency_ms": "fast", "stages": "none"}], "budget": 7}
    )
    (trial,) = record.trials
    assert trial.name == "unchanged"
    assert trial.latency.p50 is None
    assert trial.stages == ()


def test_candidates_hold_every_trial_once(result):
    record = read_record(result)
    assert len(record.candidates) == len(result["trials"])


def test_candidates_take_in_a_best_that_the_trials_lack(result):
    result["trials"] = []
    names = [trial.title for trial in read_record(result).candidates]
    assert names == [
        "FP32 on pytorch",
        "distilled + QAT on openvino",
        "INT8 QAT on openvino",
        "BF16 on openvino",
    ]


def test_measured_trials_are_ordered_by_latency_and_leave_out_the_refused(result):
    measured = read_record(result).measured
    times = [trial.latency.p50 for trial in measured]
    assert times == sorted(times)
    assert len(measured) == len(result["trials"]) - 1


@pytest.mark.parametrize(
    ("recipe", "runtime", "line"),
    [
        ("", "openvino", "unchanged @ openvino"),
        ("@ openvino", "openvino", "unchanged @ openvino"),
        ("quantize.static", "openvino", "quantize.static @ openvino"),
        ("quantize.static @ openvino", "openvino", "quantize.static @ openvino"),
        ("quantize.static", "", "quantize.static"),
    ],
)
def test_the_line_names_the_runtime_once(recipe, runtime, line):
    assert read_trial({"recipe": recipe, "runtime": runtime}).line == line
