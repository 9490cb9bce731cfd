"""The buffered writers when the server is away, refuses, or when the process forks or ends."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import Any

import psycopg
import pytest

from observatory_storage.embedded import EmbeddedPostgres
from observatory_storage.errors import BatchError, ConnectionLost, StorageError, Timeout
from observatory_storage.models import LogRecord, Metric, TraceEvent
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
    fork,
    locked,
    quick_pool,
    wait_for,
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


def test_rows_refused_before_a_failure_are_told_by_the_flush_after_it(
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


def test_a_failure_of_the_rows_own_making_is_no_reason_to_lose_them(pool: StoragePool) -> None:
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


def test_where_no_thread_can_be_started_the_caller_flushes(
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


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_begins_with_an_empty_buffer(pool: StoragePool, database_url: str) -> None:
    closed = LogWriter(pool)
    closed.close()
    with LogWriter(pool, WriterConfig(batch_size=3)) as writer:
        pool.partitions.ensure("logs", [START])
        with locked(database_url, "logs"):
            # One batch on its way and one row behind it, when the process forks.
            writer.write_logs(a_log(n, body="parent") for n in range(4))
            eventually(lambda: writer.buffer_stats().in_flight == 3)
            child = fork(lambda: in_child(writer, closed))
        wait_for(child)
        assert writer.flush().committed == 4
        wait_for(fork(lambda: in_child(writer, closed)))
    assert sorted(row["body"] for row in fetch(pool, LogRecord)) == ["child"] * 4 + ["parent"] * 4


def in_child(writer: LogWriter, closed: LogWriter) -> None:
    assert writer.buffer_stats().buffered == writer.write_stats().rows == 0
    assert writer.flush() == FlushResult()
    writer.write_log(a_log(body="child"))
    assert writer.flush() == FlushResult(committed=1)
    writer.write_log(a_log(body="child"))
    assert writer.close() == FlushResult(committed=1)
    with pytest.raises(StorageError, match="closed"):
        closed.write_log(a_log())


AT_EXIT = """
import sys
from datetime import UTC, datetime
from observatory_storage.config import PoolConfig, PostgresConfig, StorageConfig
from observatory_storage.pool import StoragePool
from observatory_storage.writers import LogWriter, TraceWriter, WriterConfig

config = StorageConfig(
    postgres=PostgresConfig.from_url(sys.argv[1]), pool=PoolConfig(min_connections=0)
)
pool = StoragePool(config)
patient = WriterConfig(flush_interval_secs=None, batch_size=4)
logs, traces = LogWriter(pool, patient), TraceWriter(pool, patient)
now = datetime.now(UTC)
for n in range(10):
    logs.write_log({"timestamp": now, "body": f"{n}"})
    traces.write_trace({"trace_id": f"trace {n}", "start_time": now})
"""


@pytest.mark.parametrize("end", ["", "raise SystemExit(0)", "del logs, traces, pool"])
def test_the_end_of_the_interpreter_flushes(pool: StoragePool, database_url: str, end: str) -> None:
    done = run(AT_EXIT + end, database_url)
    assert (done.returncode, done.stderr) == (0, "")
    assert (count(pool, "logs"), count(pool, "traces")) == (10, 10)


def test_what_cannot_be_flushed_at_the_end_is_said(embedded_server: EmbeddedPostgres) -> None:
    url = embedded_server.url
    with quick_pool(url) as pool:
        pool.run_migrations()
    embedded_server.stop()
    quick = AT_EXIT.replace(
        "config = StorageConfig(", "config = StorageConfig(retry=RETRY,"
    ).replace("pool = StoragePool(config)", "pool = StoragePool(config, connect=False)")
    retry = (
        "from observatory_storage.config import RetryConfig\nRETRY = RetryConfig(max_attempts=1)\n"
    )
    done = run(retry + quick, url)
    assert done.returncode == 0
    assert done.stderr.count("10 rows were still buffered at exit and are lost") == 2


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_an_interrupted_caller_loses_no_rows(pool: StoragePool) -> None:
    """An exception in the block of a writer flushes all the same, and goes on."""

    def work() -> None:
        with LogWriter(pool, PATIENT) as writer:
            writer.write_log(a_log())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert count(pool, "logs") == 1


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
