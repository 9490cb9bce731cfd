"""A populated schema of the first release is migrated while a writer and a reader of it run."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
import sqlalchemy as sa

from observatory_storage import (
    CopyWriter,
    PostgresConfig,
    StorageConfig,
    StoragePool,
    TraceFilters,
    migrate,
)
from observatory_storage.layout import PARTITIONED

FIRST = "0001"
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
# Whoever waits longer than this for a lock fails.
PATIENCE = "-c lock_timeout=1s"


@pytest.fixture
def old(empty_database_url: str) -> Iterator[StoragePool]:
    """A pool on a schema of the first release, with a thousand traces in ten daily partitions."""
    with StoragePool(StorageConfig(postgres=PostgresConfig.from_url(empty_database_url))) as pool:
        migrate.upgrade(pool.engine, revision=FIRST)
        days = [NOON + timedelta(days=day) for day in range(10)]
        for table in PARTITIONED.keys() - {"payload_frames", "log_frames"}:
            pool.partitions.ensure(table, days)
        with psycopg.connect(empty_database_url) as connection:
            for day in days:
                for _ in range(100):
                    write_as_the_first_release(connection, day)
        yield pool


def write_as_the_first_release(connection: psycopg.Connection, start: datetime) -> None:
    """Write a trace with a span and a log record, with the columns that 0001 has."""
    trace = uuid.uuid4()
    times = {"start": start, "trace": trace, "text": trace.hex}
    connection.execute(
        "INSERT INTO traces (id, trace_id, service_name, start_time, span_count, lead_span_id,"
        " lead_start_time, lead_start_ns, lead_has_parent, last_span_start)"
        " VALUES (%(trace)s, %(text)s, 'chat', %(start)s, 1, 'aaaaaaaaaaaaaaaa', %(start)s, 0,"
        " false, %(start)s) ON CONFLICT (id) DO UPDATE SET span_count = traces.span_count + 1",
        times,
    )
    with connection.cursor().copy(
        "COPY trace_spans (trace_id, span_id, name, service_name, start_time, attributes, model,"
        " total_tokens) FROM STDIN"
    ) as copy:
        row = ("aaaaaaaaaaaaaaaa", "chat", "chat", start, '{"gen_ai.request.model": "m"}', "m", 7)
        copy.write_row((trace, *row))
    connection.execute(
        "INSERT INTO logs (id, timestamp, service_name, body, trace_id)"
        " VALUES (gen_random_uuid(), %(start)s, 'chat', 'said', %(trace)s)",
        times,
    )
    connection.commit()


def read_as_the_first_release(connection: psycopg.Connection) -> int:
    found = connection.execute(
        "SELECT count(*) FROM traces JOIN trace_spans ON trace_spans.trace_id = traces.id"
        " LEFT JOIN logs ON logs.trace_id = traces.id"
    ).fetchone()
    connection.commit()
    assert found is not None
    return int(found[0])


@contextmanager
def running(url: str) -> Iterator[list[int]]:
    """A writer and a reader of the first release, until the block ends. Gives what was read."""
    stop = threading.Event()
    errors: list[Exception] = []
    counts, written = [0], [1000]

    def write() -> None:
        try:
            with psycopg.connect(url, options=PATIENCE) as connection:
                while not stop.is_set():
                    write_as_the_first_release(connection, NOON + timedelta(days=written[0] % 10))
                    written[0] += 1
        except Exception as error:  # noqa: BLE001 - shown by the assertion below
            errors.append(error)

    def read() -> None:
        try:
            with psycopg.connect(url, options=PATIENCE) as connection:
                while not stop.is_set():
                    counts.append(read_as_the_first_release(connection))
        except Exception as error:  # noqa: BLE001 - shown by the assertion below
            errors.append(error)

    threads = [threading.Thread(target=write), threading.Thread(target=read)]
    for thread in threads:
        thread.start()
    try:
        while len(counts) < 4 and not errors:
            stop.wait(0.01)
        yield counts
        before, last = len(counts), counts[-1]
        while (len(counts) < before + 3 or counts[-1] == last) and not errors:
            stop.wait(0.01)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert errors == []
    assert counts == sorted(counts)
    with psycopg.connect(url) as connection:
        assert read_as_the_first_release(connection) == written[0]


def test_neither_a_writer_nor_a_reader_notices(old: StoragePool, empty_database_url: str) -> None:
    with running(empty_database_url) as counts:
        old.run_migrations()
        assert migrate.current(old.engine) == migrate.head()
        migrated_at = counts[-1]
    # Writers of the first release go on, on the newest schema, as in a rolling upgrade.
    assert counts[-1] > migrated_at


def test_rows_of_the_first_release_are_read_and_written_on(old: StoragePool) -> None:
    old.run_migrations()
    with old.unit_of_work() as uow:
        page = uow.traces.list(TraceFilters(model="m", limit=10))
        trace = page[0]
        (span,) = uow.traces.get_spans(trace.id)
        costs = uow.metrics.get_cost_summary(group_by="model")
    assert (span.total_tokens, span.operation) == (7, None)
    assert [(each.group["model"], each.total_tokens) for each in costs] == [("m", 7000)]
    assert old.refresh_facts().spans == 1000
    CopyWriter(old).write_spans([dict(span) | {"status": "error"}])
    with old.unit_of_work() as uow:
        again = uow.traces.get(trace.id)
    assert (again.span_count, again.error_count, again.status) == (1, 1, "error")


def test_the_newest_schema_goes_back_to_the_first_with_its_rows(old: StoragePool) -> None:
    old.run_migrations()
    migrate.downgrade(old.engine, revision=FIRST)
    with old.engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM trace_spans")) == 1000
