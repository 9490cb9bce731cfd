"""The buffered writers when the server is away or refuses, and when a flush is interrupted."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import psycopg
import pytest

from observatory_embedded import EmbeddedPostgres
from observatory_storage.errors import BatchError, ConnectionLost, StorageError, Timeout
from observatory_storage.models import Metric, TraceEvent
from observatory_storage.pool import StoragePool
from observatory_storage.writers import (
    CopyWriter,
    FlushResult,
    LogWriter,
    MetricWriter,
    TraceWriter,
    WriterConfig,
)
from tests.writers.helpers import (
    DEADLINE_SECS,
    ONCE,
    START,
    a_log,
    a_metric,
    a_span,
    a_trace,
    an_event,
    contents,
    count,
    eventually,
    fetch,
    locked,
    quick_pool,
)
from tests.writers.trace_model import check_traces

PATIENT = WriterConfig(flush_interval_secs=None)


def test_rows_stay_while_the_server_is_away_and_are_written_once(
    embedded_server: EmbeddedPostgres,
) -> None:
    with quick_pool(embedded_server.url, ONCE) as pool:
        pool.run_migrations()
        spans = TraceWriter(pool, WriterConfig(batch_size=4, flush_interval_secs=None))
        logs = LogWriter(pool, PATIENT)
        spans.write_spans(a_span(1, n) for n in range(1, 4))
        assert spans.flush() == FlushResult(committed=3)
        embedded_server.stop()
        for n in range(4, 20):
            spans.write_span(a_span(n % 3 + 1, n))
        logs.write_log(a_log())
        for writer, buffered in ((spans, 16), (logs, 1)):
            for _ in range(2):
                with pytest.raises(ConnectionLost):
                    writer.flush()
                assert writer.buffer_stats().buffered == buffered
            assert writer.write_stats().failed_flushes >= 2
        with pytest.raises(ConnectionLost):
            logs.close()
        assert logs.buffer_stats().buffered == 1
        embedded_server.start()
        spans.write_span(a_span(1, 20))
        # A try that began before the server was back may still fail meanwhile.
        eventually(lambda: flushes(spans) and flushes(logs))
        assert spans.close() == logs.close() == FlushResult()
        assert (spans.write_stats().rows, logs.write_stats().rows) == (20, 1)
        assert (count(pool, "trace_spans"), count(pool, "logs")) == (20, 1)
        assert check_traces(pool) == 3


def flushes(writer: TraceWriter | LogWriter) -> bool:
    try:
        writer.flush()
    except ConnectionLost:
        return False
    return True


def test_background_flushes_go_on_until_the_server_is_back(
    embedded_server: EmbeddedPostgres,
) -> None:
    with quick_pool(embedded_server.url, ONCE) as pool:
        pool.run_migrations()
        with MetricWriter(pool, WriterConfig(batch_size=1)) as writer:
            embedded_server.stop()
            for n in range(20):
                writer.write_metric(a_metric(description=f"{n}"))
            eventually(lambda: writer.write_stats().failed_flushes >= 3)
            embedded_server.start()
            eventually(lambda: writer.buffer_stats().buffered == 0)
        # None overtook another meanwhile: the last version is the last written.
        assert [row["description"] for row in fetch(pool, Metric)] == ["19"]


def test_connections_that_end_in_between_cost_a_retry(pool: StoragePool, database_url: str) -> None:
    """Terminated while the rows are on their way: the batch is written again, once."""
    pool.partitions.ensure("trace_spans", [START])
    with TraceWriter(pool, PATIENT) as writer:
        writer.write_spans(a_span(1, n) for n in range(1, 30))
        with locked(database_url, "trace_spans"):
            flushed = threading.Thread(target=writer.flush)
            flushed.start()
            eventually(lambda: terminate_waiting(database_url) == 1)
        flushed.join(DEADLINE_SECS)
        assert writer.write_stats().rows == 29
        assert writer.write_stats().retries == 1
    assert count(pool, "trace_spans") == 29
    check_traces(pool)


def waiting(url: str) -> list[int]:
    """The sessions that wait for a lock."""
    with psycopg.connect(url, autocommit=True) as connection:
        rows = connection.execute(
            "SELECT pid FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        ).fetchall()
    return [pid for (pid,) in rows]


def terminate_waiting(url: str) -> int:
    """End the sessions that wait for a lock; how many they were."""
    with psycopg.connect(url, autocommit=True) as connection:
        rows = connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        ).fetchall()
    return len(rows)


def test_a_batch_that_cannot_be_written_does_not_hold_up_the_others(
    pool: StoragePool, database_url: str
) -> None:
    """Unless the server is away, when the others could not be written either."""
    pool.partitions.ensure("trace_events", [START])
    with quick_pool(database_url, ONCE, statement_timeout_ms=250) as impatient:
        config = WriterConfig(batch_size=1, flush_interval_secs=None)
        with TraceWriter(impatient, config) as writer:
            with locked(database_url, "traces"):
                writer.write_trace(a_trace())
                writer.write_event(an_event(1, 1))
                eventually(lambda: count(pool, "trace_events") == 1)
                with pytest.raises(Timeout):
                    writer.flush()
                assert writer.buffer_stats().buffered == 1
            assert writer.flush() == FlushResult(committed=2)


def test_rows_refused_before_a_failure_are_reported_by_the_next_flush(
    pool: StoragePool, database_url: str
) -> None:
    with pool.engine.begin() as connection:
        connection.exec_driver_sql(
            "ALTER TABLE metrics ADD CONSTRAINT refused CHECK (name <> 'bad')"
        )
    pool.partitions.ensure("metric_data_points", [START])
    with quick_pool(database_url, ONCE, statement_timeout_ms=250) as impatient:
        config = WriterConfig(batch_size=1, flush_interval_secs=None)
        with MetricWriter(impatient, config) as writer:
            with locked(database_url, "metric_data_points"):
                writer.write_metrics([a_metric("bad"), a_metric("good")])
                writer.write_data_point({"metric_id": METRIC, "timestamp": START, "value": 1})
                with pytest.raises(Timeout):
                    writer.flush()
            with pytest.raises(BatchError, match="refused"):
                writer.flush()
            assert writer.flush() == FlushResult(committed=2)


METRIC = "00000000-0000-4000-8000-00000000abcd"


def test_rows_stay_buffered_if_the_table_is_missing(pool: StoragePool) -> None:
    """The table is not there: no row's fault, so all stay."""
    with pool.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE logs RENAME TO elsewhere")
    with LogWriter(pool, PATIENT) as writer:
        writer.write_logs([a_log(0), a_log(1)])
        with pytest.raises(StorageError, match="logs"):
            writer.flush()
        assert writer.buffer_stats().buffered == 2
        with pool.engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE elsewhere RENAME TO logs")
        assert writer.flush() == FlushResult(committed=2)


def test_the_caller_flushes_if_no_thread_can_be_started(
    pool: StoragePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As at the end of the interpreter, where Python 3.12 starts none."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with LogWriter(pool, WriterConfig(batch_size=2, max_buffered=3)) as writer:
        writer.write_logs(a_log(n) for n in range(10))
        assert writer.buffer_stats().buffered <= 3
        assert writer.flush().committed == 10
    assert count(pool, "logs") == 10


def test_an_interrupted_caller_loses_no_rows(pool: StoragePool) -> None:
    """An exception in the block of a writer flushes all the same, and goes on."""

    def work() -> None:
        with LogWriter(pool, PATIENT) as writer:
            writer.write_log(a_log())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert count(pool, "logs") == 1


class _Interrupt(BaseException):
    """What a signal brings, as Ctrl-C does."""


def test_a_flush_that_is_interrupted_loses_no_rows(
    pool: StoragePool, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the caller flushes itself, since no thread can be started."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    def interrupt(*_: object) -> None:
        raise _Interrupt

    def interrupt_once_it_waits() -> None:
        eventually(lambda: bool(waiting(database_url)))
        os.kill(os.getpid(), signal.SIGUSR1)

    pool.partitions.ensure("logs", [START])
    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with LogWriter(pool, PATIENT) as writer, locked(database_url, "logs"):
            interrupter = threading.Thread(target=interrupt_once_it_waits)
            interrupter.start()
            with monkeypatch.context() as patch:
                patch.setattr(threading.Thread, "start", refuse)
                writer.write_logs([a_log(0), a_log(1)])
                with pytest.raises(_Interrupt):
                    writer.flush()
            interrupter.join()
            assert writer.buffer_stats().buffered == 2
            assert writer.write_stats().failed_flushes == 1
        assert writer.write_stats().rows == 2
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert count(pool, "logs") == 2


def test_nothing_of_a_failed_batch_is_seen(pool: StoragePool, database_url: str) -> None:
    """One transaction covers traces, spans and events: all of them or none."""
    before = contents(pool)
    for table in ("trace_spans", "trace_events"):
        pool.partitions.ensure(table, [START])
    with quick_pool(database_url, ONCE, statement_timeout_ms=250) as impatient:
        spans: list[dict[str, Any]] = [
            a_span(n, n, events=[{"name": "e", "timestamp": START}]) for n in range(1, 30)
        ]
        with locked(database_url, "traces"), pytest.raises(Timeout):
            CopyWriter(impatient).write_spans(spans)
        assert contents(pool) == before
        assert fetch(pool, TraceEvent) == []
        CopyWriter(impatient).write_spans(spans)
    check_traces(pool)
