"""What the database cannot take now it gets later, once and in order."""

from __future__ import annotations

from dataclasses import replace

import pytest

from observatory_embedded import EmbeddedPostgres
from observatory_storage.errors import StorageError
from observatory_storage.models import Metric, Trace, TraceSpan
from observatory_storage.operations import StoreOperation
from observatory_storage.pool import StoragePool
from observatory_storage.writers import (
    FlushResult,
    LogWriter,
    MetricWriter,
    TraceWriter,
    WriterConfig,
)
from observatory_storage.writers.spool import replay
from tests.writers.helpers import (
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
    trace_id,
)
from tests.writers.spool.spooling import away, files, replayed
from tests.writers.trace_model import check_traces


def test_all_signals_go_through_the_spool_while_the_server_is_away(
    server: EmbeddedPostgres, pool: StoragePool, config: WriterConfig
) -> None:
    config = replace(config, batch_size=7, max_concurrency=2)
    with (
        TraceWriter(pool, config) as traces,
        MetricWriter(pool, config) as metrics,
        LogWriter(pool, config) as logs,
    ):
        traces.write_spans(a_span(n % 3 + 1, n) for n in range(1, 10))
        assert traces.flush() == FlushResult(committed=9)
        assert files(config) == []
        with away(server):
            # Some are new, some replace those that are there, with events and without.
            for n in range(5, 20):
                events = [{"name": "e", "timestamp": START}] * (n % 3) if n % 2 else None
                traces.write_span(a_span(n % 3 + 1, n, status="error", events=events))
            traces.write_trace(a_trace(9, attributes={"said": "by hand"}))
            traces.write_event(an_event(3, 5, 7))
            metric = metrics.write_metric(a_metric())
            metrics.write_data_points([a_point(metric, n) for n in range(3)])
            logs.write_logs(a_log(n) for n in range(4))
            assert traces.flush() == FlushResult(spooled=17)
            assert metrics.flush() == FlushResult(spooled=4)
            assert logs.flush() == FlushResult(spooled=4)
            assert len(files(config)) == 3
            for writer, rows in ((traces, 17), (metrics, 4), (logs, 4)):
                assert writer.buffer_stats().buffered == 0
                assert writer.write_stats().spooled == rows
                assert writer.write_stats().replayed == 0
            assert traces.flush() == FlushResult()
        eventually(replayed(traces, 17))
        eventually(replayed(metrics, 4))
        eventually(replayed(logs, 4))
        assert traces.write_stats().rows == 9
    assert files(config) == []
    expected = {
        "trace_spans": 19,
        "trace_events": 10,
        "metrics": 1,
        "metric_data_points": 3,
        "logs": 4,
    }
    assert {table: count(pool, table) for table in expected} == expected
    assert [row["attributes"] for row in fetch(pool, Trace) if row["attributes"]] == [
        {"said": "by hand"}
    ]
    with pool.engine.begin() as connection:  # which no span speaks of
        connection.exec_driver_sql("DELETE FROM traces WHERE attributes <> '{}'")
    assert check_traces(pool) == 3


def test_flush_commits_again_as_soon_as_the_server_is_back(
    server: EmbeddedPostgres, pool: StoragePool, config: WriterConfig
) -> None:
    """Those that wait in the spool go first."""
    with MetricWriter(pool, config) as writer:
        with away(server):
            writer.write_metric(a_metric(description="first"))
            assert writer.flush() == FlushResult(spooled=1)
            writer.write_metric(a_metric(description="second"))
            assert writer.flush() == FlushResult(spooled=1)
        writer.write_metric(a_metric(description="third"))

        def committed() -> bool:
            # A try that began before the server was back may still fail meanwhile.
            return writer.flush() == FlushResult(committed=1) or (
                writer.write_metric(a_metric(description="third")) is None
            )

        eventually(committed)
        assert writer.write_stats().replayed >= 2
    assert [row["description"] for row in fetch(pool, Metric)] == ["third"]


def test_rows_that_follow_wait_behind_those_in_the_spool(
    server: EmbeddedPostgres,
    pool: StoragePool,
    config: WriterConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where much waits, they go through the spool too, and none overtakes another."""
    monkeypatch.setattr(replay, "_LITTLE_BYTES", 0)
    config = replace(config, batch_size=1)
    with MetricWriter(pool, config) as writer:
        with away(server):
            for n in range(20):
                writer.write_metric(a_metric(description=f"{n}"))
            assert writer.flush() == FlushResult(spooled=20)
        for n in range(20, 40):
            writer.write_metric(a_metric(description=f"{n}"))
        writer.flush()
        stats = writer.write_stats()
        assert (stats.spooled + stats.rows, stats.rejected) == (40, 0)
    assert [row["description"] for row in fetch(pool, Metric)] == ["39"]


def test_an_ended_span_in_the_database_outlasts_an_unended_one_in_the_spool(
    server: EmbeddedPostgres, pool: StoragePool, config: WriterConfig
) -> None:
    with TraceWriter(pool, config) as writer:
        with away(server):
            writer.write_span(a_span(1, 1, end_time=None, status="unset"))
            assert writer.flush() == FlushResult(spooled=1)
            with TraceWriter(pool, replace(config, spool_dir=None)) as another:
                another.write_span(a_span(1, 1))
                with pytest.raises(StorageError):
                    another.flush()
                server.start()
                eventually(lambda: another.write_stats().rows == 1)
        eventually(replayed(writer, 1))
    assert [row["status"] for row in fetch(pool, TraceSpan)] == ["ok"]
    check_traces(pool)


def test_without_trouble_the_spool_costs_nothing(pool: StoragePool, config: WriterConfig) -> None:
    with TraceWriter(pool, config) as writer:
        writer.write_span(a_span(1, 1))
        assert writer.flush() == FlushResult(committed=1)
        assert files(config) == []
        assert (writer.write_stats().spooled, writer.write_stats().replayed) == (0, 0)
    assert [str(row["trace_id"]) for row in fetch(pool, Trace)] == [trace_id(1)]


def test_hooks_are_told_of_rows_that_are_spooled_and_replayed(
    server: EmbeddedPostgres, pool: StoragePool, config: WriterConfig
) -> None:
    seen: list[StoreOperation] = []
    pool.add_hook(seen.append)
    with LogWriter(pool, config) as writer:
        with away(server):
            writer.write_logs([a_log(1), a_log(2)])
            assert writer.flush() == FlushResult(spooled=2)
        eventually(replayed(writer, 2))
    by_outcome = {
        (one.operation, one.outcome): (one.table, one.method, one.rows, one.rows_by_table)
        for one in seen
        if one.operation in ("flush", "replay")
    }
    assert by_outcome["flush", "spooled"] == ("logs", "copy", 2, None)
    assert by_outcome["replay", "ok"] == ("logs", "copy", 2, {"logs": 2})
