"""gRPC's own health service, as orchestrators ask it.

Specification: https://github.com/grpc/grpc/blob/master/doc/health-checking.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc  # type: ignore[import-untyped]
from grpc_health.v1 import health_pb2  # type: ignore[import-untyped]

from fettle.serve.grpc._interface import SERVICE

NAME = "grpc.health.v1.Health"
_Response = health_pb2.HealthCheckResponse


class Health:
    """Says SERVING while the server is ready, else NOT_SERVING.

    Args:
        ready: says whether it is.
        every_s: how often those who watch it are looked after.
    """

    def __init__(self, ready: Callable[[], bool], every_s: float = 0.5) -> None:
        self._ready, self._every_s = ready, every_s

    def generic(self) -> Any:
        """Return what a gRPC server dispatches by."""
        kinds = {
            "request_deserializer": health_pb2.HealthCheckRequest.FromString,
            "response_serializer": _Response.SerializeToString,
        }
        methods = {
            "Check": grpc.unary_unary_rpc_method_handler(self.check, **kinds),
            "Watch": grpc.unary_stream_rpc_method_handler(self.watch, **kinds),
        }
        return grpc.method_handlers_generic_handler(NAME, methods)

    async def check(self, asked: Any, context: Any) -> Any:
        """Say how a service is; '' is the whole server."""
        if asked.service not in ("", SERVICE):
            await context.abort(
                grpc.StatusCode.NOT_FOUND, f"'' or {SERVICE} was expected as the service"
            )
        return self._now()

    async def watch(self, asked: Any, context: Any) -> AsyncIterator[Any]:
        """Say how a service is, now and whenever that changes."""
        del context
        if asked.service not in ("", SERVICE):
            yield _Response(status=_Response.SERVICE_UNKNOWN)
        last = None
        while True:
            now = self._now() if asked.service in ("", SERVICE) else None
            if now is not None and now != last:
                last = now
                yield now
            await asyncio.sleep(self._every_s)

    def _now(self) -> Any:
        return _Response(status=_Response.SERVING if self._ready() else _Response.NOT_SERVING)
