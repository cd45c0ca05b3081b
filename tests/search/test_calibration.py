import numpy as np
import pytest

from fettle.search._calibration import LEAST, Calibration, fit, miss

PARTS = [1.0, 2.0, 3.5, 5.0, 8.0, 13.0]


def test_nothing_observed_changes_nothing():
    assert fit([], []) == Calibration(1.0, 0.0)
    assert miss([], []) is None


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (1.3, 0.2), (0.8, 0.7)])
def test_scale_and_offset_are_found_again(scale, offset):
    found = fit(PARTS, [scale * p + offset for p in PARTS])
    assert found.scale == pytest.approx(scale, rel=1e-3)
    assert found.offset == pytest.approx(offset, abs=1e-3)


def test_few_models_have_a_scale_alone():
    assert fit([2.0], [3.0]).scale == pytest.approx(1.5)
    assert fit([2.0, 4.0, 6.0], [3.0, 6.0, 9.0]).offset == 0


def test_one_wild_model_hardly_counts():
    wholes = [1.2 * p for p in PARTS]
    wholes[3] *= 3
    found = fit(PARTS, wholes)
    assert [found(p) for p in PARTS] == pytest.approx([1.2 * p for p in PARTS], rel=0.1)


def test_fewer_than_three_models_have_no_error():
    assert LEAST == 3
    assert miss([1.0, 2.0], [1.0, 2.0]) is None
    assert miss([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]).n == 3


def test_the_error_is_of_models_left_out():
    """Against the median of ratios of the others, by hand."""
    parts, wholes = [1.0, 2.0, 4.0], [1.0, 2.2, 4.8]
    found = miss(parts, wholes)
    # geometric middle of two ratios, for the median of two logarithms is their mean
    expected = [np.sqrt(1.1 * 1.2) / 1.0 - 1, 1 - np.sqrt(1.0 * 1.2) / 1.1, 1 - np.sqrt(1.1) / 1.2]
    assert found.median == pytest.approx(np.median(np.abs(expected)))
    assert found.p90 == pytest.approx(max(np.abs(expected)))
    assert found.to_json() == {"median": found.median, "p90": found.p90, "n": 3}


def test_what_follows_the_formula_has_no_error():
    found = miss(PARTS, [1.1 * p + 0.3 for p in PARTS])
    assert found.p90 < 0.01


def test_a_part_that_takes_no_time_is_no_division_by_zero():
    assert np.isfinite(fit([0.0, 1.0, 2.0, 3.0, 4.0], [0.1, 1.1, 2.1, 3.1, 4.1])(2.0))
