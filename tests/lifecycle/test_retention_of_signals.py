"""Retention of log records and metrics, and retention by the size of all tables."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from observatory_storage.config import RetentionConfig, RollupRetention
from observatory_storage.lifecycle import metric_expiry, retention_plan
from observatory_storage.lifecycle.retention_results import RetentionResult
from observatory_storage.lifecycle.rollups import refresh_rollups
from observatory_storage.lifecycle.run import Run
from observatory_storage.pool import StoragePool
from observatory_storage.rows import prepare_metric
from observatory_storage.writers import CopyWriter
from tests import citus
from tests.lifecycle.days import (
    DAY,
    a_call,
    noon,
    oddities,
    partitions,
    retain,
    traces_in,
    write_spans,
)
from tests.lifecycle.test_late_spans import before
from tests.writers.helpers import a_log, a_metric, a_point, contents, count, trace_id


@pytest.fixture(autouse=True)
def _nothing_odd(database_url: str) -> Any:
    yield
    assert oddities(database_url) == {}


def write_points(pool: StoragePool, name: str, *times: datetime) -> None:
    metric = prepare_metric(a_metric(name))
    copier = CopyWriter(pool)
    copier.write_metrics([a_metric(name)])
    copier.write_data_points([a_point(metric.values[0], timestamp=time) for time in times])


def age(url: str, days: int) -> None:
    """Let all metrics have been written so many days ago."""
    with psycopg.connect(url) as connection:
        connection.execute(
            "UPDATE metrics SET updated_at = %s - make_interval(days => %s)", [noon(0), days]
        )


def names(pool: StoragePool) -> set[str]:
    with pool.unit_of_work() as work:
        return {metric.name for metric in work.metrics.list()}


def test_each_signal_is_kept_for_its_own_time(pool: StoragePool, database_url: str) -> None:
    days = range(1, 8)
    CopyWriter(pool).write_logs([a_log(timestamp=noon(day)) for day in days])
    write_points(pool, "requests", *map(noon, days))
    write_spans(pool, *(a_call(day, 1, noon(day)) for day in days))
    result = retain(pool, logs="2d", metrics="4d", traces="6d")
    assert {
        table: [one.outcome for one in result.partitions if one.table == table].count("dropped")
        for table in ("logs", "metric_data_points", "trace_spans", "trace_events")
    } == {"logs": 5, "metric_data_points": 3, "trace_spans": 1, "trace_events": 1}
    assert [count(pool, table) for table in ("logs", "metric_data_points", "traces")] == [2, 4, 6]
    assert names(pool) == {"requests"}
    assert len(partitions(database_url, "logs")) == 2


def test_metrics_go_when_they_have_no_points_any_more(pool: StoragePool, database_url: str) -> None:
    write_points(pool, "over", noon(9), noon(8))
    write_points(pool, "in use", noon(9), noon(1))
    write_points(pool, "never measured")
    age(database_url, 10)
    write_points(pool, "written lately")
    assert retain(pool, dry_run=True, metrics="4d").metrics == 2
    assert retain(pool, metrics="4d").metrics == 2
    assert names(pool) == {"in use", "written lately"}


def test_a_metric_that_is_measured_meanwhile_stays(
    pool: StoragePool, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_points(pool, "over", noon(9))
    write_points(pool, "not over", noon(9))
    age(database_url, 10)
    key = prepare_metric(a_metric("not over")).values[0]

    def measure() -> None:
        CopyWriter(pool).write_data_points([a_point(key, timestamp=noon(0))])

    with before(monkeypatch, metric_expiry, "with_short_locks", measure) as called:
        assert retain(pool, metrics="4d").metrics == 1
    assert called
    assert names(pool) == {"not over"}


@citus.not_there("whoever locks a metric locks all")
def test_a_metric_that_is_being_written_stays(pool: StoragePool, database_url: str) -> None:
    write_points(pool, "over", noon(9))
    age(database_url, 10)
    with psycopg.connect(database_url) as writer:
        writer.execute("SELECT FROM metrics FOR UPDATE")
        assert retain(pool, metrics="4d").metrics == 0
    assert retain(pool, metrics="4d").metrics == 1


def write_days(pool: StoragePool) -> None:
    for day in range(6):
        text = [a_log(timestamp=noon(day), body=f"{n} {day} " * 20) for n in range(300)]
        CopyWriter(pool).write_logs(text)
        write_spans(pool, *(a_call(100 * day + n, 1, noon(day)) for n in range(1, 50)))


def test_the_oldest_partitions_go_until_the_tables_fit(pool: StoragePool) -> None:
    write_days(pool)
    refresh_rollups(Run(pool, noon(0)))  # they are a part of the size
    total = retention_plan.total_bytes(pool)
    largest = total * 2 // 3
    planned = retain(pool, dry_run=True, max_bytes=largest)
    result = retain(pool, max_bytes=largest)
    assert retention_plan.total_bytes(pool) <= largest
    assert sorted(one.partition for one in planned.partitions) == sorted(
        one.partition for one in result.partitions
    )
    assert planned.traces == result.traces > 0
    ends = {
        table: max(one.upper for one in result.partitions if one.table == table)
        for table in ("logs", "trace_spans", "trace_events")
    }
    # No signal goes further back than another, but for the last step.
    assert max(ends.values()) - min(ends.values()) <= DAY
    with pool.unit_of_work() as work:
        oldest = min(log.timestamp for log in work.logs.list(limit=2000))
        assert oldest > ends["logs"]
        oldest = min(trace.start_time for trace in work.traces.list(limit=500))
        assert oldest > ends["trace_spans"]
    assert retain(pool, max_bytes=largest) == RetentionResult()


def test_present_partitions_and_spared_traces_stay_however_small_the_bound(
    pool: StoragePool,
) -> None:
    write_days(pool)
    with pool.unit_of_work() as work:
        work.traces.pin(trace_id(501))
        work.commit()
    result = retain(pool, max_bytes=1)
    assert traces_in(pool) == {*range(1, 50), 501}
    assert count(pool, "logs") == 300
    assert result.is_complete
    before_again = contents(pool)
    again = retain(pool, max_bytes=1)
    assert again.partitions == ()
    assert contents(pool) == before_again


def test_rollups_have_ages_of_their_own(pool: StoragePool) -> None:
    config = RetentionConfig(rollups=RollupRetention(hour=None, day=timedelta.max))
    assert retention_plan.rollup_cutoffs(Run(pool, noon(0)), config) == {
        "minute": noon(8),
        "day": datetime.min.replace(tzinfo=UTC),
    }
