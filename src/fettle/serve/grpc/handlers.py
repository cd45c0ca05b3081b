"""What each method does: read the message, ask the service, write the answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc  # type: ignore[import-untyped]
from google.protobuf import json_format  # type: ignore[import-untyped]

from fettle.serve.errors import BadRequest, NotFound, NotReady, Refused
from fettle.serve.grpc._access import HUNG_UP, Seen
from fettle.serve.grpc._interface import METHODS, SERVICE, STREAM
from fettle.serve.grpc._refusals import status_of, told
from fettle.serve.grpc.messages import message
from fettle.serve.grpc.tensors import read_parameters, read_request, write_response
from fettle.serve.http.access import Access
from fettle.serve.http.security import Gate
from fettle.serve.protocol.request import InferRequest
from fettle.serve.room import Room
from fettle.serve.service import Meta, Service

_LONGEST_KEY = 200
_KEY = b"fettle-key"
_US = 1e-6
_CONTROL = frozenset({"RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload"})
_OPEN = frozenset({"ServerLive", "ServerReady", "ModelReady", "ServerMetadata"})

Context = Any
Answer = Callable[[Any, Context], Awaitable[Any]]


class Handlers:
    """The methods of `GRPCInferenceService`, each under its own name.

    Args:
        service: answers for the models.
        gate: lets callers in by their metadata.
        room: for the bodies of requests.
        access: is told of each call; None for no access log.
    """

    def __init__(
        self,
        service: Service,
        gate: Gate,
        room: Room,
        access: Callable[[Access], None] | None = None,
    ) -> None:
        self._service, self._gate, self._room, self._access = service, gate, room, access
        self._limits = service.settings
        self.stopping = False

    def generic(self) -> Any:
        """Return what a gRPC server dispatches by."""
        methods = {
            name: grpc.unary_unary_rpc_method_handler(
                self._guarded(name),
                request_deserializer=message(f"{name}Request").FromString,
                response_serializer=message(f"{name}Response").SerializeToString,
            )
            for name in METHODS
        }
        methods[STREAM] = grpc.stream_stream_rpc_method_handler(
            self._stream,
            request_deserializer=message("ModelInferRequest").FromString,
            response_serializer=message("ModelStreamInferResponse").SerializeToString,
        )
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    def _guarded(self, name: str) -> Answer:
        """Return the method that lets in whom it should, and tells errors as gRPC does."""
        answer = getattr(self, _snake(name))

        async def guarded(asked: Any, context: Context) -> Any:
            seen = Seen(name, asked, context)
            try:
                self._admit(name, context)
                with self._room.holding(seen.taken):
                    found = await answer(asked, context)
                self._note(seen, found)
                return found
            except asyncio.CancelledError:
                self._note(seen, status=HUNG_UP)
                raise
            except Exception as error:
                self._note(seen, status=status_of(error))
                code, text, metadata = told(error)
            return await context.abort(code, text, metadata)

        return guarded

    def _note(self, seen: Seen, found: Any = None, status: int = 200) -> None:
        if self._access is not None:
            self._access(seen.line(found, status))

    def _admit(self, name: str, context: Context) -> None:
        if name in _CONTROL:
            self._gate.control(_headers(context))
        elif name not in _OPEN:
            self._gate.infer(_headers(context))

    async def model_infer(self, asked: Any, context: Context) -> Any:
        """Answer with a prediction."""
        received = time.monotonic()
        name, version = asked.model_name, asked.model_version or None
        if self.stopping:
            raise NotReady("the server stops")
        try:
            signature = self._service.repository.find(name, version).model.signature
            request = read_request(asked, signature, self._limits)
            meta = self._meta(received, context, request)
        except Refused as error:
            unread = Meta(received, received, context.peer(), protocol="grpc")
            self._service.refused(name, version, unread, error, asked.id)
            raise
        return write_response(await self._service.infer(name, version, request, meta))

    async def _stream(self, requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
        """Answer each request of a stream in its turn; one that fails doesn't end the stream."""
        make = message("ModelStreamInferResponse")
        try:
            self._admit(STREAM, context)
        except Refused as error:
            await context.abort(*told(error))
        async for asked in requests:
            yield await self._streamed(asked, context, make)

    async def _streamed(self, asked: Any, context: Context, make: Any) -> Any:
        """Return one answer of a stream; each has its line in the access log."""
        seen = Seen(STREAM, asked, context)
        try:
            with self._room.holding(seen.taken):
                answer = await self.model_infer(asked, context)
        except Exception as error:
            self._note(seen, status=status_of(error))
            found = make(error_message=told(error)[1])
            found.infer_response.id = asked.id
            return found
        self._note(seen, answer)
        return make(infer_response=answer)

    def _meta(self, received: float, context: Context, request: InferRequest) -> Meta:
        key = _headers(context).get(_KEY, b"")
        if len(key) > _LONGEST_KEY:
            raise BadRequest(f"the metadata `fettle-key` expects at most {_LONGEST_KEY} bytes")
        seconds = self._limits.deadline_seconds
        asked = request.parameters.get("timeout", 0)
        if isinstance(asked, int | float) and asked > 0:
            seconds = min(seconds, asked * _US)
        left = context.time_remaining()  # None where the caller waits for ever
        return Meta(
            received=received,
            deadline=received + (seconds if left is None else min(seconds, left)),
            peer=context.peer(),
            key=key.decode("latin-1"),
            protocol="grpc",
        )

    async def server_live(self, asked: Any, context: Context) -> Any:
        """Say that the server runs."""
        del asked, context
        return message("ServerLiveResponse")(live=self._service.live())

    async def server_ready(self, asked: Any, context: Context) -> Any:
        """Say whether all models answer, and the server isn't about to stop."""
        del asked, context
        return message("ServerReadyResponse")(ready=self.ready())

    def ready(self) -> bool:
        """Say whether all models answer, and the server isn't about to stop."""
        return self._service.ready() and not self.stopping

    async def model_ready(self, asked: Any, context: Context) -> Any:
        """Say whether a model answers; of one that isn't here Triton too says that it doesn't."""
        del context
        try:
            ready = self._service.model_ready(asked.name, asked.version or None)
        except NotFound:
            ready = False
        return message("ModelReadyResponse")(ready=ready and not self.stopping)

    async def server_metadata(self, asked: Any, context: Context) -> Any:
        """Describe the server."""
        del asked, context
        return _filled("ServerMetadataResponse", self._service.metadata())

    async def model_metadata(self, asked: Any, context: Context) -> Any:
        """Describe a model."""
        del context
        found = self._service.model_metadata(asked.name, asked.version or None)
        return _filled("ModelMetadataResponse", found)

    async def model_config(self, asked: Any, context: Context) -> Any:
        """Describe a model in Triton's words."""
        del context
        found = self._service.model_config(asked.name, asked.version or None)
        return _filled("ModelConfigResponse", {"config": found})

    async def model_statistics(self, asked: Any, context: Context) -> Any:
        """Tell what one model, or all, have done."""
        del context
        found = self._service.statistics(asked.name or None, asked.version or None)
        return _filled("ModelStatisticsResponse", found)

    async def repository_index(self, asked: Any, context: Context) -> Any:
        """List the models."""
        del context
        return _filled("RepositoryIndexResponse", {"models": self._service.index(asked.ready)})

    async def repository_model_load(self, asked: Any, context: Context) -> Any:
        """Load a model."""
        del context
        await self._service.load(asked.model_name, read_parameters(asked.parameters))
        return message("RepositoryModelLoadResponse")()

    async def repository_model_unload(self, asked: Any, context: Context) -> Any:
        """Unload a model; whether what depends on it goes too is all the same to a bundle."""
        del context
        await self._service.unload(asked.model_name)
        return message("RepositoryModelUnloadResponse")()


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)[1:]


def _filled(name: str, document: Any) -> Any:
    """Return the message that says what REST says in JSON; fields that it lacks are left out."""
    return json_format.ParseDict(document, message(name)(), ignore_unknown_fields=True)


def _headers(context: Context) -> dict[bytes, bytes]:
    """Return a call's metadata as HTTP has its headers."""
    return {
        key.encode(): value if isinstance(value, bytes) else value.encode("latin-1", "replace")
        for key, value in context.invocation_metadata() or ()
    }
