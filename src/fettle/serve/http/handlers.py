"""What each route does: read the request, ask the service, write the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

import orjson

from fettle.core.errors import InputError
from fettle.monitor.dashboard.live import Answer
from fettle.monitor.prediction import Label
from fettle.serve.errors import BadRequest, Conflict, Forbidden, NotFound, NotReady, Refused
from fettle.serve.http._body import Bodies, HungUp
from fettle.serve.http._exchange import BINARY, Call, Reply, told
from fettle.serve.http.openapi import describe
from fettle.serve.protocol.reading import read_infer
from fettle.serve.protocol.request import InferRequest
from fettle.serve.protocol.writing import write_infer
from fettle.serve.room import Held, Room
from fettle.serve.seams import Riding
from fettle.serve.service import Meta, Service

_LEFT = "the caller left before its request was complete"
_HEADER_LENGTH = b"inference-header-content-length"
_KEY = b"fettle-key"
_LONGEST_KEY = 200
_LONGEST_ID = 256
_LONGEST_REASON = 500
_MOST_LABELS = 10_000
_US = 1e-6


class Labels(Protocol):
    """Where feedback goes: the prediction log is one."""

    def label(self, request: str, value: Label, time_ns: int | None = None) -> bool:
        """Keep what was right for a request; return whether it was taken."""


class Handlers:
    """The routes' answers, by the names that `routes` gives them.

    Args:
        service: answers for the models.
        labels: takes feedback; None where there is no log.
        metrics: returns what Prometheus reads, and its content type.
        riding: what rides along with the models; None for nothing.
        room: for the bodies of requests.
        page: answers for the dashboard, given a query and the mark of the page that the caller has;
            None where there is no log.
    """

    def __init__(
        self,
        service: Service,
        labels: Labels | None = None,
        metrics: Callable[[], tuple[bytes, str]] | None = None,
        riding: Riding | None = None,
        room: Room | None = None,
        page: Callable[[bytes, bytes], Answer] | None = None,
    ) -> None:
        self._service, self._labels, self._metrics = service, labels, metrics
        self._page = page
        self._riding, self._limits = riding, service.settings
        self._bodies = Bodies(service.settings, room or Room(service.settings))
        self._description = orjson.dumps(describe())
        self.stopping = False

    async def infer(self, call: Call, name: str, version: str | None) -> Reply:
        """Answer with a prediction."""
        with self._bodies.holding() as held:
            request, meta = await self._read(call, held, name, version)
            call.id = request.id
            response = await self._service.infer(name, version, request, meta)
        call.id = response.id
        answer, header_length = write_infer(response)
        if header_length is None:
            return Reply(200, answer)
        return Reply(200, answer, BINARY, [(_HEADER_LENGTH, b"%d" % header_length)])

    async def _read(
        self, call: Call, held: Held, name: str, version: str | None
    ) -> tuple[InferRequest, Meta]:
        """Return the request; one that can't be read has its row in the log, too."""
        request = InferRequest("", {})
        try:
            signature = self._service.repository.find(name, version).model.signature
            body = await self._bodies.read(call, held)
            request = read_infer(body, call.number(_HEADER_LENGTH), signature, self._limits)
            return request, self._meta(call, request)
        except (Refused, HungUp, asyncio.CancelledError) as error:
            meta = Meta(call.started, call.started, call.peer)
            why = error if isinstance(error, Refused) else asyncio.CancelledError(_LEFT)
            call.id = self._service.refused(name, version, meta, why, request.id)
            raise

    def _meta(self, call: Call, request: InferRequest) -> Meta:
        key = call.headers.get(_KEY, b"")
        if len(key) > _LONGEST_KEY:
            raise BadRequest(f"the header `fettle-key` expects at most {_LONGEST_KEY} bytes")
        seconds = self._limits.deadline_seconds
        asked = request.parameters.get("timeout", 0)
        if isinstance(asked, int | float) and asked > 0:
            seconds = min(seconds, asked * _US)
        return Meta(
            received=call.started,
            deadline=call.started + seconds,
            peer=call.peer,
            key=key.decode("latin-1"),
            protocol="rest",
        )

    async def model(self, call: Call, name: str, version: str | None) -> Reply:
        """Describe a model."""
        del call
        return told(self._service.model_metadata(name, version))

    async def configuration(self, call: Call, name: str, version: str | None) -> Reply:
        """Describe a model in Triton's words."""
        del call
        return told(self._service.model_config(name, version))

    async def model_ready(self, call: Call, name: str, version: str | None) -> Reply:
        """Say whether a model answers."""
        del call
        if not self._service.model_ready(name, version):
            raise NotReady(f"model `{name}` isn't ready")
        return told({"name": name, "ready": True})

    async def statistics(self, call: Call, name: str, version: str | None) -> Reply:
        """Tell what one model, or all, have done."""
        del call
        return told(self._service.statistics(name, version))

    async def server(self, call: Call, name: str, version: str | None) -> Reply:
        """Describe the server."""
        del call, name, version
        return told(self._service.metadata())

    async def live(self, call: Call, name: str, version: str | None) -> Reply:
        """Say that the server runs."""
        del call, name, version
        return told({"live": self._service.live()})

    async def ready(self, call: Call, name: str, version: str | None) -> Reply:
        """Say whether all models answer, and the server isn't about to stop."""
        del call, name, version
        if self.stopping or not self._service.ready():
            why = "the server stops" if self.stopping else "not all models are ready"
            raise NotReady(f"{why}; POST /v2/repository/index tells more")
        return told({"ready": True})

    async def index(self, call: Call, name: str, version: str | None) -> Reply:
        """List the models."""
        del name, version
        asked = await self._document(call, {"ready": bool})
        return told(self._service.index(bool(asked.get("ready", False))))

    async def load(self, call: Call, name: str, version: str | None) -> Reply:
        """Load a model."""
        del version
        asked = await self._document(call, {"parameters": dict})
        await self._service.load(name, asked.get("parameters"))
        return told({})

    async def unload(self, call: Call, name: str, version: str | None) -> Reply:
        """Unload a model."""
        del version
        await self._document(call, {"parameters": dict})
        await self._service.unload(name)
        return told({})

    async def feedback(self, call: Call, name: str, version: str | None) -> Reply:
        """Take labels: one, or a list of them under `labels`."""
        del version
        self._service.model_ready(name)  # or there is no such model
        if self._labels is None:
            raise Forbidden("feedback is switched off: start the server with --log")
        given = await self._document(call, {"labels": list})
        entries = given.get("labels", [given])
        if not 1 <= len(entries) <= _MOST_LABELS:
            raise BadRequest(f"1 to {_MOST_LABELS} labels were expected, got {len(entries)}")
        checked = [_entry(entry) for entry in entries]
        try:
            taken = sum([self._labels.label(*entry) for entry in checked])
        except InputError as error:
            raise BadRequest(str(error)) from error
        if taken < len(checked):
            raise NotReady(f"the log took {taken} of {len(checked)} labels; send them again")
        return told({"taken": taken})

    async def rollout(self, call: Call, name: str, version: str | None) -> Reply:
        """Tell how what rides along is doing, and what was decided."""
        del call, name, version
        return told(await asyncio.to_thread(self._riding.status) if self._riding else {})

    async def promote(self, call: Call, name: str, version: str | None) -> Reply:
        """Take a canary to its next step, by hand."""
        del name, version
        reason = await self._reason(call)
        return told(vars(await asyncio.to_thread(self._canary().promote, reason)))

    async def rollback(self, call: Call, name: str, version: str | None) -> Reply:
        """Take a canary back, by hand."""
        del name, version
        reason = await self._reason(call)
        return told(vars(await asyncio.to_thread(self._canary().rollback, reason)))

    def _canary(self) -> Riding:
        if self._riding is None:
            raise Conflict("no canary rides along: start the server with --canary BUNDLE")
        return self._riding

    async def _reason(self, call: Call) -> str:
        reason = (await self._document(call, {"reason": str})).get("reason", "")
        if len(reason) > _LONGEST_REASON:
            raise BadRequest(f"`reason` expects at most {_LONGEST_REASON} characters")
        return str(reason)

    async def metrics(self, call: Call, name: str, version: str | None) -> Reply:
        """Tell Prometheus its numbers."""
        del call, name, version
        if self._metrics is None:
            raise Forbidden("metrics are switched off")
        body, kind = self._metrics()
        return Reply(200, body, kind.encode())

    async def description(self, call: Call, name: str, version: str | None) -> Reply:
        """Describe all this."""
        del call, name, version
        return Reply(200, self._description)

    async def dashboard(self, call: Call, name: str, version: str | None) -> Reply:
        """Show how the models do, as far as the log knows."""
        del name, version
        if self._page is None:
            raise NotFound("the dashboard is made from a log: start the server with --log FILE")
        query = call.scope.get("query_string", b"")
        return Reply(*self._page(query, call.headers.get(b"if-none-match", b"")))

    async def front(self, call: Call, name: str, version: str | None) -> Reply:
        """Say where to find what; a browser is sent to the dashboard, where there is one."""
        del name, version
        if self._page is not None and b"text/html" in call.headers.get(b"accept", b""):
            return Reply(307, headers=[(b"location", b"/dashboard")])
        return told({**self._service.metadata(), "description": "/openapi.json"})

    async def _document(self, call: Call, kinds: dict[str, type]) -> dict[str, Any]:
        """Return a small JSON object; `kinds` holds the types of fields that may be there."""
        with self._bodies.holding() as held:
            body = await self._bodies.read(call, held)
        try:
            found = orjson.loads(body or b"{}")
        except orjson.JSONDecodeError as error:
            raise BadRequest(f"a JSON object was expected, got no JSON: {error.msg}") from None
        if not isinstance(found, dict):
            raise BadRequest(f"a JSON object was expected, got {type(found).__name__}")
        for name, kind in kinds.items():
            if not isinstance(found.get(name, kind()), kind):
                raise BadRequest(f"`{name}` expects {_KINDS[kind]}")
        return found


_KINDS = {bool: "true or false", dict: "an object", list: "an array", str: "a text"}


def _entry(entry: Any) -> tuple[str, Label, int | None]:
    """Return id, label and time of one piece of feedback, or raise BadRequest."""
    if not isinstance(entry, dict) or not {"id", "label"} <= entry.keys():
        raise BadRequest('feedback expects {"id": …, "label": …}, or a list of such as `labels`')
    request, label, time_ns = entry["id"], entry["label"], entry.get("time_ns")
    if not isinstance(request, str) or not 1 <= len(request) <= _LONGEST_ID:
        raise BadRequest(f"`id` expects a text of 1 to {_LONGEST_ID} characters")
    if not isinstance(label, str | int | float):
        raise BadRequest("`label` expects a number or a text")
    if time_ns is not None and (type(time_ns) is not int or not 0 <= time_ns < 2**63):
        raise BadRequest("`time_ns` expects nanoseconds since 1970, a whole number")
    return request, label, time_ns
