"""What `/metrics` answers: numbers of the models, the connections, the log and the machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from fettle.monitor.capsule import Capsules
from fettle.monitor.metrics import (
    CONTENT_TYPE,
    Family,
    Latencies,
    ModelNumbers,
    exposition,
    log_families,
    machine_families,
    model_families,
    observer_families,
)
from fettle.serve._observing import Channel, Told
from fettle.serve.http.limits import Guard
from fettle.serve.service import Service

Source = Callable[[], Sequence[Family]]


class Metrics:
    """Gathers all families when it is asked.

    Args:
        service: whose models are told of.
        sources: further families: the log's, the rollout's.
    """

    def __init__(self, service: Service, sources: Sequence[Source] = ()) -> None:
        self._service, self._sources = service, [*sources, machine_families]

    def add(self, source: Source) -> None:
        """Tell of more."""
        self._sources.insert(0, source)

    def __call__(self) -> tuple[bytes, str]:
        """Return the text and its content type."""
        families = model_families(self._models())
        for source in self._sources:
            families += source()
        return exposition(families).encode(), CONTENT_TYPE

    def _models(self) -> list[ModelNumbers]:
        repository = self._service.repository
        numbers = []
        for (name, version), statistics in repository.statistics().items():
            ready = version in repository.versions(name)
            pending = repository.find(name, version).batcher.held if ready else 0
            told = statistics.to_json(name, version)
            numbers.append(ModelNumbers(told, pending=pending, ready=ready))
        return numbers


def connection_families(guard: Guard) -> list[Family]:
    """Return how many connections are open, and how many were refused, by status."""
    held = Family("fettle_connections", "gauge", "Connections that are open")
    held.add(len(guard.connections))
    refused = Family(
        "fettle_connections_refused_total",
        "counter",
        "Connections closed before an application was asked, by status",
    )
    for status, count in sorted(guard.refused.items()):
        refused.add(count, status=str(status))
    return [held, refused]


def worker_families(lost: Mapping[str, Mapping[tuple[str, str], int]]) -> list[Family]:
    """Return how many worker processes ended unasked, by what their bundle is for."""
    family = Family(
        "fettle_workers_lost_total", "counter", "Worker processes that ended and were replaced"
    )
    for part, models in lost.items():
        for (name, version), count in sorted(models.items()):
            family.add(count, model=name, version=version, part=part)
    return [family]


def channel_families(channels: Sequence[Told]) -> list[Family]:
    """Return what observers missed or failed on, and what became of capsules."""
    named = {type(getattr(each, "observer", each)).__name__: each for each in channels}
    capsules = [each.observer for each in channels if isinstance(each, Channel)]
    counts = [each.counts for each in capsules if isinstance(each, Capsules)]
    return observer_families(
        {name: each.dropped for name, each in named.items()},
        {name: each.failed for name, each in named.items()},
        counts[0] if counts else {},
    )


__all__ = ["Latencies", "Metrics", "log_families"]
