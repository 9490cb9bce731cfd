"""What writers publish, and what becomes of them when Redis does not answer."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest
from redis import Redis

from observatory_embedded import EmbeddedValkey
from observatory_storage import (
    CopyWriter,
    LogWriter,
    MetricWriter,
    StorageError,
    StoragePool,
    StoreOperation,
    TraceWriter,
)
from tests.repositories.samples import START, a_log, a_span, trace_key
from tests.streams.conftest import OpenPool
from tests.streams.live import all_of, flushed, live_config, stopped, write_logs
from tests.test_fork import in_child
from tests.writers.helpers import count

forks = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def test_each_signal_is_published_after_the_commit(live: StoragePool) -> None:
    with TraceWriter(live) as spans, LogWriter(live) as logs, MetricWriter(live) as metrics:
        spans.write_spans([a_span(1, 1, status="error"), a_span(1, 2), a_span(2, 3)])
        logs.write_log(a_log(1, severity_text="INFO"))
        metric = metrics.write_metric({"name": "queue", "metric_type": "gauge"})
        metrics.write_data_point({"metric_id": metric, "timestamp": START, "value": 2.5})
    flushed(live)
    assert [(row.span_id, row.status) for row in all_of(live, "spans")] == [
        (f"{1:016x}", "error"),
        (f"{2:016x}", "unset"),
        (f"{3:016x}", "unset"),
    ]
    assert [row.severity_text for row in all_of(live, "logs")] == ["INFO"]
    assert [(row.metric_id, row.value) for row in all_of(live, "data_points")] == [(metric, 2.5)]
    traces = [(row.trace_id, row.span_count, row.status) for row in all_of(live, "traces")]
    assert traces == [(trace_key(1), 2, "error"), (trace_key(2), 1, "unset")]


def test_trace_without_spans_is_published(live: StoragePool) -> None:
    CopyWriter(live).write_traces([{"trace_id": trace_key(1), "start_time": START}])
    flushed(live)
    assert [row.trace_id for row in all_of(live, "traces")] == [trace_key(1)]


def test_only_configured_signals_are_published(open_pool: OpenPool, redis_url: str) -> None:
    pool = open_pool(redis_url, signals=["traces"])
    CopyWriter(pool).write_spans([a_span(1, 1)])
    CopyWriter(pool).write_logs([a_log(1)])
    flushed(pool)
    assert len(all_of(pool, "traces")) == 1
    assert not all_of(pool, "spans")
    assert not all_of(pool, "logs")


def test_nothing_listens_without_a_configured_stream(pool: StoragePool) -> None:
    assert not pool.commits
    assert pool.stream_stats().published_rows == 0


def test_signals_without_redis_are_told_in_the_log(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), StoragePool(live_config(database_url, None)) as pool:
        assert not pool.commits
    assert "redis.url" in caplog.text


def test_what_is_rolled_back_is_not_published(live: StoragePool) -> None:
    with live.unit_of_work() as work:
        CopyWriter(work).write_logs([a_log(1)])
    write_logs(live, [2])
    assert [row.id.int for row in all_of(live, "logs")] == [2]


def test_payloads_are_published_only_if_configured(open_pool: OpenPool, redis_url: str) -> None:
    log = a_log(1, body="secret", attributes={"k": [1, None]})
    plain = open_pool(redis_url)
    CopyWriter(plain).write_logs([log])
    flushed(plain)
    (row,) = all_of(plain, "logs")
    for name in ("body", "attributes", "created_at"):
        with pytest.raises(StorageError, match=rf"LogRecord\.{name} was not loaded: it was"):
            getattr(row, name)
    with Redis.from_url(redis_url) as client:
        assert not any(b"secret" in client.dump(key) for key in client.scan_iter())
        client.flushall()
    whole = open_pool(redis_url, payloads=True)
    CopyWriter(whole).write_logs([a_log(2, body="told", attributes={"k": [1, None]})])
    flushed(whole)
    (row,) = all_of(whole, "logs")
    assert (row.body, row.attributes, row.body_json) == ("told", {"k": [1, None]}, None)


def test_large_payloads_are_left_out(open_pool: OpenPool, redis_url: str) -> None:
    pool = open_pool(redis_url, payloads=True)
    write_logs(pool, [1], body="x" * 20_000)
    write_logs(pool, [2], body="short")
    large, small = all_of(pool, "logs")
    assert (large.id.int, small.body) == (1, "short")
    with pytest.raises(StorageError, match="body was not loaded"):
        _ = large.body


def test_logs_below_the_lowest_level_are_not_published(open_pool: OpenPool, redis_url: str) -> None:
    pool = open_pool(redis_url, min_severity="warn")
    levels: list[dict[str, Any]] = [
        {"severity_number": 12},
        {"severity_number": 13},
        {"severity_text": "error"},
        {"severity_text": "Info"},
        {},
    ]
    CopyWriter(pool).write_logs([a_log(n, **level) for n, level in enumerate(levels)])
    flushed(pool)
    assert [row.id.int for row in all_of(pool, "logs")] == [1, 2]


def test_streams_are_bounded(open_pool: OpenPool, redis_url: str) -> None:
    pool = open_pool(redis_url, max_entries=1)
    with LogWriter(pool) as writer:
        writer.write_logs([a_log(n) for n in range(30_000)])
    flushed(pool)
    with Redis.from_url(redis_url) as client:
        (key,) = client.scan_iter("*:stream:*")
        assert client.xlen(key) <= 100  # Redis trims whole nodes of its tree


def test_a_commit_larger_than_the_bound_is_published(open_pool: OpenPool, redis_url: str) -> None:
    pool = open_pool(redis_url, max_waiting_rows=10)
    CopyWriter(pool).write_logs([a_log(n) for n in range(500)])
    flushed(pool)
    assert len(all_of(pool, "logs")) == 500


def test_databases_and_schemas_do_not_see_each_other(
    live: StoragePool, empty_database_url: str, redis_url: str
) -> None:
    with StoragePool(live_config(empty_database_url, redis_url)) as other:
        other.run_migrations()
        write_logs(live, [1])
        write_logs(other, [2])
        assert [row.id.int for row in all_of(other, "logs")] == [2]
    assert [row.id.int for row in all_of(live, "logs")] == [1]


def test_writers_go_on_without_redis_and_lost_rows_are_counted(
    open_pool: OpenPool, embedded_redis: EmbeddedValkey
) -> None:
    embedded_redis.stop()
    pool = open_pool(embedded_redis.url, max_waiting_rows=300)
    told: list[StoreOperation] = []
    pool.add_hook(told.append)
    for first in range(0, 500, 100):
        CopyWriter(pool).write_logs([a_log(n) for n in range(first, first + 100)])
    assert count(pool, "logs") == 500
    stats = pool.stream_stats()
    assert (stats.published_rows, stats.waiting_rows, stats.lost_rows) == (0, 300, 200)
    embedded_redis.start()
    flushed(pool)
    gaps: list[Any] = []
    write_logs(pool, [500])
    rows = all_of(pool, "logs", on_gap=gaps.append)
    assert [row.id.int for row in rows] == [*range(300), 500]
    assert [(gap.reason, gap.rows) for gap in gaps] == [("lost", 200)]
    stats = pool.stream_stats()
    assert (stats.published_rows, stats.lost_rows, stats.is_connected) == (301, 200, True)
    rows_by_outcome: Counter[str] = Counter()
    for one in told:
        if one.operation == "publish":
            rows_by_outcome[one.outcome] += one.rows
    assert rows_by_outcome == {"ok": 301, "lost": 200, "ConnectionError": 0}


def test_writers_do_not_wait_for_a_redis_that_does_not_answer(
    open_pool: OpenPool, embedded_redis: EmbeddedValkey
) -> None:
    pool = open_pool(embedded_redis.url)
    write_logs(pool, [1])
    with stopped(embedded_redis.url) as go_on:
        for n in range(2, 21):
            CopyWriter(pool).write_logs([a_log(n)])
        assert count(pool, "logs") == 20
        assert pool.stream_stats().waiting_rows == 19
        go_on()
        flushed(pool)
    assert sorted(row.id.int for row in all_of(pool, "logs")) == [*range(1, 21)]


def test_closing_the_pool_publishes_what_waits(
    database_url: str, redis_url: str, live: StoragePool
) -> None:
    with StoragePool(live_config(database_url, redis_url)) as closed:
        CopyWriter(closed).write_logs([a_log(n) for n in range(5_000)])
    assert len(all_of(live, "logs")) == 5_000


@forks
def test_child_publishes_what_it_writes_itself(live: StoragePool) -> None:
    write_logs(live, [1])

    def write_in_child() -> None:
        write_logs(live, [2])
        assert live.stream_stats().published_rows == 1

    in_child(write_in_child)
    write_logs(live, [3])
    assert [row.id.int for row in all_of(live, "logs")] == [1, 2, 3]


SCRIPT = """
import multiprocessing, sys
from observatory_storage import LogWriter, StoragePool
from tests.repositories.samples import a_log
from tests.streams.live import live_config

def write(first):
    pool = StoragePool(live_config(sys.argv[1], sys.argv[2]))
    LogWriter(pool).write_logs([a_log(first + number) for number in range(500)])
    return pool

if __name__ == "__main__":
    write(0)
    kept = write(1_000)
    child = multiprocessing.get_context("fork").Process(target=write, args=(2_000,))
    child.start()
    child.join()
"""


def test_what_is_flushed_when_processes_end_is_published(
    live: StoragePool, database_url: str, redis_url: str
) -> None:
    script = [sys.executable, "-W", "ignore", "-c", SCRIPT, database_url, redis_url]
    subprocess.run(script, check=True, timeout=60)
    assert count(live, "logs") == len(all_of(live, "logs")) == 1_500
