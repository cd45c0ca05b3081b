"""A span for each call over gRPC; probes have none, a stream has one for all of its requests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc  # type: ignore[import-untyped]
from opentelemetry.trace import Span

from fettle.serve.grpc._interface import METHODS, SERVICE, STREAM
from fettle.serve.tracing.spans import Tracing, failed

_QUIET = frozenset({"ServerLive", "ServerReady", "ModelReady"})
_TRACED = frozenset(f"/{SERVICE}/{name}" for name in {*METHODS, STREAM} - _QUIET)
_FAILURES = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)
_CODES = {code.value[0]: code.name for code in grpc.StatusCode}


class Interceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Stands before the methods of the protocol, and traces them.

    Args:
        tracing: makes the spans.
    """

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], details: Any
    ) -> Any:
        """Return what handles a call."""
        handler = await continuation(details)
        if handler is None or details.method not in _TRACED:
            return handler
        kinds = (handler.request_deserializer, handler.response_serializer)
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(self._unary(handler, details), *kinds)
        return grpc.stream_stream_rpc_method_handler(self._stream(handler, details), *kinds)

    def _unary(self, handler: Any, details: Any) -> Callable[[Any, Any], Awaitable[Any]]:
        async def traced(asked: Any, context: Any) -> Any:
            with self._request(details, context) as span:
                try:
                    return await handler.unary_unary(asked, context)
                finally:
                    _conclude(span, context)

        return traced

    def _stream(self, handler: Any, details: Any) -> Callable[[Any, Any], AsyncIterator[Any]]:
        async def traced(asked: Any, context: Any) -> AsyncIterator[Any]:
            with self._request(details, context) as span:
                try:
                    async for answer in handler.stream_stream(asked, context):
                        yield answer
                finally:
                    _conclude(span, context)

        return traced

    def _request(self, details: Any, context: Any) -> Any:
        method = details.method.lstrip("/")
        headers = {
            key: value for key, value in details.invocation_metadata or () if isinstance(value, str)
        }
        told = {"rpc.system.name": "grpc", "rpc.method": method, "client.address": context.peer()}
        return self._tracing.request(method, headers, told)


def _conclude(span: Span, context: Any) -> None:
    code = context.code()
    name = _CODES.get(code, "OK") if isinstance(code, int) else code.name if code else "OK"
    if context.cancelled():
        name = "CANCELLED"
    span.set_attribute("rpc.response.status_code", name)
    if name in _FAILURES:
        failed(span, name)
