"""A/B: a fixed share of callers is answered by another bundle, and each keeps to its own.

Who answers is read off a hash of the caller's key: the same on every server, after every restart,
with nothing kept. A larger share takes callers from A to B and none back. A request without a key
goes by its id, and one without either by its number.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from typing import Any

from fettle.monitor.metrics import Family
from fettle.serve.errors import Refused
from fettle.serve.protocol.request import InferRequest
from fettle.serve.repository import Served
from fettle.serve.rollout._fitting import Fitting
from fettle.serve.rollout._place import place_of
from fettle.serve.seams import ONLY, Chosen

PRIMARY = "primary"
Find = Callable[[str, str | None], Served]
"""As `Repository.find`."""


class Split:
    """Routes a share of a model's callers to another bundle.

    Requests for other models, and those that name a version, go where they would without it. While
    B isn't ready, or doesn't take what A does, A answers for it, as `primary`: such requests are
    part of neither arm.

    Args:
        name: the model's.
        a, b: what is asked for, and what else may answer.
        share: of the callers that B answers, 0 to 1; it may be changed.
        salt: another one assigns callers anew.
        parts: what the two are called in the log.

    Attributes:
        answered: requests by the part that was chosen for them.
    """

    def __init__(
        self,
        name: str,
        a: Find,
        b: Find,
        share: float,
        salt: str,
        parts: tuple[str, str] = ("a", "b"),
    ) -> None:
        self.name, self.share, self.parts = name, share, parts
        self._a, self._b, self._salt = a, b, salt
        self._fitting = Fitting()
        self._numbers = itertools.count()
        self.answered: Counter[str] = Counter()

    def choose(self, name: str, version: str | None, key: str, request: InferRequest) -> Chosen:
        """Return what answers; raises as `Route.choose`."""
        first = self._a(name, version)
        if name != self.name or version:
            return Chosen(first, ONLY)
        chosen = self._of_two(first, key or request.id)
        self.answered[chosen.part] += 1
        return chosen

    def takes(self, key: str) -> bool:
        """Say whether B answers whoever has this key; '' for one who has none."""
        return place_of(key or f"#{next(self._numbers)}", self._salt) < self.share

    def status(self) -> dict[str, Any]:
        """Return the share, and how many requests each part was given."""
        return {"model": self.name, "split": self.share, "answered": dict(self.answered)}

    def families(self) -> list[Family]:
        """Return its metrics; histograms of latency count the requests of each part."""
        share = Family("fettle_ab_share", "gauge", "Share of callers that B answers")
        share.add(self.share, model=self.name)
        return [share]

    def _of_two(self, first: Served, key: str) -> Chosen:
        if not self.takes(key):
            return Chosen(first, self.parts[0])
        second = self._other(first)
        return Chosen(second, self.parts[1]) if second else Chosen(first, PRIMARY)

    def _other(self, first: Served) -> Served | None:
        """Return B, unless it can't answer what A can."""
        try:
            second = self._b(self.name, None)
        except Refused:
            return None
        return None if self._fitting.trouble(first, second) else second
