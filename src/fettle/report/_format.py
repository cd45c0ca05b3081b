"""Numbers for people: 4.2 ms, 312 kB, 3.4×, 98.6 %; what is missing is a dash.

A value and its unit are joined by a no-break space; `plain` turns it back for terminals.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from fettle.report._record import Interval

NB = "\u00a0"
DASH = "–"
MINUS = "\u2212"


def plain(text: str) -> str:
    """Return `text` with ordinary spaces."""
    return text.replace(NB, " ")


def fixed(value: float, digits: int) -> str:
    """Return `value` with `digits` decimals and a true minus sign; never a negative zero."""
    rounded = round(value, digits) + 0.0
    return f"{rounded:,.{digits}f}".replace("-", MINUS)


def significant(value: float | None, digits: int = 3) -> str:
    """Return `value` with at least `digits` significant digits: 0.0831, 4.21, 83.1, 1,205."""
    if value is None:
        return DASH
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(float(f"{value:.{digits - 1}e}"))))
    return fixed(value, max(digits - 1 - magnitude, 0))


def milliseconds(value: float | None) -> str:
    """Return a time: 83 µs, 0.42 ms, 4.2 ms, 83 ms, 1.2 s."""
    if value is None:
        return DASH
    if value < 0.1:
        return f"{significant(value * 1000, 2)}{NB}µs"
    if value < 1000:
        return f"{significant(value, 2)}{NB}ms"
    return f"{significant(value / 1000, 2)}{NB}s"


def seconds(value: float | None) -> str:
    """Return a duration: 0.03 s, 3.2 s, 2 min 3 s, 1 h 5 min."""
    if value is None:
        return DASH
    if value < 60:
        return f"{significant(value, 2)}{NB}s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes}{NB}min {rest}{NB}s"
    return f"{minutes // 60}{NB}h {minutes % 60}{NB}min"


def size(value: float | None) -> str:
    """Return bytes in decimal units: 640 B, 312 kB, 1.2 MB."""
    return DASH if value is None else _scaled(value, ("B", "kB", "MB", "GB", "TB"))


def quantity(value: float | None) -> str:
    """Return a large count: 640, 41.2 M."""
    return DASH if value is None else _scaled(value, ("", "k", "M", "G", "T")).strip()


def count(value: float | None) -> str:
    """Return a whole number with its thousands apart."""
    return DASH if value is None else f"{value:,.0f}"


def times(value: float | None) -> str:
    """Return a ratio: 0.84×, 3.4×, 120×."""
    return DASH if value is None else f"{fixed(value, _decimals(value))}×"


def percent(value: float | None) -> str:
    """Return a fraction as a percentage: 98.6 %."""
    return DASH if value is None else f"{fixed(100 * value, 1)}{NB}%"


def share(value: float | None) -> str:
    """Return a fraction as a whole percentage: 26 %."""
    return DASH if value is None else f"{significant(100 * value, 2)}{NB}%"


def points(value: float | None) -> str:
    """Return a difference of fractions in percentage points: 0.33 pp."""
    return DASH if value is None else f"{fixed(100 * value, 2)}{NB}pp"


def decibels(noise: float) -> str:
    """Return noise as a share of the signal as their ratio: 0.01 is 20 dB."""
    return f"{fixed(-10 * math.log10(max(noise, 1e-12)), 1)}{NB}dB"


def budget(value: float | None) -> str:
    """Return an allowed loss without idle decimals: 2 pp, 0.5 pp."""
    return DASH if value is None else f"{100 * value:.4g}{NB}pp"


def times_bounds(value: Interval | None) -> str:
    """Return the bounds of a ratio, with as many decimals as the ratio itself: [3.2, 3.6]."""
    decimals = _decimals(value.value) if value else 0
    return _bounds(value, lambda bound: fixed(bound, decimals))


def percent_bounds(value: Interval | None) -> str:
    """Return the bounds of a fraction in percent: [97.0, 99.3]."""
    return _bounds(value, lambda bound: fixed(100 * bound, 1))


def points_bounds(value: Interval | None) -> str:
    """Return the bounds of a difference in percentage points: [−0.40, 1.20]."""
    return _bounds(value, lambda bound: fixed(100 * bound, 2))


def _bounds(value: Interval | None, form: Callable[[float], str]) -> str:
    if value is None or not value.bounded:
        return ""
    return f"[{form(value.low)},{NB}{form(value.high)}]"


def _decimals(ratio: float) -> int:
    if abs(ratio) < 2:
        return 2
    return 1 if abs(ratio) < 100 else 0


def _scaled(value: float, units: tuple[str, ...]) -> str:
    power = 0
    while abs(value) >= 1000 and power < len(units) - 1:
        value, power = value / 1000, power + 1
    return f"{significant(value, 2)}{NB}{units[power]}"
