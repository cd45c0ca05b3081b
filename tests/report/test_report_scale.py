from __future__ import annotations

import pytest

from fettle.report._scale import Scale, log_ticks, padded, padded_log, ticks


def test_linear_scale():
    scale = Scale(0, 10, 100, 200)
    assert [scale(v) for v in (0, 5, 10)] == [100, 150, 200]


def test_a_scale_may_run_upwards():
    assert Scale(0, 1, 300, 100)(0.25) == 250


def test_log_scale_gives_each_factor_the_same_room():
    scale = Scale(1, 100, 0, 200, log=True)
    assert [scale(v) for v in (1, 10, 100)] == [0, 100, 200]


def test_values_outside_go_to_the_edge():
    scale = Scale(0, 1, 0, 100)
    assert (scale(-5), scale(7)) == (0, 100)


@pytest.mark.parametrize("values", [[0.0], [0.98, 0.98], [-3, 4]])
def test_padding_is_never_empty(values):
    low, high = padded(values, 0.1)
    assert low < min(values)
    assert high > max(values)
    assert padded_log([2.0], 0.25) == (1.6, 2.5)


def test_ticks_are_round():
    assert ticks(0.931, 1.003, 6) == [0.94, 0.96, 0.98, 1.0]
    assert ticks(-0.6, 2.1, 5) == [0.0, 1.0, 2.0]


@pytest.mark.parametrize("width", [1e-6, 0.013, 0.7, 3, 1234.5, 9e8])
@pytest.mark.parametrize("low", [-7.3, 0.0, 0.21])
def test_ticks_stay_inside_and_few(low, width):
    found = ticks(low, low + width, 5)
    assert 2 <= len(found) <= 5
    assert all(low - 1e-9 <= v <= low + width * (1 + 1e-9) for v in found)


def test_log_ticks():
    assert log_ticks(0.15, 6.6, 10) == [0.2, 0.5, 1.0, 2.0, 5.0]
    assert log_ticks(0.001, 2000, 7) == [0.001, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0]
    assert log_ticks(3.1, 4.2, 6) == [3.2, 3.4, 3.6, 3.8, 4.0, 4.2]


@pytest.mark.parametrize(("low", "high"), [(1e-6, 1e6), (0.9, 1.1), (4, 4.0001), (1, 30)])
def test_log_ticks_stay_inside_and_few(low, high):
    found = log_ticks(low, high, 6)
    assert 2 <= len(found) <= 6
    assert all(low <= v <= high for v in found)
