"""Telemetry of many kinds, made by the SDK as an application makes it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Any

from opentelemetry import context, trace
from opentelemetry._logs import SeverityNumber
from opentelemetry.metrics import Observation
from opentelemetry.sdk._logs import LoggerProvider, ReadableLogRecord
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import AlwaysOnExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricsData
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
)


class Colour(StrEnum):
    RED = "red"


ATTRIBUTES: dict[str, Any] = {
    "text": "plain",
    "empty": "",
    "unicode": "Grüße \U0001f600",
    "zero byte": "a\0b",
    "int": 7,
    "large int": 2**62,
    "negative": -1,
    "float": 0.25,
    "whole float": 3.0,
    "huge float": 1e300,
    "negative zero": -0.0,
    "nan": math.nan,
    "infinity": -math.inf,
    "true": True,
    "none": None,
    "bytes": b"\x00\xff",
    "texts": ["a", "b"],
    "no items": [],
    "ints": (1, 2),
    "floats": [0.5, math.inf],
    "bools": [True, False],
    "mixed": ["a", 1, 2.0, None, b"x", ["nested", {"deep": 1}]],
    "map": {"a": 1, "b": {"c": [b"y", math.nan]}, "none": None},
    "colour": Colour.RED,
    "gen_ai.operation.name": "chat",
    "gen_ai.request.model": "gpt-4o-mini",
    "gen_ai.usage.input_tokens": 12,
    "gen_ai.usage.output_tokens": 34,
}
PLAIN_ATTRIBUTES = {
    key: value for key, value in ATTRIBUTES.items() if key.startswith("gen_ai.") or key == "texts"
}
RESOURCE = Resource(
    {"service.name": "shop", "service.version": "1.2", "process.pid": 4, "tags": ["a", "b"]},
    schema_url="https://opentelemetry.io/schemas/1.30.0",
)
REMOTE = SpanContext(
    trace_id=0x0AF7651916CD43DD8448EB211C80319C,
    span_id=0xB7AD6B7169203331,
    is_remote=True,
    trace_flags=TraceFlags(TraceFlags.SAMPLED),
    trace_state=TraceState([("vendor", "a:1"), ("other", "b")]),
)


def spans(resource: Resource = RESOURCE) -> Sequence[ReadableSpan]:
    """Spans of every kind and status, with events and links, of several scopes."""
    kept = InMemorySpanExporter()
    limits = SpanLimits(max_events=3, max_links=3, max_span_attributes=40)
    provider = TracerProvider(resource=resource, span_limits=limits, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    bare = provider.get_tracer("bare")
    full = provider.get_tracer("full", "2.1", "https://example.com/schema", {"scope": ["x", 1]})
    with full.start_as_current_span("root", kind=SpanKind.SERVER, attributes={"http.route": "/"}):
        for kind in SpanKind:
            with bare.start_as_current_span(f"of kind {kind.name}", kind=kind):
                pass
        with bare.start_as_current_span("with all attributes", attributes=ATTRIBUTES) as span:
            span.add_event("plain")
            span.add_event(
                "with attributes",
                {"n": 1, "b": b"z", "s": ["a"]},
                timestamp=1_700_000_000_000_000_001,
            )
        bare.start_span("without events", attributes=ATTRIBUTES).end()
        bare.start_span("plain", attributes=PLAIN_ATTRIBUTES, kind=SpanKind.CLIENT).end()
        with bare.start_as_current_span(
            "dropped", attributes={str(n): n for n in range(50)}
        ) as span:
            for number in range(5):
                span.add_event(f"event {number}", {"n": number})
                span.add_link(REMOTE, {"n": number})
        bare.start_span("ok").end()
        span = bare.start_span("status ok")
        span.set_status(StatusCode.OK)
        span.end()
        span = bare.start_span("status error")
        span.set_status(Status(StatusCode.ERROR, "it broke"))
        span.end()
        try:
            with bare.start_as_current_span("raised"):
                raise ValueError("no such thing")
        except ValueError:
            pass
        bare.start_span("").end()
        bare.start_span("long " * 1000).end()
        bare.start_span("instant", start_time=1_700_000_000_000_000_123).end(
            1_700_000_000_000_000_123
        )
    remote = trace.set_span_in_context(NonRecordingSpan(REMOTE))
    bare.start_span("of a remote parent", remote).end()
    full.start_span("linked", links=[Link(REMOTE, {"why": "batch"}), Link(REMOTE)]).end()
    provider.shutdown()
    return kept.get_finished_spans()


@contextmanager
def _within_a_span() -> Iterator[SpanContext]:
    token = context.attach(trace.set_span_in_context(NonRecordingSpan(REMOTE)))
    try:
        yield REMOTE
    finally:
        context.detach(token)


def metrics(resource: Resource = RESOURCE) -> MetricsData:
    """Metrics of every kind of instrument, with exemplars."""
    reader = InMemoryMetricReader()
    provider = MeterProvider(
        [reader],
        resource,
        AlwaysOnExemplarFilter(),
        shutdown_on_exit=False,
        views=[
            View(
                instrument_name="exponential*", aggregation=ExponentialBucketHistogramAggregation()
            )
        ],
    )
    meter = provider.get_meter("meter", "0.1", "https://example.com/metrics", {"scope": True})
    with _within_a_span():
        counter = meter.create_counter("requests", "1", "Requests.")
        counter.add(2, {"route": "/", "list": ("a", "b")})
        counter.add(3, {"route": "/x"})
        meter.create_counter("seconds").add(0.5, {"nan": math.nan, "bytes": b"\x01"})
        meter.create_up_down_counter("open").add(-4)
        meter.create_gauge("temperature", "Cel").set(21.5, {"room": 1})
        meter.create_gauge("whole").set(5)
        histogram = meter.create_histogram("duration", "s")
        for value in (0.001, 3, 70.5, 20_000.0):
            histogram.record(value, {"route": "/"})
        exponential = meter.create_histogram("exponential")
        for value in (0.0, 1.5, 3, 1000.0):
            exponential.record(value, {"a": "b"})
        exponential_of_ints = meter.create_histogram("exponential.whole")
        exponential_of_ints.record(7)
    meter.create_observable_gauge("observed", [lambda _: [_observation(1.25)]])
    meter.create_observable_counter("observed.total", [lambda _: [_observation(10)]])
    other = provider.get_meter("other")
    other.create_counter("requests").add(1)
    data = reader.get_metrics_data()
    assert data is not None
    provider.shutdown()
    return data


def _observation(value: float) -> Any:
    return Observation(value, {"kind": "seen"})


def logs(resource: Resource = RESOURCE) -> Sequence[ReadableLogRecord]:
    """Log records with every kind of body, with and without a span."""
    kept: Any = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]  # comes without types
    provider = LoggerProvider(resource, shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(kept))
    logger = provider.get_logger("app.module", "1", "https://example.com/logs", {"scope": 1.5})
    at = 1_700_000_000_123_456_789
    bodies: list[Any] = [
        "said",
        "",
        None,
        5,
        2.5,
        math.nan,
        True,
        b"\x01",
        ["a", 1],
        {"a": {"b": [b"c", None]}},
    ]
    for body in bodies:
        logger.emit(body=body, timestamp=at, observed_timestamp=at + 1)
    logger.emit(
        timestamp=at,
        observed_timestamp=at,
        severity_number=SeverityNumber.ERROR2,
        severity_text="ERROR",
        body="failed",
        attributes=ATTRIBUTES,
        event_name="app.failed",
    )
    with _within_a_span():
        logger.emit(body="in a span", timestamp=at)
    logger.emit(body="without time", observed_timestamp=at)
    for _ in range(3):
        logger.emit(body="thrice", timestamp=at, observed_timestamp=at)
    provider.get_logger("other").emit(body="other", timestamp=at)
    provider.shutdown()
    finished: Sequence[ReadableLogRecord] = kept.get_finished_logs()
    return finished
