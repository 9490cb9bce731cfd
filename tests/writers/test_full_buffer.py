"""What a full buffer does: its bound holds, and every row is taken, refused or counted."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from observatory_storage.errors import StorageError, Timeout, ValidationError
from observatory_storage.models import LogRecord, TraceEvent
from observatory_storage.pool import StoragePool
from observatory_storage.writers import BufferStats, LogWriter, TraceWriter, WriterConfig
from tests.writers.helpers import (
    DEADLINE_SECS,
    START,
    a_log,
    a_span,
    count,
    event,
    eventually,
    fetch,
    locked,
    span_id,
    trace_id,
)


def test_a_full_buffer_makes_writers_wait(pool: StoragePool, database_url: str) -> None:
    config = WriterConfig(batch_size=2, max_buffered=4, flush_interval_secs=None)
    pool.partitions.ensure("logs", [START])
    with LogWriter(pool, config) as writer, ThreadPoolExecutor(1) as executor:
        with locked(database_url, "logs"):
            writer.write_logs(a_log(n) for n in range(4))
            waiting = executor.submit(writer.write_log, a_log(4))
            eventually(lambda: writer.buffer_stats().in_flight == 2)
            assert not waiting.done()
            assert writer.buffer_stats().buffered == 4
        waiting.result(DEADLINE_SECS)
        assert writer.flush().committed == 5


def test_a_full_buffer_raises(pool: StoragePool, database_url: str) -> None:
    config = WriterConfig(batch_size=2, max_buffered=3, flush_interval_secs=None, on_full="raise")
    pool.partitions.ensure("logs", [START])
    with LogWriter(pool, config) as writer:
        with locked(database_url, "logs"):
            writer.write_logs(a_log(n) for n in range(3))
            with pytest.raises(StorageError, match="max_buffered=3"):
                writer.write_log(a_log(3))
        assert writer.flush().committed == 3


def test_a_full_buffer_drops_and_counts(pool: StoragePool, database_url: str) -> None:
    config = WriterConfig(batch_size=2, max_buffered=3, flush_interval_secs=None, on_full="drop")
    pool.partitions.ensure("logs", [START])
    with LogWriter(pool, config) as writer:
        with locked(database_url, "logs"):
            writer.write_logs(a_log(n) for n in range(10))
            assert writer.write_stats().dropped == 7
        assert writer.flush().committed == 3
        writer.write_log(a_log(10))
    assert count(pool, "logs") == 4


def test_a_writer_waiting_for_room_is_let_go_by_close(pool: StoragePool, database_url: str) -> None:
    pool.partitions.ensure("logs", [START])
    writer = LogWriter(pool, WriterConfig(batch_size=1, max_buffered=1, flush_interval_secs=None))
    with ThreadPoolExecutor(1) as executor:
        with locked(database_url, "logs"):
            writer.write_log(a_log(0))
            waiting = executor.submit(writer.write_log, a_log(1))
            eventually(lambda: writer.buffer_stats().in_flight == 1)
            with pytest.raises(Timeout):
                writer.close(timeout=0.01)
            with pytest.raises(StorageError, match="closed"):
                waiting.result(DEADLINE_SECS)
        assert writer.flush().committed == 1


def test_a_span_with_more_events_than_a_batch_or_buffer_holds_is_written(
    pool: StoragePool,
) -> None:
    config = WriterConfig(batch_size=3, max_buffered=3, flush_interval_secs=None)
    with TraceWriter(pool, config) as writer:
        many = [{"name": f"e{at}", "timestamp": START} for at in range(20)]
        writer.write_span(a_span(1, 1))
        writer.write_span(a_span(1, 2, events=many))
        writer.write_span(a_span(1, 3))
        assert writer.flush().committed == 3
        # The heavy one went by itself: a transaction takes no more than the batch size else.
        assert writer.write_stats().batches == 3
    assert count(pool, "trace_events") == 20


def test_the_bound_holds_while_many_write_lists(pool: StoragePool, database_url: str) -> None:
    config = WriterConfig(
        batch_size=30, max_buffered=100, max_concurrency=2, flush_interval_secs=None
    )
    pool.partitions.ensure("logs", [START])
    with LogWriter(pool, config) as writer, ThreadPoolExecutor(4) as executor:

        def within_bound() -> bool:
            assert writer.buffer_stats().buffered <= 100
            return True

        with locked(database_url, "logs"):
            rows = [a_log(n) for n in range(500)]
            writing = [executor.submit(writer.write_logs, rows) for _ in range(4)]
            full = BufferStats(buffered=100, in_flight=60, capacity=100)
            eventually(lambda: within_bound() and writer.buffer_stats() == full)
            assert not any(future.done() for future in writing)
        eventually(lambda: within_bound() and all(future.done() for future in writing))
        assert writer.flush().committed == 2000
    assert count(pool, "logs") == 2000


@pytest.mark.parametrize("on_full", ["drop", "raise"])
def test_of_many_threads_each_row_is_taken_or_counted(
    pool: StoragePool, database_url: str, on_full: Any
) -> None:
    config = WriterConfig(batch_size=10, max_buffered=25, flush_interval_secs=None, on_full=on_full)
    pool.partitions.ensure("logs", [START])
    with LogWriter(pool, config) as writer, ThreadPoolExecutor(4) as executor:

        def write(thread: int) -> int:
            refused = 0
            for n in range(100):
                try:
                    writer.write_log(a_log(n, body=f"{thread}/{n}"))
                except StorageError:
                    refused += 1
            return refused

        with locked(database_url, "logs"):
            refused = sum(executor.map(write, range(4)))
        dropped = writer.write_stats().dropped
        assert (refused, dropped) == ((0, 375) if on_full == "drop" else (375, 0))
        assert writer.flush().committed == 25
        # There is room again.
        assert write(4) + writer.write_stats().dropped - dropped < 100
        writer.flush()
        assert writer.write_stats().rows == count(pool, "logs") > 25


@pytest.mark.parametrize("on_full", ["drop", "raise"])
def test_a_buffer_without_room_for_a_heavy_row_is_flushed(pool: StoragePool, on_full: Any) -> None:
    """Nobody else would: no batch is full, and there is no interval."""
    config = WriterConfig(batch_size=3, max_buffered=3, flush_interval_secs=None, on_full=on_full)
    heavy = a_span(1, 3, events=[event("e")])
    with TraceWriter(pool, config) as writer:
        writer.write_spans([a_span(1, 1), a_span(1, 2)])
        if on_full == "drop":
            writer.write_span(heavy)
        else:
            with pytest.raises(StorageError, match="the buffer is full"):
                writer.write_span(heavy)
        eventually(lambda: writer.buffer_stats().buffered == 0)
        writer.write_span(heavy)
        assert writer.flush().committed == 3


@pytest.mark.parametrize("on_full", ["drop", "raise"])
def test_the_rows_of_a_list_that_fit_into_the_buffer_are_taken(
    pool: StoragePool, database_url: str, on_full: Any
) -> None:
    config = WriterConfig(batch_size=2, max_buffered=5, flush_interval_secs=None, on_full=on_full)
    pool.partitions.ensure("logs", [START])
    rows = [a_log(n, body=f"{n}") for n in range(700)]
    with LogWriter(pool, config) as writer:
        with locked(database_url, "logs"):
            if on_full == "drop":
                writer.write_logs(rows)
                assert writer.write_stats().dropped == 695
            else:
                with pytest.raises(StorageError, match="max_buffered=5"):
                    writer.write_logs(rows)
        assert writer.flush().committed == 5
    assert sorted(row["body"] for row in fetch(pool, LogRecord)) == ["0", "1", "2", "3", "4"]


def test_events_that_wait_for_room_do_not_take_the_same_place(
    pool: StoragePool, database_url: str
) -> None:
    pool.partitions.ensure("trace_spans", [START])
    config = WriterConfig(batch_size=2, max_buffered=2, flush_interval_secs=None)
    given = {"trace_id": trace_id(1), "span_id": span_id(1), **event("e")}
    with TraceWriter(pool, config) as writer, ThreadPoolExecutor(3) as executor:
        with locked(database_url, "trace_spans"):
            writer.write_span(a_span(1, 1, events=[event("first")]))
            waiting = [executor.submit(writer.write_event, given) for _ in range(3)]
            eventually(lambda: writer.buffer_stats().in_flight == 2)
            assert not any(future.done() for future in waiting)
        # The span may have left the buffer before all of them have found their place.
        errors = [future.exception(DEADLINE_SECS) for future in waiting]
        assert all(error is None or isinstance(error, ValidationError) for error in errors)
        writer.flush()
    positions = [row["position"] for row in fetch(pool, TraceEvent)]
    assert positions == list(range(1 + errors.count(None)))
