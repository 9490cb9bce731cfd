"""Exporters record nothing of what they do themselves."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from opentelemetry import context
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY
from opentelemetry.instrumentation.logging.handler import LoggingHandler
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from observatory_embedded import EmbeddedPostgres
from observatory_storage import OpenTelemetryHook, StoragePool, WriterConfig
from observatory_storage.models import LogRecord
from observatory_storage.otel import PostgresLogExporter, PostgresSpanExporter, configure
from tests.otel import sdk_telemetry
from tests.otel.test_exporters import named_spans
from tests.writers.helpers import ONCE, eventually, fork, quick_pool, wait_for


@contextmanager
def logging_statements(pool: StoragePool, *loggers: logging.Logger) -> Iterator[None]:
    """Loggers tell of each statement of a pool, as those of drivers do."""

    def log(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        for logger in loggers:
            logger.error(statement)

    sa.event.listen(pool.engine, "before_cursor_execute", log)
    try:
        yield
    finally:
        sa.event.remove(pool.engine, "before_cursor_execute", log)


@contextmanager
def instrumented(pool: StoragePool, *, suppressed: bool = False) -> Iterator[list[str]]:
    """Records the statements of a pool, as instrumentations of SQLAlchemy and psycopg do.

    Args:
        pool: the pool.
        suppressed: whether to record also what they would not.
    """
    recorded: list[str] = []

    def record(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if suppressed or not context.get_value(_SUPPRESS_INSTRUMENTATION_KEY):
            recorded.append(statement)

    sa.event.listen(pool.engine, "before_cursor_execute", record)
    try:
        yield recorded
    finally:
        sa.event.remove(pool.engine, "before_cursor_execute", record)


def test_statements_of_an_exporter_are_not_recorded(pool: StoragePool) -> None:
    with instrumented(pool) as recorded:
        exporter = PostgresSpanExporter(pool, WriterConfig(flush_interval_secs=0.01))
        exporter.export(sdk_telemetry.spans())
        eventually(lambda: exporter.writer.write_stats().rows > 0)  # by the flush thread
        exporter.export(sdk_telemetry.spans())
        assert exporter.force_flush()
        exporter.export(sdk_telemetry.spans())
        exporter.shutdown()
        assert recorded == []
        assert named_spans(pool)
        assert len(recorded) == 1


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_nor_are_those_of_a_forked_child(pool: StoragePool) -> None:
    exporter = PostgresSpanExporter(pool)
    exporter.export(sdk_telemetry.spans())
    assert exporter.force_flush()

    def in_child() -> None:
        with instrumented(pool) as recorded:
            exporter.export(sdk_telemetry.spans())
            assert exporter.force_flush()
            assert recorded == []

    before = len(named_spans(pool))
    wait_for(fork(in_child))
    assert len(named_spans(pool)) == 2 * before
    exporter.shutdown()


def test_nor_are_those_of_the_replay_of_a_spool(
    embedded_server: EmbeddedPostgres, tmp_path: Path
) -> None:
    with quick_pool(embedded_server.url, ONCE) as pool:
        pool.run_migrations()
        exporter = PostgresSpanExporter(pool, WriterConfig(spool_dir=tmp_path))
        spans = sdk_telemetry.spans()
        embedded_server.stop()
        exporter.export(spans)
        assert exporter.force_flush()  # into the spool
        embedded_server.start()
        with instrumented(pool) as recorded:
            eventually(lambda: exporter.writer.write_stats().replayed == len(spans))
            assert recorded == []
        exporter.shutdown()


def test_the_hook_of_the_package_records_no_flush_of_an_exporter(pool: StoragePool) -> None:
    kept = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    for exporter in (kept, PostgresSpanExporter(pool)):
        kind: SpanExporter = exporter
        provider.add_span_processor(SimpleSpanProcessor(kind))
    pool.add_hook(OpenTelemetryHook(tracer_provider=provider, meter_provider=MeterProvider()))
    with provider.get_tracer("app").start_as_current_span("request"):
        with pool.unit_of_work() as uow:
            uow.traces.list()
        assert exporter.force_flush()
    provider.shutdown()
    assert [span.name for span in kept.get_finished_spans()] == ["list traces", "request"]
    assert named_spans(pool) == ["list traces", "request"]


def test_log_records_of_exporting_are_not_exported(
    pool: StoragePool, fresh_providers: None
) -> None:
    driver, own = logging.getLogger("driver"), logging.getLogger("observatory_storage.some")
    with logging_statements(pool, driver, own), configure(pool, metrics=False) as telemetry:
        logging.getLogger("shop").error("sold out")
        for _ in range(2):
            assert telemetry.force_flush()
        # What another thread does at the same time is stored.
        with pool.engine.connect() as connection:
            names = list(connection.scalars(sa.select(LogRecord.scope_name)))
        assert telemetry.force_flush()
    assert names == ["shop"]
    with pool.engine.connect() as connection:
        assert set(connection.scalars(sa.select(LogRecord.scope_name))) == {"driver", "shop"}


@pytest.mark.parametrize("kind", [BatchLogRecordProcessor, SimpleLogRecordProcessor])
def test_nor_are_they_with_the_processors_of_the_sdk(pool: StoragePool, kind: Any) -> None:
    exporter = PostgresLogExporter(pool)
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(kind(exporter))
    handler = LoggingHandler(logger_provider=provider)
    shop, driver = logging.getLogger("shop"), logging.getLogger("driver")
    for logger in (shop, driver):
        logger.addHandler(handler)
    with logging_statements(pool, driver):
        shop.error("sold out")
        for _ in range(3):
            assert provider.force_flush()
            assert exporter.force_flush()
    driver.error("of the application")
    for logger in (shop, driver):
        logger.removeHandler(handler)
    provider.shutdown()
    with pool.engine.connect() as connection:
        bodies = set(connection.scalars(sa.select(LogRecord.body)))
    assert bodies == {"sold out", "of the application"}
