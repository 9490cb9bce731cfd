"""Instrumentations of database clients record what the application does, not what stores it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from opentelemetry.instrumentation.redis import RedisInstrumentor
from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from observatory_storage import (
    StorageHandler,
    StoragePool,
    StructlogProcessor,
    TraceWriter,
    observe,
    observe_llm,
)
from observatory_storage.otel import PostgresSpanExporter
from tests.streams.live import live_config
from tests.writers.helpers import a_span, count


@pytest.fixture
def live(database_url: str, redis_url: str) -> Iterator[StoragePool]:
    """A pool that also publishes to Redis."""
    with StoragePool(live_config(database_url, redis_url)) as pool:
        yield pool


@pytest.fixture
def recorded(live: StoragePool) -> Iterator[InMemorySpanExporter]:
    """The spans of the instrumentations, which are stored in the pool too."""
    kept = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    provider.add_span_processor(BatchSpanProcessor(PostgresSpanExporter(live)))
    instrumentors: list[Any] = [SQLAlchemyInstrumentor(), RedisInstrumentor()]
    for instrumentor in instrumentors:
        instrumentor.instrument(tracer_provider=provider, engine=live.engine, skip_dep_check=True)
    yield kept
    for instrumentor in instrumentors:
        instrumentor.uninstrument()
    provider.shutdown()


def test_what_the_application_asks_is_recorded(
    live: StoragePool, recorded: InMemorySpanExporter
) -> None:
    with live.engine.connect() as connection:
        connection.execute(sa.text("SELECT 1"))
    assert live.redis is not None
    live.redis.ping()
    names = {span.name.partition(" ")[0] for span in recorded.get_finished_spans()}
    assert names >= {"SELECT", "PING"}


def test_what_buffered_writers_do_is_not(
    live: StoragePool, pool: StoragePool, recorded: InMemorySpanExporter
) -> None:
    handler = StorageHandler(live)
    events = StructlogProcessor(live)
    with TraceWriter(live) as writer:
        writer.write_span(a_span())
        with observe(live, name="answer"), observe_llm(live, model="gpt-5"):
            handler.handle(logging.makeLogRecord({"msg": "sold out", "levelname": "WARNING"}))
            events(None, "info", {"event": "sold out"})
        handler.close()
        events.close()
    live.close()  # flushes the writer of `observe`, and publishes
    assert [span.name for span in recorded.get_finished_spans()] == []
    assert (count(pool, "trace_spans"), count(pool, "logs")) == (3, 2)
