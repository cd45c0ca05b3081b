"""Windows against a reference: what is judged, corrected, left out and told."""

import json

import numpy as np
import pytest

from fettle.core.errors import DataError, InputError, UnknownName
from fettle.monitor.drift import Plan, Sample, compare
from fettle.monitor.drift.report import DriftReport

NAMES = [f"x{at}" for at in range(6)]


def table(seed, n=150, shift=0.0, moved=("x2",)):
    random = np.random.default_rng(seed)
    found = {name: random.normal(shift * (name in moved), 1, n) for name in NAMES}
    found["class"] = random.choice(["a", "b", "c"], n)
    return found


def windows(*shifts, n=150):
    return [Sample(60.0 * at, n, table(at + 1, n, shift)) for at, shift in enumerate(shifts)]


@pytest.fixture(scope="module")
def report():
    return compare(table(0), windows(0, 0, 1.0, 1.5))


def test_what_moved_is_named(report):
    assert report.drifted
    assert report.moved("x2")
    assert not report.moved("x1")
    told = report.to_json()["windows"]
    assert [each["drifted"] for each in told] == [False, False, True, True]
    assert told[2]["moved"] == ["x2"]


def test_the_json_form_holds_every_judgement(report):
    told = json.loads(json.dumps(report.to_json()))
    by_name = {each["name"]: each for each in told["features"]}
    assert list(by_name) == [*NAMES, "class"]
    assert by_name["class"]["detector"] == "drift.chi_square"
    last = by_name["x2"]["windows"][-1]
    assert last["start"] == 180
    assert last["alarm"]
    assert last["score"] > last["threshold"]
    assert last["adjusted"] >= last["p"]
    assert by_name["x2"]["windows"][0].keys() == {
        "start", "score", "p", "threshold", "n", "adjusted", "alarm"
    }  # fmt: skip


def test_two_of_three_make_a_drift():
    clean = compare(table(0), windows(1.0, 0, 0, 0))
    assert not clean.drifted
    assert compare(table(0), windows(0, 1.0, 0, 1.0)).drifted
    assert not DriftReport(Plan()).drifted


@pytest.mark.parametrize("correction", ["holm", "benjamini-hochberg"])
def test_the_correction_is_asked_for(correction):
    found = compare(table(0), windows(1.0), Plan(correction=correction)).to_json()
    assert found["correction"] == correction
    assert found["windows"][0]["moved"] == ["x2"]


def test_another_detector():
    found = compare(table(0), windows(1.0), Plan(number="drift.psi", class_="drift.jensen_shannon"))
    assert {found.detectors[name] for name in NAMES} == {"drift.psi"}
    assert found.windows[0][2]["x2"].alarm


class TestBadInput:
    def test_a_column_that_is_missing_is_told(self):
        held = {name: values for name, values in table(1).items() if name != "x1"}
        found = compare(table(0), [Sample(0, 150, held)])
        assert found.skipped == {"x1": "windows don't hold it"}

    def test_no_column_in_common(self):
        found = compare({"a": np.arange(9.0)}, [Sample(0, 2, {"b": np.arange(2.0)})])
        assert found.skipped == {"a": "windows don't hold it"}
        assert not found.drifted
        with pytest.raises(DataError, match="none of the reference's columns"):
            compare({}, [Sample(0, 2, {"b": np.arange(2.0)})])

    def test_missing_numbers_are_a_feature_of_their_own(self):
        held = table(1)
        held["x0"][::3] = np.nan
        found = compare(table(0), [Sample(0, 150, held)]).windows[0][2]
        assert found["x0: missing"].alarm
        assert not found["x0"].alarm
        assert found["x0"].score.n == 100

    def test_nothing_but_missing_numbers(self):
        held = table(1) | {"x0": np.full(150, np.nan)}
        found = compare(table(0), [Sample(0, 150, held)])
        assert "finite" in found.skipped["x0"]
        assert found.windows[0][2]["x0: missing"].alarm

    def test_a_constant_that_stays_and_one_that_does_not(self):
        reference = {"a": np.full(100, 3.5), "b": np.full(100, 3.5)}
        window = Sample(0, 50, {"a": np.full(50, 3.5), "b": np.linspace(3, 4, 50)})
        found = compare(reference, [window]).windows[0][2]
        assert found["a"].score.p == 1
        assert found["b"].alarm

    def test_one_rare_value_is_no_drift_of_a_constant(self):
        held = np.full(300, 1.0)
        held[7] = 2.0
        found = compare({"a": np.ones(300)}, [Sample(0, 300, {"a": held})])
        assert not found.windows[0][2]["a"].alarm

    def test_a_window_of_one_row(self):
        found = compare(table(0), [Sample(0, 1, table(1, 1))])
        assert len(found.windows[0][2]) == 7
        assert not found.drifted

    def test_another_kind(self):
        held = table(1) | {"x0": np.repeat("a", 150)}
        found = compare(table(0), [Sample(0, 150, held)])
        assert found.skipped["x0"] == "the reference has number values, windows class"

    def test_a_reference_too_small(self):
        found = compare({"a": np.arange(3.0)}, [Sample(0, 9, {"a": np.arange(9.0)})])
        assert "holds 3 values" in found.skipped["a"]

    def test_a_plan_that_is_none(self):
        with pytest.raises(InputError, match="holm or benjamini-hochberg"):
            Plan(correction="bonferroni")
        with pytest.raises(InputError, match="alpha"):
            Plan(alpha=0)
        with pytest.raises(UnknownName):
            compare(table(0), windows(0), Plan(number="drift.psy"))
        with pytest.raises(InputError, match="no number columns"):
            compare(table(0), windows(0), Plan(number="drift.mmd"))
