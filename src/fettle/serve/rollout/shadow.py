"""A shadow: another bundle, the original say, answers a sample of the requests once more.

Callers never wait for it and never see it. What it says is compared with what was answered, and is
logged under the same id with the route `shadow`.

Where both name the same class, both are right or both are wrong. So the accuracy of one differs
from the other's by at most the share of requests on which they disagree, whatever the labels would
be: `accuracy_loss_at_most` is the upper end of that share's interval, which holds at all times at
once. It is about requests like those of the sample, that both answered; a request of several rows
counts as the share of its rows.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fettle.core.arrays import Arrays
from fettle.monitor.answered import Answered
from fettle.monitor.metrics import Family
from fettle.monitor.prediction import Prediction
from fettle.monitor.sequential import Tally
from fettle.serve.errors import Refused
from fettle.serve.model import Model
from fettle.serve.rollout._agreement import Agreement, compared
from fettle.serve.rollout._mirror import Mirror, Mirrored, MirrorLimits
from fettle.serve.rollout._rows import shadow_row, told
from fettle.serve.rollout.split import Find

Record = Callable[[Answered], None]
_MOST_PAIRS = 4


@dataclass
class Comparison:
    """What is known of one bundle that answered against the shadow.

    Attributes:
        disagreement: of the requests that both answered.
        classes: whether all were compared by their classes, so that this bounds accuracy.
        failed: requests that the shadow couldn't answer, or not comparably.
    """

    disagreement: Tally = field(default_factory=Tally)
    classes: bool = True
    failed: int = 0

    def add(self, agreement: Agreement | None) -> None:
        """Count one request; None where the shadow failed, or answered nothing comparable."""
        if agreement is None:
            self.failed += 1
            return
        self.disagreement.add(agreement.disagreement)
        self.classes = self.classes and agreement.classes

    def to_json(self, alpha: float) -> dict[str, Any]:
        """Return the counts, the interval, and the bound on the loss where there is one."""
        interval = self.disagreement.interval(alpha)
        known = self.classes and self.disagreement.n > 0
        return {
            "n": self.disagreement.n,
            "failed": self.failed,
            "disagreement": interval._asdict(),
            "accuracy_loss_at_most": interval.high if known else None,
            "confidence": 1 - alpha,
        }


class Shadow:
    """Observes a service, and has a sample of what it answered answered again.

    Args:
        name: the model whose requests are mirrored.
        find: finds the shadow.
        limits: what it may take.
        tolerance: as `compare`.
        alpha: one less the confidence of its intervals.
        record: keeps the shadow's answers; the log's `tell`.
    """

    def __init__(
        self,
        name: str,
        find: Find,
        limits: MirrorLimits,
        tolerance: float = 0.05,
        alpha: float = 0.05,
        record: Record | None = None,
    ) -> None:
        self.name, self._find = name, find
        self._tolerance, self._alpha, self._record = tolerance, alpha, record
        self._pairs: dict[tuple[str, str], Comparison] = {}
        self._lock = threading.Lock()
        self.mirror = Mirror(self._other, self._took, limits)

    @property
    def dropped(self) -> int:
        """Requests of the sample that it was too slow for."""
        return self.mirror.dropped

    @property
    def failed(self) -> int:
        """Requests that it couldn't answer, or not comparably."""
        with self._lock:
            return sum(comparison.failed for comparison in self._pairs.values())

    def tell(self, seen: Answered) -> None:
        """Take what was answered; returns at once."""
        if seen.model == self.name:
            self.mirror.tell(seen)

    def seen(self, prediction: Prediction, inputs: Arrays, outputs: Arrays | None) -> None:
        """Take one prediction."""
        self.tell(told(prediction, inputs, outputs))

    def close(self, seconds: float = 5.0) -> None:
        """Compare nothing more."""
        self.mirror.close(seconds)

    def status(self) -> dict[str, Any]:
        """Return how it is doing, and for each bundle that answered how far it agrees."""
        with self._lock:
            found = [
                {"answered": pair[0], "shadow": pair[1], **comparison.to_json(self._alpha)}
                for pair, comparison in self._pairs.items()
            ]
        mirror = self.mirror
        counted = {k: getattr(mirror, k) for k in ("taken", "dropped", "done", "hangs")}
        return {"model": self.name, **counted, "failed": self.failed, "compared": found}

    def families(self) -> list[Family]:
        """Return its metrics."""
        status = self.status()
        requests = Family("fettle_shadow_requests_total", "counter", "Mirrored requests, by fate")
        for fate in ("taken", "dropped", "done", "failed"):
            requests.add(status[fate], model=self.name, fate=fate)
        hangs = Family("fettle_shadow_hangs", "gauge", "Whether the shadow hangs")
        hangs.add(status["hangs"], model=self.name)
        disagreement = Family(
            "fettle_shadow_disagreement", "gauge", "Share of requests answered otherwise; bounds"
        )
        loss = Family(
            "fettle_shadow_accuracy_loss_bound", "gauge", "What accuracy differs by at most"
        )
        for row in status["compared"]:
            labels = {"model": self.name, "answered": row["answered"], "shadow": row["shadow"]}
            for bound, value in row["disagreement"].items():
                if value is not None:
                    disagreement.add(value, bound=bound, **labels)
            if row["accuracy_loss_at_most"] is not None:
                loss.add(row["accuracy_loss_at_most"], **labels)
        return [requests, hangs, disagreement, loss]

    def _other(self, seen: Answered) -> Model | None:
        del seen
        try:
            return self._find(self.name, None).model
        except Refused:  # it is loaded anew
            return None

    def _took(self, mirrored: Mirrored) -> None:
        agreement = compared(mirrored.seen.outputs, mirrored.outputs, self._tolerance)
        if self._record is not None:
            self._record(shadow_row(mirrored, agreement))
        comparison = self._comparison(mirrored.seen.sha, mirrored.model.sha)
        with self._lock:
            comparison.add(agreement)

    def _comparison(self, answered: str, shadow: str) -> Comparison:
        """Return the pair's; of pairs that were, the oldest are forgotten."""
        with self._lock:
            found = self._pairs.setdefault((answered, shadow), Comparison())
            while len(self._pairs) > _MOST_PAIRS:
                del self._pairs[next(iter(self._pairs))]
            return found
