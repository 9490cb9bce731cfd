"""Retention of traces: what goes, what is spared, and what late spans do."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import psycopg
import pytest

from observatory_storage.errors import ConfigError, Conflict
from observatory_storage.lifecycle.retention_results import RetentionResult
from observatory_storage.pool import StoragePool
from observatory_storage.writers import TraceWriter
from tests.lifecycle.days import (
    DAY,
    HOUR,
    NOW,
    a_call,
    noon,
    oddities,
    partitions,
    retain,
    rows_of,
    traces_in,
    write_spans,
)
from tests.writers.helpers import contents, trace_id


@pytest.fixture(autouse=True)
def _nothing_odd(database_url: str) -> Any:
    yield
    assert oddities(database_url) == {}


def outcomes(result: RetentionResult) -> list[tuple[str, str, int]]:
    return [(one.table, one.outcome, one.kept_rows) for one in result.partitions]


def test_by_default_everything_is_kept(pool: StoragePool) -> None:
    write_spans(pool, a_call(1, 1, noon(60)))
    before = contents(pool)
    assert retain(pool) == RetentionResult()
    assert contents(pool) == before


def test_old_traces_go_with_their_partitions(pool: StoragePool, database_url: str) -> None:
    write_spans(pool, *(a_call(day, 1, noon(day)) for day in range(1, 8)))
    result = retain(pool, traces="3d")
    # Three days ago at noon is within a day, of which no half is dropped.
    assert result.traces == 4
    assert traces_in(pool) == {1, 2, 3}
    assert (
        outcomes(result)
        == [("trace_spans", "dropped", 0)] * 4 + [("trace_events", "dropped", 0)] * 4
    )
    assert result.is_complete
    assert not result.dry_run
    assert all(one.bytes > 0 and one.rows > 0 for one in result.partitions)
    assert len(partitions(database_url, "trace_spans")) == 3
    assert retain(pool, traces="3d") == RetentionResult()


def test_a_dry_run_says_what_would_go(pool: StoragePool) -> None:
    write_spans(pool, *(a_call(day, 1, noon(day)) for day in range(1, 8)))
    with pool.unit_of_work() as work:
        work.traces.pin(trace_id(7))
        work.commit()
    before = contents(pool)
    planned = retain(pool, dry_run=True, traces="3d")
    assert contents(pool) == before
    assert {one.outcome for one in planned.partitions} == {"would go"}
    done = retain(pool, traces="3d")
    assert (planned.traces, planned.kept_traces) == (done.traces, done.kept_traces) == (3, 1)
    assert {one.partition for one in planned.partitions} == {
        one.partition for one in done.partitions
    }


def test_a_trace_that_crosses_the_cutoff_is_spared_whole(
    pool: StoragePool, database_url: str
) -> None:
    midnight = noon(3).replace(hour=0)
    write_spans(
        pool,
        a_call(1, 1, midnight - HOUR),
        a_call(1, 2, midnight),
        a_call(2, 1, midnight - HOUR),
        a_call(2, 2, midnight - timedelta(microseconds=1)),
    )
    result = retain(pool, traces="3d")
    assert traces_in(pool) == {1}
    assert outcomes(result) == [("trace_spans", "rewritten", 1), ("trace_events", "rewritten", 1)]
    with pool.unit_of_work() as work:
        spans = work.traces.get_spans(trace_id(1), with_events=True)
        assert [len(span.events) for span in spans] == [1, 1]
        assert work.traces.get_by_trace_id(trace_id(1)).total_tokens == 30
    # Nothing has expired in the partition since, so it is not rewritten again.
    assert retain(pool, traces="3d") == RetentionResult()
    # The next day the rest of the trace has expired too.
    result = retain(pool, now=NOW + DAY, traces="3d")
    assert result.traces == 1
    assert (
        outcomes(result)
        == [("trace_spans", "dropped", 0)] * 2 + [("trace_events", "dropped", 0)] * 2
    )
    assert partitions(database_url, "trace_spans") == []


def test_a_pinned_trace_is_kept_until_it_is_unpinned(pool: StoragePool, database_url: str) -> None:
    write_spans(pool, *(a_call(number, 1, noon(10)) for number in range(1, 6)))
    with pool.unit_of_work() as work:
        work.traces.pin(trace_id(2), "an incident")
        work.commit()
    result = retain(pool, traces="3d")
    assert (result.traces, result.kept_traces) == (4, 1)
    assert traces_in(pool) == {2}
    assert retain(pool, traces="3d") == RetentionResult(kept_traces=1)
    with pool.unit_of_work() as work:
        work.traces.unpin(trace_id(2))
        work.commit()
    assert retain(pool, traces="3d").traces == 1
    assert partitions(database_url, "trace_events") == []


def test_traces_that_meet_a_rule_are_kept(pool: StoragePool) -> None:
    write_spans(
        pool,
        a_call(1, 1, noon(10), status="error", environment="production"),
        a_call(2, 1, noon(10), status="error", environment="test"),
        a_call(3, 1, noon(10), total_cost_usd=7),
        a_call(4, 1, noon(10), attributes={"tier": "gold"}),
        a_call(5, 1, noon(10)),
    )
    keep = [
        {"status": "error", "environment": "production"},
        {"min_cost_usd": 5},
        {"attributes": {"tier": "gold"}},
    ]
    planned = retain(pool, dry_run=True, traces="3d", keep=keep)
    assert (planned.traces, planned.kept_traces) == (2, 3)
    assert retain(pool, traces="3d", keep=keep).kept_traces == 3
    assert traces_in(pool) == {1, 3, 4}


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ({"min_cost": 1}, r"retention.keep\[0\]: TraceFilters has no field 'min_cost'"),
        ({"status": "bad"}, r"retention.keep\[0\].status='bad': must be one of"),
        ({"limit": 5}, r"retention.keep\[0\].limit: is not a condition"),
    ],
)
def test_a_rule_that_traces_cannot_meet_is_refused(
    pool: StoragePool, keep: dict[str, Any], message: str
) -> None:
    for dry_run in (True, False):
        with pytest.raises(ConfigError, match=message):
            retain(pool, dry_run=dry_run, traces="3d", keep=keep)


def test_traces_without_spans_go_too(pool: StoragePool) -> None:
    with TraceWriter(pool) as writer:
        for number, start in ((1, noon(10)), (2, noon(1))):
            writer.write_trace(
                {"trace_id": trace_id(number), "service_name": "shop", "start_time": start}
            )
    assert retain(pool, traces="3d").traces == 1
    assert traces_in(pool) == {2}


def test_a_late_span_makes_a_trace_anew_with_its_own_totals(
    pool: StoragePool, database_url: str
) -> None:
    """It comes between the deletion of its trace and that of the partition."""
    write_spans(pool, *(a_call(1, hour, noon(10) + hour * HOUR) for hour in range(1, 5)))
    with psycopg.connect(database_url) as connection:
        connection.execute("DELETE FROM traces")
    write_spans(pool, a_call(1, 9, noon(10) + 2.5 * HOUR), a_call(1, 8, noon(1)))
    with pool.unit_of_work() as work:
        work.traces.pin(trace_id(1))
        work.commit()
    retain(pool, traces="3d")
    with pool.unit_of_work() as work:
        # What starts before is of the trace that was deleted. What starts later cannot be told
        # from its own spans, so it is counted.
        assert [int(span.span_id, 16) for span in work.traces.get_spans(trace_id(1))] == [
            *(9, 3, 4, 8)
        ]


def test_a_late_span_beyond_the_cutoff_brings_nothing_back(
    pool: StoragePool, database_url: str
) -> None:
    write_spans(pool, *(a_call(1, hour, noon(10) + hour * HOUR) for hour in range(1, 5)))
    with psycopg.connect(database_url) as connection:
        connection.execute("DELETE FROM traces")
    write_spans(pool, a_call(1, 8, noon(1)))
    result = retain(pool, traces="3d")
    assert [one.outcome for one in result.partitions] == ["dropped", "dropped"]
    with pool.unit_of_work() as work:
        assert work.traces.get_by_trace_id(trace_id(1)).span_count == 1


def test_a_late_trace_in_a_partition_of_spared_rows_goes_in_the_next_run(
    pool: StoragePool, database_url: str
) -> None:
    write_spans(pool, a_call(1, 1, noon(10)), a_call(2, 1, noon(10)))
    with pool.unit_of_work() as work:
        work.traces.pin(trace_id(1))
        work.commit()
    retain(pool, traces="3d")
    write_spans(pool, a_call(3, 1, noon(10)))
    assert outcomes(retain(pool, traces="3d")) == [
        ("trace_spans", "rewritten", 1),
        ("trace_events", "rewritten", 1),
    ]
    assert traces_in(pool) == {1}


def test_rows_before_all_time_go_with_the_catch_all(pool: StoragePool) -> None:
    ancient = noon(1).replace(year=1931)
    write_spans(pool, a_call(1, 1, ancient), a_call(2, 1, noon(1)), a_call(3, 1, ancient))
    with pool.unit_of_work() as work:
        work.traces.pin(trace_id(3))
        work.commit()
    retain(pool, traces="3d")
    assert traces_in(pool) == {2, 3}


def test_partitions_of_two_widths_are_cut_where_both_end(
    pool: StoragePool, database_url: str
) -> None:
    """No trace loses its spans while its events stay."""
    midnight = noon(5).replace(hour=0)
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "CREATE TABLE trace_events_long PARTITION OF trace_events FOR VALUES FROM"
            f" ('{midnight - DAY}') TO ('{midnight + 2 * DAY}')".encode()
        )
    write_spans(pool, *(a_call(day, 1, noon(day)) for day in range(3, 9)))
    retain(pool, traces="4d")
    assert traces_in(pool) == {3, 4, 5, 6}


def test_a_run_out_of_time_is_completed_by_the_next(pool: StoragePool) -> None:
    write_spans(pool, *(a_call(day, 1, noon(day)) for day in range(1, 8)))
    first = retain(pool, seconds=1e-9, traces="3d")
    assert not first.is_complete
    assert first.traces == 0
    assert retain(pool, traces="3d").is_complete
    assert traces_in(pool) == {1, 2, 3}


def test_two_at_once_are_refused(pool: StoragePool, database_url: str) -> None:
    from observatory_storage.layout import advisory_key

    with psycopg.connect(database_url) as connection:
        key = advisory_key("retention", "public")
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [key])
        with pytest.raises(Conflict, match="another process is applying retention"):
            retain(pool, traces="3d")


def test_everything_happens_in_a_schema_with_any_name(database_url: str) -> None:
    from tests.writers.helpers import quick_pool

    with quick_pool(database_url, schema='o"d:d %s') as pool:
        pool.run_migrations()
        write_spans(pool, *(a_call(day, 1, noon(day)) for day in (1, 8, 9)))
        with pool.unit_of_work() as work:
            work.traces.pin(trace_id(9))
            work.commit()
        result = retain(pool, traces="3d", metrics="3d", logs="3d")
        assert (result.traces, result.kept_traces) == (1, 1)
        assert traces_in(pool) == {1, 9}
    assert rows_of(database_url, "trace_spans") == 0
