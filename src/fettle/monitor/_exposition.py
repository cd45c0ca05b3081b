"""Prometheus' text format, version 0.0.4.

Written here because prometheus-client can't write Triton's names: it ends each counter on `_total`.

Specification: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})
_HELP_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n"})


class Sample(NamedTuple):
    """One number, its labels, and what its name has after the family's: "_bucket", say."""

    value: float
    labels: Mapping[str, str]
    suffix: str = ""


@dataclass(frozen=True)
class Family:
    """All samples of one metric."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    samples: list[Sample] = field(default_factory=list)

    def add(self, value: float, **labels: str) -> None:
        """Add a sample."""
        self.samples.append(Sample(value, labels))


def exposition(families: Iterable[Family]) -> str:
    """Return what `/metrics` answers; a family without samples is left out.

    Example:
        >>> family = Family("fettle_up", "gauge", "Whether it runs")
        >>> family.add(1, model="m")
        >>> print(exposition([family]), end="")
        # HELP fettle_up Whether it runs
        # TYPE fettle_up gauge
        fettle_up{model="m"} 1
    """
    lines = [line for family in families if family.samples for line in _lines(family)]
    return "".join(f"{line}\n" for line in lines)


def _lines(family: Family) -> Iterator[str]:
    yield f"# HELP {family.name} {family.help.translate(_HELP_ESCAPES)}"
    yield f"# TYPE {family.name} {family.kind}"
    for sample in family.samples:
        named = [f'{k}="{v.translate(_ESCAPES)}"' for k, v in sample.labels.items()]
        labels = f"{{{','.join(named)}}}" if named else ""
        yield f"{family.name}{sample.suffix}{labels} {_number(sample.value)}"


def _number(value: float) -> str:
    if math.isfinite(value):
        return str(int(value)) if value == int(value) else repr(float(value))
    return "NaN" if math.isnan(value) else f"{'+' if value > 0 else '-'}Inf"
