"""While the database is away, requests go on, and their spans are stored later."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Tracer
from werkzeug.test import Client

from observatory_embedded import EmbeddedPostgres
from observatory_storage import StoragePool, WriterConfig
from observatory_storage.otel import PostgresSpanExporter
from tests.otel import sdk_telemetry
from tests.otel.test_exporters import named_spans
from tests.writers.helpers import ONCE, eventually, quick_pool

QUICK = WriterConfig(flush_interval_secs=0.01)


def application(tracer: Tracer) -> Callable[..., list[bytes]]:
    """A WSGI application whose requests are spans."""

    def respond(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        with tracer.start_as_current_span(environ["PATH_INFO"]):
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [b"hello"]

    return respond


@contextmanager
def traced(exporter: PostgresSpanExporter) -> Iterator[Client]:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(
        BatchSpanProcessor(exporter, schedule_delay_millis=10, max_export_batch_size=1)
    )
    yield Client(application(provider.get_tracer("app")))
    provider.shutdown()


@pytest.mark.parametrize("is_spooled", [False, True])
def test_requests_go_on_and_the_spans_come_later(
    embedded_server: EmbeddedPostgres, tmp_path: Path, is_spooled: bool
) -> None:
    config = WriterConfig(flush_interval_secs=0.01, spool_dir=tmp_path) if is_spooled else QUICK
    with quick_pool(embedded_server.url, ONCE) as pool:
        pool.run_migrations()
        exporter = PostgresSpanExporter(pool, config)
        with traced(exporter) as client:
            assert client.get("/before").status_code == 200
            eventually(lambda: exporter.writer.write_stats().rows == 1)
            embedded_server.stop()
            for number in range(20):
                assert client.get(f"/away/{number:02}").status_code == 200
            stats = exporter.writer.write_stats
            eventually(lambda: (stats().spooled if is_spooled else stats().failed_flushes) > 0)
            assert client.get("/still").status_code == 200
            embedded_server.start()
            assert client.get("/after").status_code == 200
        expected = ["/after", *(f"/away/{n:02}" for n in range(20)), "/before", "/still"]
        eventually(lambda: exporter.force_flush() and named_spans(pool) == expected)


def test_an_application_starts_while_the_database_is_away(
    embedded_server: EmbeddedPostgres,
) -> None:
    with quick_pool(embedded_server.url, ONCE) as first:
        first.run_migrations()
    embedded_server.stop()
    config = first.config
    with StoragePool(config, connect=False) as pool:
        exporter = PostgresSpanExporter(pool, QUICK)
        with traced(exporter) as client:
            assert client.get("/early").status_code == 200
            eventually(lambda: exporter.writer.write_stats().failed_flushes > 0)
            embedded_server.start()
        assert named_spans(pool) == ["/early"]


def test_force_flush_says_that_the_database_is_away(embedded_server: EmbeddedPostgres) -> None:
    with quick_pool(embedded_server.url, ONCE) as pool:
        pool.run_migrations()
        exporter = PostgresSpanExporter(pool)
        exporter.export(sdk_telemetry.spans())
        embedded_server.stop()
        assert exporter.force_flush() is False
        embedded_server.start()
        eventually(exporter.force_flush)
        assert named_spans(pool)
        exporter.shutdown()


def test_spans_that_cannot_be_written_at_shutdown_are_counted_in_the_log(
    embedded_server: EmbeddedPostgres, caplog: pytest.LogCaptureFixture
) -> None:
    with quick_pool(embedded_server.url, ONCE) as pool:
        pool.run_migrations()
        exporter = PostgresSpanExporter(pool)
        embedded_server.stop()
        with traced(exporter) as client:
            client.get("/lost")
            client.get("/lost")
        assert (
            "2 rows of spans could not be written at shutdown, and are lost when the process ends"
            in caplog.text
        )
        embedded_server.start()  # before the process ends
        eventually(exporter.force_flush)
        assert named_spans(pool) == ["/lost", "/lost"]
