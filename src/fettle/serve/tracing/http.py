"""The HTTP application with a span for each request; probes and metrics have none."""

from __future__ import annotations

from collections.abc import Callable

from opentelemetry.trace import Span

from fettle.core.errors import FettleError
from fettle.serve.http import routes
from fettle.serve.http._exchange import Message, Receive, Scope, Send
from fettle.serve.http.access import Access
from fettle.serve.http.app import REFUSED, Answers, App
from fettle.serve.http.security import Gate
from fettle.serve.tracing.spans import Tracing, failed

_QUIET = frozenset({"live", "ready", "model_ready", "metrics"})
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"})
_OTHER = "_OTHER"  # by which the conventions call a method that is none
_LONGEST = 256
_Attributes = dict[str, str | int]


class TracedApp(App):
    """Answers HTTP requests, and traces them.

    Args:
        tracing: makes the spans.
        handlers, gate, access: as for `App`.
    """

    def __init__(
        self,
        tracing: Tracing,
        handlers: Answers,
        gate: Gate,
        access: Callable[[Access], None] | None = None,
    ) -> None:
        super().__init__(handlers, gate, access)
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        handler, route = _routed(scope) if scope["type"] == "http" else ("live", "")
        if handler in _QUIET:
            await super().__call__(scope, receive, send)
            return
        status = 0

        async def told(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        known = _described(scope, route)
        name = f"{known['http.request.method']} {route}".strip()
        with self._tracing.request(name, _headers(scope), known) as span:
            try:
                await super().__call__(scope, receive, told)
            finally:
                _conclude(span, scope.get(REFUSED, status))


def _routed(scope: Scope) -> tuple[str, str]:
    """Return the handler and the template of a request's path; both are '' where there is none."""
    try:
        found = routes.find(scope["method"], scope["path"])
    except FettleError:
        return "", ""
    return found.route.handler, routes.template(scope["path"])[0]


def _described(scope: Scope, route: str) -> _Attributes:
    method = scope["method"] if scope["method"] in _METHODS else _OTHER
    told: _Attributes = {
        "http.request.method": method,
        "url.path": scope["path"][:_LONGEST],
        "url.scheme": scope.get("scheme", "http"),
        "network.protocol.name": "http",
        "network.protocol.version": scope.get("http_version", "1.1"),
    }
    if route:
        told["http.route"] = route
    for who in ("client", "server"):
        if scope.get(who):
            told[f"{who}.address"], port = scope[who]
            if port:
                told[f"{who}.port"] = port
    return told


def _headers(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


def _conclude(span: Span, status: int) -> None:
    """Note the status; a caller's own mistake is no failure of the server."""
    if not status:
        failed(span, "client_hung_up")
        return
    span.set_attribute("http.response.status_code", status)
    if status >= 500:
        failed(span, str(status))
