"""What every protocol calls: one `infer`, and the questions about models around it.

A handler reads its request, calls `infer` and writes the answer; REST, gRPC and Ray differ in
nothing else. Which model answers is the route's choice. Observers (the log, a shadow) are told
after the answer, through queues of their own.
"""

from __future__ import annotations

import contextlib
import itertools
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version as version_of
from typing import Any, NamedTuple

from fettle.core.arrays import Arrays
from fettle.serve import _description
from fettle.serve._observing import Seen, Told, channel_to
from fettle.serve.batcher import Answer, Timing
from fettle.serve.errors import NotFound, Refused
from fettle.serve.protocol.request import InferRequest, InferResponse
from fettle.serve.repository import Repository
from fettle.serve.seams import ONLY, Chosen, Observer, Route
from fettle.serve.settings import Settings

EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "model_repository(unload_dependents)",
    "statistics",
)
_NEVER = Timing(0.0, 0.0, 0)


class Meta(NamedTuple):
    """What a handler knows of a request beside its contents.

    Attributes:
        received: when its first byte came, in seconds of `time.monotonic`.
        deadline: when nobody waits for the answer any more, on the same clock.
        peer: who asks.
        key: by which a caller keeps to one arm of a rollout; '' for none.
        protocol: "rest", "grpc" or "ray".
    """

    received: float
    deadline: float
    peer: str = ""
    key: str = ""
    protocol: str = "rest"


class Straight:
    """The route without a rollout: whatever the repository has under the name."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    def choose(self, name: str, version: str | None, key: str, request: InferRequest) -> Chosen:
        """Return what answers."""
        del key, request
        return Chosen(self._repository.find(name, version))


class Service:
    """Answers for the models of a repository.

    Args:
        repository: the models.
        settings: of the server.
        route: who answers; by default whatever has the name.
        observers: are told of every request after its answer.
        besides: says whether what rides along is ready, too.
    """

    def __init__(
        self,
        repository: Repository,
        settings: Settings,
        route: Route | None = None,
        observers: Sequence[Observer | Told] = (),
        besides: Callable[[], bool] = lambda: True,
    ) -> None:
        self.repository, self.settings, self._besides = repository, settings, besides
        self.route: Route = route or Straight(repository)
        self.channels = [channel_to(observer) for observer in observers]
        self._ids = (f"{secrets.token_hex(6)}-{number:x}" for number in itertools.count(1))

    async def infer(
        self, name: str, version: str | None, request: InferRequest, meta: Meta
    ) -> InferResponse:
        """Answer one request; its id is the caller's own, or one that is made here.

        Its inputs and what it wants were checked against the model's signature when it was read.

        Raises:
            NotFound: no such model or version.
            NotReady: it isn't loaded, or is unloaded while the request waits.
            BadRequest: the engine refuses the inputs.
            Busy, Late, Broken: as `Batcher.infer`.
        """
        asked = _Asked(name, version or "", request.id or next(self._ids), request, meta)
        chosen: Chosen | None = None
        try:
            chosen = self.route.choose(name, version, meta.key, request)
            answer = await chosen.served.batcher.infer(request.inputs, meta.deadline)
        except BaseException as error:  # one who hangs up is counted too
            self._failed(asked, chosen, error)
            raise
        self._answered(asked, chosen, answer)
        model = chosen.served.model
        return InferResponse(
            name,
            model.version,
            asked.id,
            answer.outputs,
            labels=model.signature.labels,
            wanted=request.wanted(answer.outputs),
        )

    def refused(
        self, name: str, version: str | None, meta: Meta, error: BaseException, request: str = ""
    ) -> str:
        """Count a request that could not be read, and tell observers of it.

        Args:
            name: of the model.
            version: of the model; None where none was asked for.
            meta: when it came, and from whom.
            error: what was wrong with it.
            request: its id, where so much could be read.

        Returns:
            Its id, or one that is made here.
        """
        asked = _Asked(
            name, version or "", request or next(self._ids), InferRequest(request, {}), meta
        )
        chosen: Chosen | None = None
        with contextlib.suppress(Refused):
            chosen = Chosen(self.repository.find(name, version))
        self._failed(asked, chosen, error)
        return asked.id

    def live(self) -> bool:
        """Say that the server runs."""
        return True

    def ready(self) -> bool:
        """Say whether all models that should be loaded are, and what rides along with them."""
        return self.repository.ready() and self._besides()

    def metadata(self) -> dict[str, Any]:
        """Return the protocol's server metadata."""
        return {"name": "fettle", "version": version_of("fettle"), "extensions": list(EXTENSIONS)}

    def model_ready(self, name: str, version: str | None = None) -> bool:
        """Say whether a model answers.

        Raises:
            NotFound: no such model or version.
        """
        try:
            self.repository.find(name, version)
        except NotFound:
            raise
        except Refused:
            return False
        return True

    def model_metadata(self, name: str, version: str | None = None) -> dict[str, Any]:
        """Return the protocol's model metadata.

        Raises:
            NotFound, NotReady: as `Repository.find`.
        """
        model = self.repository.find(name, version).model
        return _description.metadata(model, self.repository.versions(name))

    def model_config(self, name: str, version: str | None = None) -> dict[str, Any]:
        """Return the model's configuration in Triton's words.

        Raises:
            NotFound, NotReady: as `Repository.find`.
        """
        model = self.repository.find(name, version).model
        return _description.configuration(model, self.settings.batch_delay_ms)

    def statistics(self, name: str | None = None, version: str | None = None) -> dict[str, Any]:
        """Return the protocol's statistics of a model, or of all where no name is given.

        Raises:
            NotFound: no such model or version.
        """
        found = [
            statistics.to_json(*key)
            for key, statistics in sorted(self.repository.statistics().items())
            if key[0] == (name or key[0]) and key[1] == (version or key[1])
        ]
        if name and not found:
            self.repository.find(name, version)
        return {"model_stats": found}

    def index(self, ready: bool = False) -> list[dict[str, str]]:
        """Return every model and version with its state; with `ready`, those alone that answer."""
        return [row for row in self.repository.index() if row["state"] == "READY" or not ready]

    async def load(self, name: str, parameters: Mapping[str, Any] | None = None) -> None:
        """Load a model, or load it anew; raises as `Repository.load`."""
        await self.repository.load(name, parameters)

    async def unload(self, name: str) -> None:
        """Unload a model; raises as `Repository.unload`."""
        await self.repository.unload(name)

    def close(self) -> None:
        """Hand on what observers were told, and end their threads."""
        for channel in self.channels:
            channel.close()

    def _answered(self, asked: _Asked, chosen: Chosen, answer: Answer) -> None:
        seconds = time.monotonic() - asked.meta.received
        rows = _rows(asked.request)
        chosen.served.statistics.succeeded(rows, answer.timing, seconds)
        if self.channels:
            self._tell(_seen(asked, chosen, seconds, answer.timing, answer.outputs))

    def _failed(self, asked: _Asked, chosen: Chosen | None, error: BaseException) -> None:
        seconds = time.monotonic() - asked.meta.received
        if chosen is not None:
            chosen.served.statistics.failed(seconds)
        if self.channels and not isinstance(error, NotFound):  # any name can be asked for
            self._tell(_seen(asked, chosen, seconds, _NEVER, error=error))

    def _tell(self, seen: Seen) -> None:
        for channel in self.channels:
            channel.tell(seen)


class _Asked(NamedTuple):
    """One request, from its arrival on."""

    name: str
    version: str
    id: str
    request: InferRequest
    meta: Meta


def _seen(
    asked: _Asked,
    chosen: Chosen | None,
    seconds: float,
    timing: Timing,
    outputs: Arrays | None = None,
    error: BaseException | None = None,
) -> Seen:
    model = chosen.served.model if chosen else None
    return Seen(
        id=asked.id,
        time_ns=time.time_ns(),
        model=asked.name,
        version=model.version if model else asked.version,
        sha=model.sha if model else "",
        route=chosen.part if chosen else ONLY,
        key=asked.meta.key,
        protocol=asked.meta.protocol,
        timing=timing,
        total_s=seconds,
        inputs=asked.request.inputs,
        outputs=outputs,
        error=error,
    )


def _rows(request: InferRequest) -> int:
    """Return how many examples a request brings: 1 where the model has no batches."""
    first = next(iter(request.inputs.values()), None)
    return len(first) if first is not None and first.ndim else 1
