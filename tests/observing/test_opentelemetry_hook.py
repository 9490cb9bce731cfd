"""The OpenTelemetry hook, with the SDK and its exporters in memory."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry import context
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from observatory_storage.errors import ValidationError
from observatory_storage.hooks import OpenTelemetryHook
from observatory_storage.pool import StoragePool
from observatory_storage.writers import CopyWriter, LogWriter, WriterConfig
from tests.writers.helpers import a_log, count


class Telemetry:
    """Providers of the SDK, a hook on them, and what was recorded."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        meters = MeterProvider([self.reader], shutdown_on_exit=False)
        self.hook = OpenTelemetryHook(meters, self.tracers)
        self.tracer = self.tracers.get_tracer("the application")

    def points(self, name: str) -> list[Any]:
        """The data points of a metric."""
        data = self.reader.get_metrics_data()
        return [
            point
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]


@pytest.fixture
def telemetry(pool: StoragePool) -> Telemetry:
    telemetry = Telemetry()
    pool.add_hook(telemetry.hook)
    return telemetry


def test_durations_have_the_attributes_of_the_conventions(
    pool: StoragePool, telemetry: Telemetry
) -> None:
    CopyWriter(pool).write_logs([a_log(1), a_log(2)])
    with pool.unit_of_work() as uow:
        uow.logs.list()
        with pytest.raises(ValidationError):
            uow.logs.list(limit=-1)
    points = telemetry.points("db.client.operation.duration")
    system = {"db.system.name": "postgresql", "db.collection.name": "logs"}
    query = {**system, "db.operation.name": "query", "db.query.summary": "list logs"}
    assert [dict(point.attributes) for point in points] == [
        {**system, "db.operation.name": "write", "db.query.summary": "write copy logs"},
        query,
        {**query, "error.type": "ValidationError"},
    ]
    assert all(point.sum > 0 for point in points)


def test_rows_and_waits_are_recorded(pool: StoragePool, telemetry: Telemetry) -> None:
    CopyWriter(pool).write_logs([a_log(1), a_log(2)])
    with pool.unit_of_work() as uow:
        uow.logs.list()
    (written,) = telemetry.points("observatory_storage.written_rows")
    (returned,) = telemetry.points("db.client.response.returned_rows")
    (waited,) = telemetry.points("db.client.connection.wait_time")
    assert (written.value, dict(written.attributes)) == (2, {"db.collection.name": "logs"})
    assert (returned.sum, returned.count) == (2, 1)
    assert waited.count >= 2
    assert set(waited.attributes) == {"db.client.connection.pool.name"}


def test_connections_and_buffers_are_observed(pool: StoragePool, telemetry: Telemetry) -> None:
    with LogWriter(pool, WriterConfig(flush_interval_secs=None)) as writer, pool.engine.connect():
        writer.write_logs([a_log(1), a_log(2), a_log(3)])
        states = {
            point.attributes["db.client.connection.state"]: point.value
            for point in telemetry.points("db.client.connection.count")
        }
        (buffered,) = telemetry.points("observatory_storage.buffered_rows")
    assert states == {"used": 1, "idle": pool.stats().size - 1}
    assert (buffered.value, dict(buffered.attributes)) == (
        3,
        {"observatory_storage.signal": "logs"},
    )


def test_an_operation_within_a_trace_is_a_span_of_it(
    pool: StoragePool, telemetry: Telemetry
) -> None:
    with telemetry.tracer.start_as_current_span("request"), pool.unit_of_work() as uow:
        uow.logs.list()
        with pytest.raises(ValidationError):
            uow.logs.list(limit=-1)
    listed, refused, request = telemetry.exporter.get_finished_spans()
    assert listed.name == refused.name == "list logs"
    assert listed.kind is SpanKind.CLIENT
    assert request.context is not None
    assert listed.parent is not None
    assert listed.parent.span_id == request.context.span_id
    assert listed.attributes is not None
    assert listed.attributes["db.response.returned_rows"] == 0
    assert listed.start_time is not None
    assert listed.end_time is not None
    assert request.start_time is not None
    assert request.start_time <= listed.start_time < listed.end_time
    assert listed.status.status_code is StatusCode.UNSET
    assert refused.status.status_code is StatusCode.ERROR


def test_an_operation_outside_of_a_trace_is_no_span(
    pool: StoragePool, telemetry: Telemetry
) -> None:
    with LogWriter(pool) as writer:
        writer.write_log(a_log())
    assert telemetry.exporter.get_finished_spans() == ()
    assert telemetry.points("db.client.operation.duration")


def test_nothing_is_recorded_where_instrumentation_is_suppressed(
    pool: StoragePool, telemetry: Telemetry
) -> None:
    with telemetry.tracer.start_as_current_span("export"):
        suppressed = context.set_value(context._SUPPRESS_INSTRUMENTATION_KEY, value=True)
        token = context.attach(suppressed)
        CopyWriter(pool).write_logs([a_log()])
        context.detach(token)
    assert [span.name for span in telemetry.exporter.get_finished_spans()] == ["export"]
    assert telemetry.points("db.client.operation.duration") == []


class StoringExporter(SpanExporter):
    """Stores each exported span in the store that is observed."""

    def __init__(self, pool: StoragePool) -> None:
        self.exported: list[str] = []
        self._writer = CopyWriter(pool)

    def export(self, spans: Any) -> SpanExportResult:
        self.exported += [span.name for span in spans]
        self._writer.write_logs([a_log(body=span.name) for span in spans])
        return SpanExportResult.SUCCESS


def test_an_exporter_that_stores_into_the_store_exports_nothing_of_itself(
    pool: StoragePool, telemetry: Telemetry
) -> None:
    exporter = StoringExporter(pool)
    telemetry.tracers.add_span_processor(SimpleSpanProcessor(exporter))
    with telemetry.tracer.start_as_current_span("request"), pool.unit_of_work() as uow:
        uow.logs.list()
    assert exporter.exported == ["list logs", "request"]
    assert count(pool, "logs") == 2


def test_spans_can_be_switched_off(pool: StoragePool) -> None:
    telemetry = Telemetry()
    pool.add_hook(OpenTelemetryHook(MeterProvider(), telemetry.tracers, spans=False))
    with telemetry.tracer.start_as_current_span("request"), pool.unit_of_work() as uow:
        uow.logs.list()
    assert [span.name for span in telemetry.exporter.get_finished_spans()] == ["request"]
