"""What `write_stats` says: counts by method, bytes, rates, latencies."""

from __future__ import annotations

import math
import pickle
import random
from collections import Counter
from typing import Any

import pytest

from observatory_storage.models import TraceEvent, TraceSpan
from observatory_storage.pool import StoragePool
from observatory_storage.storing import Method
from observatory_storage.writers import (
    FlushResult,
    LogWriter,
    MetricWriter,
    StoreResult,
    TraceWriter,
    WriterConfig,
    WriteStats,
    stats,
)
from observatory_storage.writers.stats import Recorder, Written
from tests.writers.helpers import (
    a_log,
    a_metric,
    a_point,
    a_span,
    a_trace,
    event,
    fetch,
)

PATIENT = WriterConfig(flush_interval_secs=None)


def test_a_writer_counts_what_it_commits(pool: StoragePool) -> None:
    spans = [a_span(1, n, attributes={"n": "x" * n}, events=[event("e")] * 2) for n in range(1, 21)]
    with TraceWriter(pool, PATIENT) as writer:
        writer.write_spans(spans)
        assert writer.write_stats() == WriteStats()
        assert writer.flush() == FlushResult(committed=20)
        writer.write_span(spans[0])
        writer.flush()
        told = writer.write_stats()
    assert (told.rows, told.batches) == (21, 2)
    assert 21 * 200 < told.bytes < 21 * 2_000
    assert told.rows_by_method == {"copy": 20, "insert": 1}
    assert told.batches_by_method == {"copy": 1, "insert": 1}
    assert 0 < told.flush_seconds_p50 <= told.flush_seconds_p95 <= told.flush_seconds_p99
    assert told.flush_seconds_p99 == told.flush_seconds_max < told.flush_seconds
    assert 0 < told.rows_per_second <= told.recent_rows_per_second
    assert pickle.loads(pickle.dumps(told)) == told
    # It is a copy.
    told.rows_by_method.clear()
    assert writer.write_stats().rows_by_method == {"copy": 20, "insert": 1}
    assert (len(fetch(pool, TraceSpan)), len(fetch(pool, TraceEvent))) == (20, 40)


def test_bytes_count_the_sent_data(pool: StoragePool) -> None:
    """All of a COPY, and of an INSERT what is JSON or text."""
    sent = {}
    methods: tuple[Method, ...] = ("insert", "copy")
    for method in methods:
        config = WriterConfig(flush_interval_secs=None, method=method)
        with LogWriter(pool, config) as writer:
            writer.write_log(a_log(body="b" * 1000, attributes={"a": "a" * 500}))
            writer.flush()
            once = writer.write_stats().bytes
            writer.write_logs(a_log(body="b" * 1000, attributes={"a": "a" * 500}) for _ in "123")
            writer.flush()
            sent[method] = writer.write_stats().bytes
            assert abs(sent[method] - 4 * once) < 100
    assert 4 * 1500 < sent["insert"] < sent["copy"] < 4 * 2000


@pytest.mark.parametrize("method", ["insert", "copy"])
def test_the_chosen_method_is_used(pool: StoragePool, method: Any) -> None:
    config = WriterConfig(flush_interval_secs=None, method=method)
    with MetricWriter(pool, config) as writer:
        metric = writer.write_metric(a_metric())
        writer.write_data_points(a_point(metric, n) for n in range(30))
        writer.flush()
        assert writer.write_stats().rows_by_method == {method: 31}
        assert writer.write_stats().batches_by_method == {method: 1}


def test_a_batch_of_several_tables_goes_by_several_methods(pool: StoragePool) -> None:
    with TraceWriter(pool, PATIENT) as writer:
        writer.write_spans(a_span(1, n) for n in range(1, 31))
        writer.write_trace(a_trace(1))
        writer.flush()
        assert writer.write_stats().rows_by_method == {"copy": 30, "insert": 1}
        assert writer.write_stats().batches_by_method == {"copy": 1}


def test_refused_rows_are_not_counted_as_written(pool: StoragePool) -> None:
    with pool.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE logs ADD CONSTRAINT refused CHECK (body <> 'bad')")
    rows = [a_log(n, body="bad" if n % 5 == 0 else "good") for n in range(20)]
    config = WriterConfig(flush_interval_secs=None, on_rejected=lambda row, error: None)
    with LogWriter(pool, config) as writer:
        writer.write_logs(rows)
        writer.write_log(a_log(body="bad"))
        assert writer.flush() == FlushResult(committed=16)
        told = writer.write_stats()
    assert (told.rows, told.rejected, told.rows_by_method) == (16, 5, {"copy": 16})


class Clock:
    def __init__(self) -> None:
        self.now = 1000.5

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(stats, "time", clock)
    return clock


def written(rows: int) -> Written:
    return Written(StoreResult(committed=rows), Counter(logs=rows), Counter(copy=rows), "copy")


def test_rates_are_those_of_all_time_and_of_the_last_minute(clock: Clock) -> None:
    recorder = Recorder()
    assert recorder.stats() == WriteStats()
    for _ in range(10):
        clock.now += 0.5
        recorder.committed(written(7), 0.1)
    told = recorder.stats()
    assert told.rows_per_second == told.recent_rows_per_second == 14.0
    # Ten minutes of one row a second, in which the first seconds are forgotten.
    for _ in range(600):
        clock.now += 1
        recorder.committed(written(1), 0.1)
    told = recorder.stats()
    assert told.rows_per_second == pytest.approx(670 / 605)
    assert told.recent_rows_per_second == pytest.approx(1.0, rel=1 / 60)
    clock.now += 61
    assert recorder.stats().recent_rows_per_second == 0
    assert recorder.stats().rows == 670
    recorder.committed(written(120), 0.1)
    assert recorder.stats().recent_rows_per_second == 2.0


def test_percentiles_are_of_the_latest_flushes() -> None:
    """Nearest rank: the smallest value that so many do not exceed."""
    source = random.Random(5)
    durations = [source.choice((source.random(), 0.25)) for _ in range(2345)]
    recorder = Recorder()
    for number, seconds in enumerate(durations, 1):
        recorder.committed(written(1), seconds)
        if number in (1, 2, 3, 19, 20, 21, 100, 999, 1000, 1001, 2345):
            latest = durations[max(0, number - 1000) : number]
            told = recorder.stats()
            for percent, value in (
                (50, told.flush_seconds_p50),
                (95, told.flush_seconds_p95),
                (99, told.flush_seconds_p99),
                (100, told.flush_seconds_max),
            ):
                enough = math.ceil(len(latest) * percent / 100)
                assert value in latest
                assert sum(other <= value for other in latest) >= enough
                assert sum(other < value for other in latest) < enough


def test_the_memory_of_the_statistics_is_bounded(clock: Clock) -> None:
    recorder = Recorder()
    for _ in range(5000):
        clock.now += 0.7
        recorder.committed(written(1), 0.1)
    assert len(pickle.dumps(vars(recorder))) < 20_000


def test_a_writer_that_has_just_begun_has_no_rate(clock: Clock) -> None:
    recorder = Recorder()
    recorder.committed(written(1), 0.0)
    assert recorder.stats().rows_per_second == recorder.stats().recent_rows_per_second == 0.0
