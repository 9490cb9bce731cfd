"""The buffered writers: nothing is lost, nothing is doubled, and flush says what became of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from observatory_storage.errors import BatchError, StorageError, Timeout, ValidationError
from observatory_storage.llm import LlmSpan
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
    trace_id,
)
from tests.writers.trace_model import check_traces

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


def test_write_spans_takes_the_good_rows(pool: StoragePool) -> None:
    with TraceWriter(pool, PATIENT) as writer:
        with pytest.raises(BatchError) as caught:
            writer.write_spans(
                [
                    a_span(1, 1),
                    a_span(1, 2, status="wrong"),
                    a_span(1, 3, no_such_column=1),
                    a_span(1, 4),
                    a_span(1, 5, end_time=START - timedelta(days=1)),
                ]
            )
        assert [one.index for one in caught.value.rejected] == [1, 2, 4]
        errors = [one.error for one in caught.value.rejected]
        assert all(isinstance(error, ValidationError) for error in errors)
        assert [getattr(e, "field", None) for e in errors] == [
            "status",
            "no_such_column",
            "end_time",
        ]
        assert caught.value.rejected[0].row["status"] == "wrong"
        assert writer.flush().committed == 2


def test_a_full_batch_is_flushed_in_the_background(pool: StoragePool) -> None:
    with LogWriter(pool, WriterConfig(batch_size=5, flush_interval_secs=None)) as writer:
        writer.write_logs(a_log(n) for n in range(5))
        eventually(lambda: writer.write_stats().rows == 5)
        writer.write_logs(a_log(n) for n in range(5, 9))
        assert writer.buffer_stats().buffered == 4


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
                eventually(lambda t=table, n=round_: count(pool, t) == n)  # type: ignore[misc]  # mypy knows no lambda with defaults


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


def test_redaction_changes_rows_or_keeps_them_back(pool: StoragePool) -> None:
    seen: list[dict[str, Any]] = []

    def redact(row: dict[str, Any]) -> dict[str, Any] | None:
        seen.append(row)
        assert writer.buffer_stats().buffered == len(seen) - 1 - (len(seen) > 2)
        if row["body"] == "secret":
            return None
        return {**row, "body": f"redacted {row['body']}"}

    writer = LogWriter(pool, WriterConfig(redact=redact, flush_interval_secs=None))
    with writer:
        record = LogRecord(**a_log(body="orm"))
        assert writer.write_log(record) == record.id
        assert writer.write_log(a_log(1, body="secret")) is None
        writer.write_log(a_log(2, body="mapping"))
        assert record.body == "orm"
        assert writer.flush().committed == 2
        assert writer.write_stats().redacted == 1
    assert bodies(pool) == ["redacted mapping", "redacted orm"]
    assert all(isinstance(row, dict) for row in seen)


def test_a_redaction_that_fails_lets_nothing_through(pool: StoragePool) -> None:
    def redact(row: dict[str, Any]) -> dict[str, Any]:
        raise KeyError("user")

    with LogWriter(pool, WriterConfig(redact=redact)) as writer:
        with pytest.raises(KeyError):
            writer.write_log(a_log())
    assert count(pool, "logs") == 0


def test_redaction_sees_events_and_calls_of_models(pool: StoragePool) -> None:
    def redact(row: dict[str, Any]) -> dict[str, Any]:
        return {**row, "name": "redacted", "attributes": {}}

    with TraceWriter(pool, WriterConfig(redact=redact)) as writer:
        span = writer.write_span_from_llm(LlmSpan(model="gpt", prompt="secret", trace_id="t"))
        writer.write_event({"trace_id": "t", "span_id": span.span_id, "name": "e", "timestamp": START})
    assert [row["attributes"] for row in fetch(pool, TraceSpan)] == [{}]
    assert [row["name"] for row in fetch(pool, TraceEvent)] == ["redacted"]
    assert [row["trace_id"] for row in fetch(pool, Trace)] == ["t"]


def test_redaction_of_a_trace_id_leaves_no_trace_of_it(pool: StoragePool) -> None:
    with TraceWriter(
        pool, WriterConfig(redact=lambda row: {**row, "trace_id": "anonymous"})
    ) as writer:
        writer.write_span_from_llm(LlmSpan(model="gpt", trace_id="user@example.org"))
    assert [row["trace_id"] for row in fetch(pool, Trace)] == ["anonymous"]
    check_traces(pool)


@contextmanager
def refusing(pool: StoragePool, table: str, condition: str) -> Iterator[None]:
    """The database refuses rows of the table for their data."""
    with pool.engine.begin() as connection:
        connection.exec_driver_sql(f"ALTER TABLE {table} ADD CONSTRAINT refused CHECK ({condition})")
    yield
    with pool.engine.begin() as connection:
        connection.exec_driver_sql(f"ALTER TABLE {table} DROP CONSTRAINT refused")


def test_rows_that_the_database_refuses_go_to_on_rejected(pool: StoragePool) -> None:
    refused: list[tuple[dict[str, Any], StorageError]] = []
    config = WriterConfig(
        flush_interval_secs=None, on_rejected=lambda row, error: refused.append((row, error))
    )
    with refusing(pool, "logs", "body NOT LIKE 'bad%%'"), LogWriter(pool, config) as writer:
        for n in range(40):
            writer.write_log(a_log(n, body=f"bad {n}" if n % 13 == 5 else f"good {n}"))
        # They have been handed over when flush returns.
        assert writer.flush() == FlushResult(committed=37)
        assert sorted(row["body"] for row, _ in refused) == ["bad 18", "bad 31", "bad 5"]
        assert all(isinstance(error, ValidationError) for _, error in refused)
        assert {getattr(error, "field", None) for _, error in refused} == {"refused"}
        assert writer.write_stats().rejected == 3
        assert writer.buffer_stats().buffered == 0
    assert len(bodies(pool)) == 37


def test_a_handler_that_fails_costs_no_row(pool: StoragePool) -> None:
    def on_rejected(row: dict[str, Any], error: StorageError) -> None:
        raise RuntimeError("in the application's code")

    config = WriterConfig(flush_interval_secs=None, on_rejected=on_rejected)
    with refusing(pool, "logs", "body <> 'bad'"), LogWriter(pool, config) as writer:
        writer.write_logs([a_log(0, body="good"), a_log(1, body="bad"), a_log(2, body="good")])
        assert writer.flush().committed == 2


def test_without_a_handler_flush_lists_the_refused_rows_after_the_good_are_committed(
    pool: StoragePool,
) -> None:
    with refusing(pool, "trace_spans", "name <> 'bad'"):
        writer = TraceWriter(pool, PATIENT)
        events = [{"name": "e", "timestamp": START}]
        writer.write_spans(
            a_span(n % 3 + 1, n, name="bad" if n in {4, 20} else "good", events=events)
            for n in range(1, 30)
        )
        with pytest.raises(BatchError) as caught:
            writer.flush()
        rejected = caught.value.rejected
        assert [one.row["span_id"] for one in rejected] == [f"{4:016x}", f"{20:016x}"]
        assert [len(one.row["events"]) for one in rejected] == [1, 1]
        assert writer.close() == FlushResult(committed=27)
    assert count(pool, "trace_spans") == 27
    assert count(pool, "trace_events") == 27
    check_traces(pool)


def test_rows_refused_in_the_background_are_told_by_the_next_flush(pool: StoragePool) -> None:
    config = WriterConfig(batch_size=2, flush_interval_secs=None)
    with refusing(pool, "logs", "body <> 'bad'"), LogWriter(pool, config) as writer:
        writer.write_logs([a_log(0, body="bad"), a_log(1)])
        eventually(lambda: writer.write_stats().rejected == 1)
        with pytest.raises(BatchError):
            writer.flush()
        assert writer.flush() == FlushResult(committed=1)


def test_what_was_written_is_not_changed_by_what_the_caller_changes_later(
    pool: StoragePool,
) -> None:
    attributes: dict[str, Any] = {"list": [1], "nested": {"a": 1}}
    event: dict[str, Any] = {"name": "e", "timestamp": START, "attributes": {"n": 1}}
    span = a_span(attributes=attributes, events=[event])
    with TraceWriter(pool, PATIENT) as writer:
        writer.write_span(span)
        attributes["list"].append(2)
        attributes["nested"]["a"] = 2
        event["attributes"]["n"] = 2
        span["events"].append(event)
        span["name"] = "changed"
    (stored,) = fetch(pool, TraceSpan)
    assert stored["name"] == "operation"
    assert stored["attributes"] == {"list": [1], "nested": {"a": 1}}
    assert [row["attributes"] for row in fetch(pool, TraceEvent)] == [{"n": 1}]


def test_threads_that_write_at_once_lose_nothing(pool: StoragePool) -> None:
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


def test_events_find_their_place_beside_a_buffered_span(pool: StoragePool) -> None:
    event = {"trace_id": trace_id(1), "span_id": f"{1:016x}", "name": "e", "timestamp": START}
    with TraceWriter(pool, PATIENT) as writer:
        with pytest.raises(ValidationError, match="span_start_time"):
            writer.write_event(event)
        writer.write_span(a_span(1, 1, start_ns=5, events=[{**named("first"), "position": 4}]))
        writer.write_span(a_span(1, 2))
        with ThreadPoolExecutor(4) as executor:
            for future in [executor.submit(writer.write_event, event) for _ in range(40)]:
                future.result()
        with pytest.raises(ValidationError, match="span_id"):
            writer.write_event({**event, "span_id": "nonsense"})
    found = fetch(pool, TraceEvent)
    assert [row["position"] for row in found] == list(range(4, 45))
    assert {row["span_start_ns"] for row in found} == {5}


def named(name: str) -> dict[str, Any]:
    return {"name": name, "timestamp": START}


def test_flush_ends_when_its_time_does(pool: StoragePool, database_url: str) -> None:
    pool.partitions.ensure("logs", [START])
    with LogWriter(pool, PATIENT) as writer:
        with locked(database_url, "logs"):
            writer.write_logs([a_log(0), a_log(1)])
            with pytest.raises(Timeout, match="2 rows"):
                writer.flush(timeout=0.01)
            assert writer.buffer_stats().buffered == 2
        assert writer.flush(timeout=DEADLINE_SECS).committed == 2


def test_close_says_what_remains(pool: StoragePool, database_url: str) -> None:
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
    write = {
        TraceWriter: lambda: writer.write_trace(a_trace()),
        MetricWriter: lambda: writer.write_metric(a_metric()),
        LogWriter: lambda: writer.write_log(a_log()),
    }[writer_class]
    with pytest.raises(StorageError, match=f"{writer_class.__name__} is closed"):
        write()
    assert writer.flush() == FlushResult()


def test_a_writer_waiting_for_room_is_let_go_by_close(
    pool: StoragePool, database_url: str
) -> None:
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


def test_no_thread_remains_after_close(pool: StoragePool) -> None:
    before = threading.active_count()
    with LogWriter(pool, WriterConfig(max_concurrency=3)) as writer:
        writer.write_log(a_log())
        assert threading.active_count() > before
    eventually(lambda: threading.active_count() == before)


def test_the_stats_count_what_was_repaired(pool: StoragePool) -> None:
    with LogWriter(pool, PATIENT) as writer:
        writer.write_log(a_log(0, attributes={"nan": float("nan"), "nul": "\x00"}))
        writer.write_log(a_log(1, body="a\x00b"))
        assert writer.flush().committed == 2
        assert writer.write_stats().repaired == 3


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
