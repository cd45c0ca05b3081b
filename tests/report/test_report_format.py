from __future__ import annotations

import pytest

from fettle.report import _format as form
from fettle.report._record import Interval


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (0.0004, "0.40 µs"),
        (0.083, "83 µs"),
        (0.42, "0.42 ms"),
        (4.21, "4.2 ms"),
        (83.1, "83 ms"),
        (999.4, "999 ms"),
        (1234.0, "1.2 s"),
    ],
)
def test_milliseconds(value, shown):
    assert form.plain(form.milliseconds(value)) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (640, "640 B"),
        (312_000, "312 kB"),
        (1_101_000, "1.1 MB"),
        (97_800_000, "98 MB"),
        (2.5e15, "2,500 TB"),
    ],
)
def test_bytes(value, shown):
    assert form.plain(form.size(value)) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "–"), (0.84, "0.84×"), (1.0, "1.00×"), (3.42, "3.4×"), (13.66, "13.7×"), (200, "200×")],
)
def test_ratios(value, shown):
    assert form.times(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "–"), (3.21, "3.2 s"), (0.031, "0.031 s"), (123.4, "2 min 3 s"), (3900, "1 h 5 min")],
)
def test_durations(value, shown):
    assert form.plain(form.seconds(value)) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (0.08314, "0.0831"), (4.2149, "4.21"), (0.9999, "1.00"), (1204.6, "1,205")],
)
def test_three_significant_digits(value, shown):
    assert form.significant(value) == shown


def test_percentages_and_points():
    assert form.plain(form.percent(0.9856)) == "98.6 %"
    assert form.plain(form.share(0.2614)) == "26 %"
    assert form.plain(form.points(-0.0031)) == "−0.31 pp"
    assert form.plain(form.budget(0.005)) == "0.5 pp"


def test_nothing_is_shown_as_a_negative_zero():
    assert form.points(-1e-9) == form.points(0.0)


def test_bounds_have_the_decimals_of_their_value():
    assert form.plain(form.times_bounds(Interval(2.1, 1.97, 2.2))) == "[2.0, 2.2]"
    assert form.plain(form.percent_bounds(Interval(0.985, 0.97, 0.9931))) == "[97.0, 99.3]"
    assert form.plain(form.points_bounds(Interval(0, -0.004, 0.012))) == "[−0.40, 1.20]"


def test_a_value_without_bounds_shows_none():
    assert form.times_bounds(Interval(1.0, 1.0, 1.0)) == ""
    assert form.times_bounds(None) == ""


def test_large_counts():
    assert form.plain(form.quantity(41_200_000)) == "41 M"
    assert form.quantity(640) == "640"
