"""The spans of a request: the server's own, with the queue and the engine below it.

The server's span is the child of the caller's, where its `traceparent` names one, and follows the
caller's word on whether to sample. Queue and compute are told after the answer with the times that
the batcher took, reckoned back from the answer: they lie some tens of microseconds late.

Sources: W3C Trace Context (https://www.w3.org/TR/trace-context/); OpenTelemetry's semantic
conventions for HTTP and RPC servers (https://opentelemetry.io/docs/specs/semconv/). There are none
for models that aren't language models: what is known of a prediction is under `fettle.`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from importlib.metadata import version

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import Attributes

from fettle.monitor.answered import Answered

_NS = 1_000_000_000
_CALLER = TraceContextTextMapPropagator()


class Tracing:
    """Makes spans. To a service it is an observer that is told of each prediction at once.

    Args:
        provider: takes the spans, and sends them on in its own time.

    Attributes:
        dropped: none; a span that finds its queue full is the provider's to drop.
        failed: spans that could not be sent.
    """

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("fettle.serve", version("fettle"))
        self.dropped = self.failed = 0

    def lost(self, spans: int) -> None:
        """Count spans that could not be sent."""
        self.failed += spans

    @contextlib.contextmanager
    def request(self, name: str, headers: Mapping[str, str], told: Attributes) -> Iterator[Span]:
        """Yield the span of a request that lasts as long as the block.

        Args:
            name: of the span.
            headers: by their names in lower case; `traceparent` and `tracestate` are read.
            told: attributes.
        """
        with self._tracer.start_as_current_span(
            name,
            _CALLER.extract(headers),
            SpanKind.SERVER,
            told,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            yield span

    def tell(self, seen: Answered) -> None:
        """Add what is known of a prediction to the request's span, and the spans below it."""
        span = get_current_span()
        if not span.is_recording():
            return
        span.set_attributes(_known(seen))
        if seen.error is None:
            self._parts(seen)

    def close(self, seconds: float = 5.0) -> None:
        """Send what is left, within the seconds that the exporter was given."""
        del seconds
        self._provider.shutdown()

    def _parts(self, seen: Answered) -> None:
        queue_s, compute_s, rows = seen.timing
        computed = seen.time_ns
        begun = computed - round(compute_s * _NS)
        self._part("queue", begun - round(queue_s * _NS), begun)
        self._part("compute", begun, computed, {"fettle.batch.rows": rows})

    def _part(self, name: str, start: int, end: int, told: Attributes = None) -> None:
        self._tracer.start_span(name, attributes=told, start_time=start).end(end)


def failed(span: Span, kind: str) -> None:
    """Say of a request's span that the server failed, by the low-cardinality name of how."""
    span.set_attribute("error.type", kind)
    span.set_status(Status(StatusCode.ERROR))


def _known(seen: Answered) -> dict[str, str]:
    found = {
        "fettle.model.name": seen.model,
        "fettle.model.version": seen.version,
        "fettle.bundle.sha": seen.sha,
        "fettle.request.id": seen.id,
        "fettle.rollout.part": seen.route,
    }
    if seen.error is not None:
        found["fettle.error"] = type(seen.error).__name__
    return found
