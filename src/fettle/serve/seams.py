"""What rollouts and logs are to a service: who answers a request, and who is told of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from fettle.core.arrays import Arrays
from fettle.monitor.prediction import Prediction

if TYPE_CHECKING:
    from fettle.serve.protocol.request import InferRequest
    from fettle.serve.repository import Served
    from fettle.serve.rollout.decisions import Decision

ONLY = "only"
"""What a model's part is called when no other rides along."""


class Chosen(NamedTuple):
    """What answers a request, and its part in a rollout: `only`, `a`, `b`, `canary`, `primary`."""

    served: Served
    part: str = ONLY


class Route(Protocol):
    """Says which model answers."""

    def choose(self, name: str, version: str | None, key: str, request: InferRequest) -> Chosen:
        """Return what answers a request for `name`; `key` is whom it is for, '' for no one.

        Whatever is chosen has the signature of what has the name: requests were read by it.

        Raises:
            NotFound: no such model or version.
            NotReady: it isn't loaded.
        """


class Observer(Protocol):
    """Is told of every request after its answer, on a thread of its own.

    It may have more. `wants(seen) -> bool` says on the event loop whether it is told of one at all.
    `tell(seen)`, with `close(seconds)` and the counters `dropped` and `failed`, does without the
    service's channel: it is called on the event loop and has to return at once.
    """

    def seen(self, prediction: Prediction, inputs: Arrays, outputs: Arrays | None) -> None:
        """Take one prediction; `outputs` is None where it failed."""


class Riding(Protocol):
    """What rides along with the models, as whoever controls a server sees it."""

    def status(self) -> dict[str, Any]:
        """Return how it is doing, and what was decided, as JSON holds it."""

    def promote(self, reason: str) -> Decision:
        """Take the canary to its next step; raises Conflict where it has none."""

    def rollback(self, reason: str) -> Decision:
        """Take the canary back; raises Conflict where there is nothing to take back."""
