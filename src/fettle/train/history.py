"""What a training run leaves behind beside the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class EpochRecord:
    """One epoch: mean training loss, mean score on `select`, last learning rate, wall time in s.

    `metric` is None when the run was not validated.
    """

    epoch: int
    loss: float
    metric: float | None
    lr: float
    seconds: float


@dataclass(frozen=True)
class History:
    """All epochs of a run, those before an interruption too.

    `steps` counts optimizer steps; `resumed_at` is the step at which this run took up an earlier
    one's checkpoint, or None when it started anew.
    """

    epochs: tuple[EpochRecord, ...] = ()
    steps: int = 0
    resumed_at: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {**asdict(self), "epochs": [asdict(record) for record in self.epochs]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> History:
        """Read the JSON form."""
        records = tuple(EpochRecord(**record) for record in data["epochs"])
        return cls(records, data["steps"], data["resumed_at"])
