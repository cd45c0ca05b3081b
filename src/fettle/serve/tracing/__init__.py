"""Traces: what each request spent its time on, told to an OpenTelemetry collector.

`--trace-endpoint URL` asks for them, and the extra `fettle[tracing]` brings what they need. Without
them nothing here is imported and no request does anything for their sake.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from fettle.core.errors import InputError, MissingError
from fettle.core.shelf import INSTALL
from fettle.serve.http.access import Access
from fettle.serve.http.app import Answers, App
from fettle.serve.http.security import Gate
from fettle.serve.settings import Settings

if TYPE_CHECKING:
    from fettle.serve.tracing.spans import Tracing

_PATH = "/v1/traces"  # OTLP's own


def tracing_of(settings: Settings) -> Tracing | None:
    """Return what traces requests, None where that isn't asked for.

    Raises:
        InputError: the endpoint is no URL.
        MissingError: OpenTelemetry isn't here.
    """
    if not settings.trace_endpoint:
        return None
    endpoint = endpoint_of(settings.trace_endpoint)
    try:
        from fettle.serve.tracing.export import exported
    except ModuleNotFoundError as error:
        what = f"`--trace-endpoint` needs the package `{error.name}`"
        raise MissingError(what, INSTALL["opentelemetry"]) from error
    return exported(endpoint, settings.trace_sample)


def endpoint_of(url: str) -> str:
    """Return where traces are sent; of a collector without a path it is the path that OTLP has.

    Raises:
        InputError: it is no URL of HTTP.
    """
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        known = False
    if not known:
        raise InputError(
            f"`--trace-endpoint` expects a URL such as http://localhost:4318, got '{url[:200]}'"
        )
    return url if parts.path.strip("/") else parts._replace(path=_PATH).geturl()


def app_of(
    handlers: Answers,
    gate: Gate,
    access: Callable[[Access], None] | None = None,
    tracing: Tracing | None = None,
) -> App:
    """Return the HTTP application; with `tracing` one that traces."""
    if tracing is None:
        return App(handlers, gate, access)
    from fettle.serve.tracing.http import TracedApp

    return TracedApp(tracing, handlers, gate, access)
