"""Numbers and moments for people: 4.2 ms, 98.6 %, 14:05; what is missing is a dash."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

NB = "\u00a0"
DASH = "–"
_MINUS = "\u2212"
_DAY = 86_400


def fixed(value: float, digits: int) -> str:
    """Return `value` with `digits` decimals and a true minus sign; never a negative zero."""
    return f"{round(value, digits) + 0.0:,.{digits}f}".replace("-", _MINUS)


def significant(value: float | None, digits: int = 3) -> str:
    """Return `value` with so many significant digits at least: 0.0831, 4.21, 83.1, 1,205."""
    if value is None or not math.isfinite(value):
        return DASH
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(float(f"{value:.{digits - 1}e}"))))
    return fixed(value, max(digits - 1 - magnitude, 0))


def milliseconds(value: float | None) -> str:
    """Return a time: 83 µs, 4.2 ms, 1.2 s."""
    if value is None:
        return DASH
    if value == 0:
        return "0"
    if value < 0.1:
        return f"{significant(1000 * value, 2)}{NB}µs"
    if value < 1000:
        return f"{significant(value, 2)}{NB}ms"
    return f"{significant(value / 1000, 2)}{NB}s"


def count(value: float | None) -> str:
    """Return a whole number with its thousands apart."""
    return DASH if value is None else f"{value:,.0f}"


def percent(value: float | None, digits: int = 1) -> str:
    """Return a fraction as a percentage: 98.6 %; more digits where it is nearly none."""
    if value is None:
        return DASH
    few = 0 < abs(value) < 0.001
    return f"{fixed(100 * value, max(digits, 3 if few else 0))}{NB}%"


def points(value: float | None) -> str:
    """Return a difference of fractions in percentage points: −0.33 pp."""
    return DASH if value is None else f"{fixed(100 * value, 2)}{NB}pp"


def rate(value: float | None) -> str:
    """Return requests a second."""
    return DASH if value is None else f"{significant(value, 2)}/s"


def length(seconds: float) -> str:
    """Return a duration: 30 s, 5 min, 6 h, 3 d."""
    for size, unit in ((_DAY, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{significant(seconds / size, 2).removesuffix('.0')}{NB}{unit}"
    return f"{significant(seconds, 2)}{NB}s"


def moment(seconds: float, parts: str = "%Y-%m-%d %H:%M:%S") -> str:
    """Return a time in UTC."""
    return time.strftime(parts, time.gmtime(seconds))


def machine_moment(seconds: float) -> str:
    """Return a time as the attribute `datetime` of HTML holds it."""
    return moment(seconds, "%Y-%m-%dT%H:%M:%SZ")


def bounds(found: Mapping[str, Any] | None, form: Any = significant) -> str:
    """Return the ends of an interval, without the unit: [1.2, 3.4]; '' where there are none."""
    if not found or found.get("low") is None or found.get("high") is None:
        return ""
    low, high = (form(found[end]).split(NB)[0] for end in ("low", "high"))
    return f"[{low},{NB}{high}]"
