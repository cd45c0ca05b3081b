"""The cost ledger: what the optimized model saves against its own original, on the same requests.

```python
for ledger in ledgers(open_log("predictions.db"), Prices.read("prices.yaml")):
    print(ledger.to_json()["saved"])
```

The shadow is the original, and it answers a sample of what the optimized model answered. So both
costs are measured, on the same inputs and the same machine; nothing is taken from a table. From
what is saved goes what the shadow itself has cost.

A prediction costs the time that its run of the engine took over the rows of that run, times the
cores that the engine keeps busy (`Prices.threads`). Two things to know of it:

- It is time on the clock, not of the processor. Where a machine is short of cores, the shadow, of
  the lowest priority, waits longer than what it is compared with, and savings look larger than they
  are: `typical_ratio`, of the medians, hardly moves with that. Where both differ much, believe it.
- The original answers alone, while the optimized model is batched where there is traffic. That is
  part of what the server saves, and not of what the model does.

A request counts as one prediction, however many rows it has: the log doesn't hold that.

Intervals are by batch means and the delta method (`_batch_means`): neighbouring requests are alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from fettle.core.errors import DataError
from fettle.monitor._batch_means import BatchMeans
from fettle.monitor._reading import LogFile
from fettle.monitor._settings_file import read_settings, refuse_unknown
from fettle.monitor.histogram import Histogram
from fettle.monitor.pairs import SHADOW, Pairs, Who, shadow_pairs
from fettle.monitor.prediction import OK

_HOUR = 3600.0
_KWH = 3.6e6  # joules
_PER = 1000  # predictions
_SIDES = ("served", "original")


@dataclass(frozen=True)
class Prices:
    """What things cost, as a file says it.

    ```yaml
    currency: EUR
    core_hour: 0.042                      # of one core, or of a GPU where it computes
    threads: {served: 2, original: 1}     # cores that a run of the engine keeps busy
    watts: 6.5                            # of a busy core, where nobody has measured joules
    joules: {served: 0.011, original: 0.052}   # a prediction, as `fettle bench` measured them
    grams_per_kwh: 380                    # of CO₂, of the power that is used
    ```

    Attributes:
        currency: of `core_hour`.
        core_hour: price of a core for an hour; None where money is not of interest.
        threads: cores by side, "served" and "original" (the shadow).
        watts: of a busy core; None where it isn't known.
        joules: measured, of a prediction, by side; they win over `watts`.
        grams_per_kwh: of CO₂.

    Raises:
        DataError: a number that is none, or negative.
    """

    currency: str = ""
    core_hour: float | None = None
    threads: dict[str, float] = field(default_factory=dict)
    watts: float | None = None
    joules: dict[str, float] = field(default_factory=dict)
    grams_per_kwh: float | None = None

    def __post_init__(self) -> None:
        for name in ("core_hour", "watts", "grams_per_kwh"):
            _positive(name, getattr(self, name))
        for name in ("threads", "joules"):
            given = getattr(self, name)
            if not isinstance(given, dict):
                raise DataError(f"`{name}` expects values for {' and '.join(_SIDES)}, got {given}")
            refuse_unknown(f"`{name}`", given, _SIDES)
            for side, value in given.items():
                _positive(f"{name}: {side}", value)

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read a file of YAML or JSON.

        Raises:
            DataError: it isn't there, or holds something else.
            MissingError: YAML, without PyYAML.
        """
        given = read_settings(Path(path))
        refuse_unknown(str(path), given, tuple(cls.__dataclass_fields__))
        return cls(**given)


@dataclass
class Ledger:
    """What was counted of one bundle that answered, and the original beside it.

    Attributes:
        who: both, and the model.
        predictions: that were answered, by whoever of the two was asked.
        shadow_seconds: of the engine, that the original took to answer along.
        pairs: seconds of each side for what both answered.
        medians: of the same, by side.
    """

    who: Who
    prices: Prices
    predictions: int = 0
    shadow_seconds: float = 0.0
    pairs: BatchMeans = field(default_factory=lambda: BatchMeans(2))
    medians: tuple[Histogram, Histogram] = field(default_factory=lambda: (Histogram(), Histogram()))

    def add(self, pairs: Pairs) -> None:
        """Count requests that both answered."""
        known = np.isfinite(pairs.seconds).all(1)
        cores = [self.prices.threads.get(side, 1.0) for side in _SIDES]
        seconds = pairs.seconds[known] * cores
        self.pairs.add(seconds)
        for at, histogram in enumerate(self.medians):
            histogram.add(1e9 * seconds[:, at])  # in nanoseconds: a small model takes few µs

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form; `net` is what is left when the shadow is paid."""
        told: dict[str, Any] = {
            **self.who._asdict(),
            "predictions": self.predictions,
            "pairs": self.pairs.n,
            "per": _PER,
        }
        if not self.pairs.n or self.pairs.ratio([0, 1, 0], [1, 0, 0]).value == 0:
            return told
        served, original = [0, 1, 0], [0, 0, 1]
        told |= {
            "ratio": self.pairs.ratio(original, served).to_json(),
            "typical_ratio": self._typical(),
            "seconds": self._money(1.0, self._shadow),
            "money": self._priced(),
            "energy_joules": self._energy(),
            "co2_grams": self._carbon(),
            "notes": self._notes(),
        }
        return told

    @property
    def _shadow(self) -> float:
        """What the shadow took of cores, for a prediction."""
        spent = self.shadow_seconds * self.prices.threads.get("original", 1.0)
        return spent / self.predictions if self.predictions else 0.0

    def _money(self, scale: float, shadow: float) -> dict[str, Any]:
        """Return both sides' costs of so many predictions in some unit of a core's second."""
        served, original, saved = ([0, 1, 0], [0, 0, 1], [0, -1, 1])
        by = _PER * scale
        per_one = {
            "served": self.pairs.ratio(served, [1, 0, 0]),
            "original": self.pairs.ratio(original, [1, 0, 0]),
            "saved": self.pairs.ratio(saved, [1, 0, 0]),
        }
        told = {name: found.to_json(by) for name, found in per_one.items()}
        told["shadow"] = {"value": by * shadow}
        told["net"] = per_one["saved"].to_json(by, by * shadow)
        whole = scale * self.predictions
        told["net_in_all"] = per_one["saved"].to_json(whole, whole * shadow)
        return told

    def _typical(self) -> float | None:
        served, original = (histogram.quantile(0.5) for histogram in self.medians)
        return original.value / served.value if served and original and served.value else None

    def _priced(self) -> dict[str, Any] | None:
        if self.prices.core_hour is None:
            return None
        scale = self.prices.core_hour / _HOUR
        return {"currency": self.prices.currency, **self._money(scale, self._shadow)}

    def _energy(self) -> dict[str, Any] | None:
        """Return joules: measured where they were, else by the power of a core."""
        measured = self.prices.joules
        if set(measured) == set(_SIDES):
            saved = measured["original"] - measured["served"]
            shadow = measured["original"] * self.pairs.n / max(self.predictions, 1)
            sides = {side: {"value": _PER * measured[side]} for side in _SIDES}
            return {
                "how": "measured",
                **sides,
                "saved": {"value": _PER * saved},
                "shadow": {"value": _PER * shadow},
                "net": {"value": _PER * (saved - shadow)},
                "net_in_all": {"value": self.predictions * (saved - shadow)},
            }
        if self.prices.watts is None:
            return None
        return {"how": "by the power of a core", **self._money(self.prices.watts, self._shadow)}

    def _carbon(self) -> dict[str, Any] | None:
        energy, grams = self._energy(), self.prices.grams_per_kwh
        if energy is None or grams is None:
            return None
        found = {name: value for name, value in energy.items() if name != "how"}
        return {
            "how": energy["how"],
            **{n: _scaled(value, grams / _KWH) for n, value in found.items()},
        }

    def _notes(self) -> list[str]:
        notes = ["seconds are the engine's time on the clock, for each core that it keeps busy"]
        if not self.prices.threads:
            notes.append("one core a run is taken for granted: `threads` in the prices says more")
        ratio, typical = self.pairs.ratio([0, 0, 1], [0, 1, 0]).value, self._typical()
        if typical and not 0.67 < ratio / typical < 1.5:
            notes.append("the means are far from the medians: the machine was busy with other work")
        return notes


def ledgers(log: LogFile, prices: Prices | None = None) -> list[Ledger]:
    """Return a ledger for each bundle that answered, and each original that rode along.

    Raises:
        DataError: the log is damaged.
    """
    chosen = prices or Prices()
    found: dict[Who, Ledger] = {}
    for pairs in shadow_pairs(log):
        found.setdefault(pairs.who, Ledger(pairs.who, chosen)).add(pairs)
    if found:
        _count(log, found)
    return [found[who] for who in sorted(found)]


def _count(log: LogFile, ledgers_by: dict[Who, Ledger]) -> None:
    """Count what was answered in all, and what the shadows took."""
    answered: dict[tuple[str, str], int] = {}
    spent: dict[tuple[str, str], float] = {}
    for number, rows, seconds in log.query(_TOTALS):
        origin = log.origins[number]
        if origin.route == SHADOW:
            key = (origin.model, origin.sha)
            spent[key] = spent.get(key, 0.0) + (seconds or 0.0)
        elif origin.status == OK:
            key = (origin.model, origin.sha)
            answered[key] = answered.get(key, 0) + rows
    for who, ledger in ledgers_by.items():
        ledger.predictions = answered.get((who.model, who.answered), 0)
        alike = [other for other in ledgers_by.values() if other.who[::2] == who[::2]]
        part = ledger.pairs.n / max(1, sum(other.pairs.n for other in alike))
        ledger.shadow_seconds = part * spent.get((who.model, who.shadow), 0.0)


_TOTALS = """
SELECT origin, count(*), sum(compute_us / 1e6) FROM predictions GROUP BY origin
"""


def _scaled(value: dict[str, Any], by: float) -> dict[str, Any]:
    return {name: None if number is None else by * number for name, number in value.items()}


def _positive(name: str, value: Any) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DataError(f"`{name}` expects a number, got {value!r}")
    if not math.isfinite(value) or value <= 0:
        raise DataError(f"`{name}` expects a number above 0, got {value!r}")
