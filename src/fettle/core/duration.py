"""Durations as people write them: 90s, 20m, 2h."""

from __future__ import annotations

import re

from fettle.core.errors import KnobError

_UNITS = {"s": 1, "m": 60, "h": 3600}


def seconds_of(duration: str | float, name: str = "time_limit") -> float:
    """Return the seconds of a duration such as `90s`, `20m` or `2h`; a bare number is seconds.

    Raises:
        KnobError: no such duration, or none above 0.

    Example:
        >>> seconds_of("20m")
        1200.0
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smh]?)", str(duration).strip())
    if not match or float(match[1]) <= 0:
        raise KnobError(f"`{name}` expects a duration such as 90s, 20m or 2h, got `{duration}`")
    return float(match[1]) * _UNITS[match[2] or "s"]
