"""A number with its unit, its interval and how many samples stand behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Better = Literal["lower", "higher", "neither"]


@dataclass(frozen=True)
class Measurement:
    """One measured value.

    `low` and `high` bound it at 95 % confidence unless its maker says otherwise; a count that is
    exact, such as bytes, has `low == value == high`.
    """

    name: str
    value: float
    unit: str
    better: Better
    low: float
    high: float
    n: int

    @classmethod
    def exact(cls, name: str, value: float, unit: str, better: Better = "lower") -> Measurement:
        """Return a value that was counted, not sampled."""
        return cls(name, value, unit, better, value, value, 1)

    def beats(self, other: Measurement) -> bool:
        """Say whether this is better than `other` beyond both intervals."""
        if self.better == "lower":
            return self.high < other.low
        return self.better == "higher" and self.low > other.high

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "better": self.better,
            "low": self.low,
            "high": self.high,
            "n": self.n,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Measurement:
        """Read the JSON form."""
        return cls(**{name: data[name] for name in cls.__dataclass_fields__})

    def __str__(self) -> str:
        return f"{self.value:.4g} {self.unit} [{self.low:.4g}, {self.high:.4g}]"
