"""The buffered writers: nothing is lost, nothing is doubled, and flush says what became of it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from observatory_storage.errors import StorageError, Timeout, ValidationError
from observatory_storage.models import (
    LogRecord,
    Metric,
    MetricDataPoint,
    Trace,
    TraceEvent,
    TraceSpan,
)
from observatory_storage.pool import StoragePool
from observatory_storage.writers import (
    FlushResult,
    LogWriter,
    MetricWriter,
    TraceWriter,
    WriterConfig,
)
from tests.writers.helpers import (
    DEADLINE_SECS,
    START,
    a_log,
    a_metric,
    a_point,
    a_span,
    a_trace,
    an_event,
    count,
    eventually,
    fetch,
    locked,
)

# What is buffered stays so until a test wants it flushed.
PATIENT = WriterConfig(flush_interval_secs=None)


def bodies(pool: StoragePool) -> list[Any]:
    return sorted(row["body"] for row in fetch(pool, LogRecord))


def test_nothing_is_written_before_a_flush_and_all_after_it(pool: StoragePool) -> None:
    with LogWriter(pool, PATIENT) as writer:
        writer.write_logs(a_log(n) for n in range(10))
        assert writer.buffer_stats().buffered == 10
        assert count(pool, "logs") == 0
        assert writer.flush() == FlushResult(committed=10)
        assert count(pool, "logs") == 10
        assert writer.flush() == FlushResult()
        assert writer.buffer_stats().buffered == 0


def test_flush_results_add_up_to_what_was_written(pool: StoragePool) -> None:
    config = WriterConfig(batch_size=7, flush_interval_secs=0.005, max_concurrency=2)
    committed = 0
    with LogWriter(pool, config) as writer:
        for n in range(100):
            writer.write_log(a_log(n))
            if n % 30 == 0:
                committed += writer.flush().committed
        committed += writer.flush().committed
        stats = writer.write_stats()
    assert committed == stats.rows == count(pool, "logs") == 100
    assert sum(stats.rows_by_method.values()) == 100
    assert stats.batches >= 15
    assert (stats.failed_flushes, stats.rejected, stats.dropped, stats.retries) == (0, 0, 0, 0)


def test_all_six_tables(pool: StoragePool) -> None:
    with TraceWriter(pool) as traces, MetricWriter(pool) as metrics, LogWriter(pool) as logs:
        trace = Trace(trace_id="a trace", start_time=START, service_name="shop")
        assert traces.write_trace(trace) == trace.id
        traces.write_span(TraceSpan(**a_span(), events=[]))
        traces.write_event(TraceEvent(**an_event()))
        metric = Metric(**a_metric())
        assert metrics.write_metric(metric) == metric.id
        metrics.write_metrics([a_metric("another")])
        metrics.write_data_point(MetricDataPoint(**a_point(metric.id)))
        metrics.write_data_points([a_point(metric.id, 1), a_point(metric.id, 2)])
        log = LogRecord(**a_log())
        assert logs.write_log(log) == log.id
        logs.write_logs([a_log(1)])
    expected = {
        "traces": 2,
        "trace_spans": 1,
        "trace_events": 1,
        "metrics": 2,
        "metric_data_points": 3,
        "logs": 2,
    }
    assert {table: count(pool, table) for table in expected} == expected


def test_a_full_batch_is_flushed_in_the_background(pool: StoragePool) -> None:
    with LogWriter(pool, WriterConfig(batch_size=5, flush_interval_secs=None)) as writer:
        writer.write_logs(a_log(n) for n in range(5))
        eventually(lambda: writer.write_stats().rows == 5)
        writer.write_logs(a_log(n) for n in range(5, 9))
        assert writer.buffer_stats().buffered == 4


def test_an_idle_writer_flushes_at_a_thousand_rows(pool: StoragePool) -> None:
    config = WriterConfig(batch_size=5000, flush_interval_secs=None)
    with LogWriter(pool, config) as writer:
        writer.write_logs([a_log(n) for n in range(999)])
        assert writer.buffer_stats().buffered == 999
        with pool.engine.connect() as connection, connection.begin():
            connection.execute(text("LOCK TABLE logs IN SHARE MODE"))
            writer.write_log(a_log(999))
            eventually(lambda: writer.buffer_stats().in_flight == 1000)
            writer.write_logs([a_log(n) for n in range(1000, 3000)])
            assert writer.buffer_stats().in_flight == 1000  # the others wait for a batch to be full
        eventually(lambda: writer.write_stats().rows == 3000)
        assert writer.write_stats().batches == 2


def test_events_count_as_rows_and_alone_fill_a_batch(pool: StoragePool) -> None:
    with TraceWriter(pool, WriterConfig(batch_size=5, flush_interval_secs=None)) as writer:
        writer.write_span(a_span(events=[{"name": "e", "timestamp": START}] * 1))
        assert writer.buffer_stats().buffered == 2
        for position in range(1, 4):
            writer.write_event(an_event(1, 1, position))
        eventually(lambda: count(pool, "trace_events") == 4)
        for position in range(4, 9):
            writer.write_event(an_event(1, 1, position))
        eventually(lambda: count(pool, "trace_events") == 9)


def test_the_interval_flushes_each_signal(pool: StoragePool) -> None:
    config = WriterConfig(flush_interval_secs=0.01)
    with (
        TraceWriter(pool, config) as traces,
        MetricWriter(pool, config) as metrics,
        LogWriter(pool, config) as logs,
    ):
        for round_ in range(1, 3):
            traces.write_span(a_span(1, round_))
            metrics.write_metric(a_metric(f"m{round_}"))
            logs.write_log(a_log())
            for table in ("trace_spans", "metrics", "logs"):
                eventually(partial(has_rows, pool, table, round_))


def has_rows(pool: StoragePool, table: str, number: int) -> bool:
    return count(pool, table) == number


def test_the_interval_holds_while_others_wait_in_flush(
    pool: StoragePool, database_url: str
) -> None:
    """A row's coming wakes a worker, whoever else is waiting."""
    config = WriterConfig(flush_interval_secs=0.01, max_concurrency=2, batch_size=2)
    with LogWriter(pool, config) as writer, ThreadPoolExecutor(3) as executor:
        pool.partitions.ensure("logs", [START])
        with locked(database_url, "logs"):
            writer.write_logs([a_log(0), a_log(1)])
            flushes = [executor.submit(writer.flush) for _ in range(3)]
            eventually(lambda: writer.buffer_stats().in_flight == 2)
            writer.write_log(a_log(2))
            eventually(lambda: writer.buffer_stats().in_flight == 3)
        assert sum(flush.result().committed for flush in flushes) <= 3
    assert count(pool, "logs") == 3


def test_max_concurrency_flushes_at_once(pool: StoragePool, database_url: str) -> None:
    config = WriterConfig(batch_size=1, max_concurrency=3, flush_interval_secs=None)
    pool.partitions.ensure("logs", [START])
    with LogWriter(pool, config) as writer:
        with locked(database_url, "logs"):
            writer.write_logs(a_log(n) for n in range(5))
            eventually(lambda: writer.buffer_stats().in_flight == 3)
            eventually(lambda: pool.stats().active == 3)
        assert writer.flush().committed == 5


def test_parallel_threads_lose_no_rows(pool: StoragePool) -> None:
    config = WriterConfig(batch_size=50, max_concurrency=2, max_buffered=200)
    with LogWriter(pool, config) as writer, ThreadPoolExecutor(6) as executor:

        def write(thread: int) -> int:
            committed = 0
            for n in range(200):
                writer.write_log(a_log(n, body=f"{thread}/{n}"))
                if n % 70 == 0:
                    committed += writer.flush().committed
            return committed

        committed = sum(executor.map(write, range(6)))
        assert committed + writer.flush().committed == 1200
    assert bodies(pool) == sorted(f"{thread}/{n}" for thread in range(6) for n in range(200))


def test_flush_ends_when_its_time_does(pool: StoragePool, database_url: str) -> None:
    pool.partitions.ensure("logs", [START])
    with LogWriter(pool, PATIENT) as writer:
        with locked(database_url, "logs"):
            writer.write_logs([a_log(0), a_log(1)])
            with pytest.raises(Timeout, match="2 rows"):
                writer.flush(timeout=0.01)
            assert writer.buffer_stats().buffered == 2
        assert writer.flush(timeout=DEADLINE_SECS).committed == 2


def test_close_reports_the_remaining_rows(pool: StoragePool, database_url: str) -> None:
    pool.partitions.ensure("logs", [START])
    writer = LogWriter(pool, PATIENT)
    with locked(database_url, "logs"):
        writer.write_logs([a_log(0), a_log(1), a_log(2)])
        with pytest.raises(Timeout, match="3 rows"):
            writer.close(timeout=0.01)
        with pytest.raises(StorageError, match="closed"):
            writer.write_log(a_log(3))
        assert writer.buffer_stats().buffered == 3
    assert writer.flush() == FlushResult(committed=3)
    assert writer.close() == FlushResult()


@pytest.mark.parametrize("writer_class", [TraceWriter, MetricWriter, LogWriter])
def test_a_closed_writer_takes_no_rows(pool: StoragePool, writer_class: Any) -> None:
    writer = writer_class(pool)
    writer.close()
    writer.close()
    write, row = {
        TraceWriter: ("write_trace", a_trace()),
        MetricWriter: ("write_metric", a_metric()),
        LogWriter: ("write_log", a_log()),
    }[writer_class]
    with pytest.raises(StorageError, match=f"{writer_class.__name__} is closed"):
        getattr(writer, write)(row)
    assert writer.flush() == FlushResult()


def test_no_thread_remains_after_close(pool: StoragePool) -> None:
    before = threading.active_count()
    with LogWriter(pool, WriterConfig(max_concurrency=3)) as writer:
        writer.write_log(a_log())
        assert threading.active_count() > before
    eventually(lambda: threading.active_count() == before)


def test_batches_are_committed_in_the_order_of_writing(pool: StoragePool) -> None:
    """The last version written remains, also across batches."""
    with MetricWriter(pool, WriterConfig(batch_size=1)) as writer:
        for n in range(30):
            writer.write_metric(a_metric(description=f"{n}"))
    assert [row["description"] for row in fetch(pool, Metric)] == ["29"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("batch_size", 0),
        ("batch_size", True),
        ("batch_size", 1.5),
        ("max_concurrency", 0),
        ("max_buffered", 999),
        ("flush_interval_secs", 0),
        ("flush_interval_secs", float("nan")),
        ("on_full", "explode"),
        ("method", "magic"),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        WriterConfig(**{field: value})
    assert caught.value.field == field


def test_a_writer_shows_itself(pool: StoragePool) -> None:
    with LogWriter(pool, PATIENT) as writer:
        writer.write_log(a_log(id=UUID(int=5)))
        assert repr(writer) == "<LogWriter buffered=1 closed=False>"
