import json

import pytest

from fettle.core.measurement import Measurement


def measured(low, value, high, better="lower"):
    return Measurement("latency", value, "ms", better, low, high, 100)


def test_a_count_is_exact():
    size = Measurement.exact("size", 12, "B")
    assert (size.low, size.value, size.high, size.n, size.better) == (12, 12, 12, 1, "lower")


@pytest.mark.parametrize(
    ("better", "first", "second", "expected"),
    [
        ("lower", (1, 2, 3), (4, 5, 6), True),
        ("lower", (1, 2, 4), (3, 5, 6), False),  # the intervals overlap
        ("lower", (1, 2, 3), (3, 5, 6), False),  # and touch
        ("lower", (4, 5, 6), (1, 2, 3), False),
        ("higher", (4, 5, 6), (1, 2, 3), True),
        ("higher", (2, 5, 6), (1, 2, 3), False),
        ("higher", (1, 2, 3), (4, 5, 6), False),
        ("neither", (1, 2, 3), (4, 5, 6), False),
        ("neither", (4, 5, 6), (1, 2, 3), False),
    ],
)
def test_better_is_beyond_both_intervals(better, first, second, expected):
    assert measured(*first, better).beats(measured(*second, better)) is expected


def test_json_round_trip_ignores_what_it_does_not_know():
    one = measured(1.0, 2.0, 3.0)
    assert Measurement.from_json({**json.loads(json.dumps(one.to_json())), "new": 1}) == one


def test_prints_value_unit_and_interval():
    assert str(measured(1.23456, 2.0, 3000.0)) == "2 ms [1.235, 3000]"
