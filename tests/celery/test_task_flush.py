"""Rows are stored before a task is acknowledged, whatever else listens to Celery's signals."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import pytest
from celery import Celery, signals
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from observatory_storage import StoragePool, TraceSpan, TraceWriter, WriterConfig
from observatory_storage.celery import flush_after_task
from observatory_storage.otel import PostgresSpanExporter
from tests.writers.helpers import eventually, fetch


@pytest.fixture
def app() -> Celery:
    return Celery("tasks", broker="memory://", set_as_current=False)


@pytest.fixture
def writer(pool: StoragePool) -> Iterator[TraceWriter]:
    with TraceWriter(pool, WriterConfig(flush_interval_secs=600)) as writer:
        yield writer


def _write(writer: TraceWriter, number: int) -> None:
    now = datetime.now(UTC)
    span = {"trace_id": f"{number:032x}", "span_id": "1" * 16, "name": "task"}
    writer.write_span({**span, "start_time": now, "end_time": now})


def test_what_receivers_write_that_were_connected_later_is_flushed(
    app: Celery, pool: StoragePool, writer: TraceWriter
) -> None:
    ended: list[str] = []

    def instrumentation(task_id: str, **_: object) -> None:
        ended.append(task_id)
        _write(writer, len(ended))

    @app.task  # type: ignore[untyped-decorator]  # Celery comes without types
    def work() -> None:
        pass

    flush_after_task(app)
    flush_after_task(Celery("others", broker="memory://", set_as_current=False))
    signals.task_postrun.connect(instrumentation)
    try:
        for number in (1, 2, 3):
            work.apply()
            assert len(fetch(pool, TraceSpan)) == number
    finally:
        signals.task_postrun.disconnect(instrumentation)


class Hanging(SpanExporter):
    """An exporter of another vendor, whose server does not answer."""

    def __init__(self) -> None:
        self.answered = threading.Event()
        self.exports = self.returned = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.exports += 1
        self.answered.wait(20)
        self.returned += 1
        return SpanExportResult.SUCCESS


def test_a_task_does_not_wait_longer_than_allowed_for_other_exporters(
    app: Celery, pool: StoragePool, writer: TraceWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = Hanging()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(PostgresSpanExporter(pool)))
    provider.add_span_processor(BatchSpanProcessor(hanging))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    flush_after_task(app, timeout_secs=2)

    @app.task  # type: ignore[untyped-decorator]  # as above
    def work() -> None:
        with trace.get_tracer("tests").start_as_current_span("exported"):
            pass
        _write(writer, 1)

    work.apply()
    # It has not been answered, and would have exported for 20 seconds.
    assert (hanging.exports, hanging.returned) == (1, 0)
    expected = ["exported", "task"]
    eventually(lambda: sorted(row["name"] for row in fetch(pool, TraceSpan)) == expected)
    work.apply()  # waits for the same export, and begins no other
    assert hanging.exports == 1
    hanging.answered.set()
    provider.shutdown()


def test_asking_twice_flushes_once(app: Celery) -> None:
    flush_after_task(app)
    before = len(signals.task_postrun.receivers)
    flush_after_task(app)
    assert len(signals.task_postrun.receivers) == before
