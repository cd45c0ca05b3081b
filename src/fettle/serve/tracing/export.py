"""Where spans go: to a collector over OTLP's HTTP, in batches, from a thread of their own.

A collector that is slow or away costs spans, which are counted, and never a request. What the
server is called and the headers that a collector asks for come from OpenTelemetry's own environment
variables (`OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_EXPORTER_OTLP_HEADERS`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import version

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

from fettle.serve.tracing.spans import Tracing

_SEND_S = 5.0  # a server that stops waits no longer for a collector that is away
_QUEUE = 8192
_EVERY_MS = 1000


class Counted(SpanExporter):
    """Tells how many spans another exporter could not send.

    Args:
        exporter: sends them.
        lost: is told.
    """

    def __init__(self, exporter: SpanExporter, lost: Callable[[int], None]) -> None:
        self._exporter, self._lost = exporter, lost

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send them; never raises."""
        try:
            result = self._exporter.export(spans)
        except Exception:  # whatever a transport raises, its thread must go on
            result = SpanExportResult.FAILURE
        if result is not SpanExportResult.SUCCESS:
            self._lost(len(spans))
        return result

    def shutdown(self) -> None:
        """Close the connection."""
        self._exporter.shutdown()


def exported(endpoint: str, sample: float) -> Tracing:
    """Return what sends to a collector's `endpoint` the traces that callers want sampled.

    Of those whose callers say nothing it sends the share `sample`.
    """
    provider = provider_of(sample)
    tracing = Tracing(provider)
    exporter = Counted(OTLPSpanExporter(endpoint, timeout=_SEND_S), tracing.lost)
    provider.add_span_processor(
        BatchSpanProcessor(exporter, max_queue_size=_QUEUE, schedule_delay_millis=_EVERY_MS)
    )
    return tracing


def provider_of(sample: float) -> TracerProvider:
    """Return what makes spans, without anyone to send them."""
    own = {"service.name": "fettle", "service.version": version("fettle")}
    resource = Resource.create({**own, **OTELResourceDetector().detect().attributes})
    sampler = ParentBased(TraceIdRatioBased(sample))
    return TracerProvider(sampler=sampler, resource=resource, shutdown_on_exit=False)
