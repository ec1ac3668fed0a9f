"""Traces: spans from the request or the bar that began something to the order that ended it.

    configure_tracing("scorer:binance", settings())
    with tracer(__name__).start_as_current_span("score_bar") as span:
        span.set_attribute("symbol", "BTC/USDT")
        signal.trace_id = current_trace_id()

The trace goes through the database as a plain trace id; `continued` picks it up on the other side. Sampling follows
OpenTelemetry's own variables (OTEL_TRACES_SAMPLER, OTEL_TRACES_SAMPLER_ARG); the default keeps everything.
"""

import fcntl
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock

import orjson
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, Tracer

from trading_platform.settings import Settings
from trading_platform.settings import settings as process_settings

MAX_BYTES = 64 * 1024 * 1024
_configuring = Lock()


def configure_tracing(service: str, settings: Settings | None = None) -> TracerProvider:
    """Send this process's spans to the OTLP collector of the settings, else to `<home>/logs/traces.jsonl`.

    The first call decides; later calls return the provider it made. Spans are exported in the background and flushed
    at the process's end.
    """
    with _configuring:
        current = trace.get_tracer_provider()
        if isinstance(current, TracerProvider):
            return current
        provider = make_provider(service, settings or process_settings())
        trace.set_tracer_provider(provider)
        return provider


def make_provider(service: str, settings: Settings) -> TracerProvider:
    """A provider with the exporter that the settings ask for."""
    provider = TracerProvider(
        resource=Resource.create({"service.name": service, "deployment.environment.name": settings.environment})
    )
    provider.add_span_processor(BatchSpanProcessor(_exporter(settings)))
    return provider


def tracer(name: str) -> Tracer:
    """The tracer of a module: `tracer(__name__)`. Without `configure_tracing` its spans go nowhere and cost little."""
    return trace.get_tracer(name)


def current_trace_id() -> str | None:
    """The current trace as 32 hex digits, for columns and messages; None outside any span."""
    context = trace.get_current_span().get_span_context()
    return trace.format_trace_id(context.trace_id) if context.is_valid else None


def continued(trace_id: str | None) -> Context | None:
    """A parent context for spans that go on with a trace whose id came through the database.

    Pass it as `context=` to `start_as_current_span`. The parent span's id is not stored with a row, so the trace id's
    lower half stands in for it. None or a malformed id starts a new trace.
    """
    if trace_id is None or len(trace_id) != 32:
        return None
    try:
        number = int(trace_id, 16)
    except ValueError:
        return None
    parent = SpanContext(
        trace_id=number, span_id=number & 0xFFFFFFFFFFFFFFFF, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED)
    )
    return trace.set_span_in_context(NonRecordingSpan(parent)) if parent.is_valid else None


class JsonLinesExporter(SpanExporter):
    """Spans as JSON lines in one file that all processes of a machine share.

    A batch is appended under a file lock; beyond `max_bytes` the file becomes `<name>.1`, replacing the one before.
    """

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES) -> None:
        self._path = path
        self._max_bytes = max_bytes
        path.parent.mkdir(parents=True, exist_ok=True)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        lines = b"".join(orjson.dumps(span_record(span), default=str) + b"\n" for span in spans)
        try:
            with self._path.with_suffix(".lock").open("wb") as guard:
                fcntl.flock(guard, fcntl.LOCK_EX)
                if self._path.exists() and self._path.stat().st_size + len(lines) > self._max_bytes:
                    self._path.replace(self._path.with_name(self._path.name + ".1"))
                with self._path.open("ab") as handle:
                    handle.write(lines)
        except OSError:
            return SpanExportResult.FAILURE
        return SpanExportResult.SUCCESS


def span_record(span: ReadableSpan) -> dict[str, object]:
    """A finished span as a flat record: times in UTC, duration in milliseconds, ids in hex."""
    start, end = span.start_time or 0, span.end_time or 0
    context = span.context
    return {
        "ts": _utc(start),
        "service": span.resource.attributes.get("service.name"),
        "environment": span.resource.attributes.get("deployment.environment.name"),
        "name": span.name,
        "trace_id": trace.format_trace_id(context.trace_id) if context else None,
        "span_id": trace.format_span_id(context.span_id) if context else None,
        "parent_id": trace.format_span_id(span.parent.span_id) if span.parent else None,
        "duration_ms": round((end - start) / 1e6, 3),
        "status": span.status.status_code.name,
        "attributes": dict(span.attributes or {}),
        "events": [
            {"ts": _utc(event.timestamp), "name": event.name, "attributes": dict(event.attributes or {})}
            for event in span.events
        ],
    }


def _exporter(settings: Settings) -> SpanExporter:
    if settings.otlp_endpoint is None:
        return JsonLinesExporter(settings.logs_dir / "traces.jsonl")
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter(endpoint=f"{settings.otlp_endpoint.rstrip('/')}/v1/traces")


def _utc(nanoseconds: int) -> str:
    return datetime.fromtimestamp(nanoseconds / 1e9, tz=UTC).isoformat(timespec="microseconds")
