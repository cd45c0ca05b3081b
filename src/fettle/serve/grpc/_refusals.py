"""How a refusal is told over gRPC: the protocol's statuses for those of HTTP."""

from __future__ import annotations

import logging
from typing import Any

import grpc  # type: ignore[import-untyped]

from fettle.core.errors import FettleError
from fettle.serve.errors import Refused

_LOG = logging.getLogger("fettle.serve")
_BROKEN = 500
_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    409: grpc.StatusCode.FAILED_PRECONDITION,
    413: grpc.StatusCode.INVALID_ARGUMENT,
    415: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}


def status_of(error: Exception) -> int:
    """Return the status of HTTP that REST answers with for an error."""
    return error.status if isinstance(error, Refused) else _BROKEN


def told(error: Exception) -> tuple[Any, str, tuple[tuple[str, str], ...]]:
    """Return status, message and metadata that tell a caller of an error.

    What isn't meant for callers is logged, and told as nothing but a failure.
    """
    if isinstance(error, Refused):
        code = _CODES.get(error.status, grpc.StatusCode.INTERNAL)
        return code, str(error), tuple((k.lower(), v) for k, v in error.headers.items())
    if not isinstance(error, FettleError):
        _LOG.error("a request over gRPC failed", exc_info=error)
        return grpc.StatusCode.INTERNAL, "the server failed on this request", ()
    return grpc.StatusCode.INTERNAL, str(error), ()
