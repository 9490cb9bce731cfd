"""Closing partitions: when, what is done to them, and again after late rows."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa

from observatory_embedded import EmbeddedPostgres
from observatory_storage import index_builder, index_kinds
from observatory_storage.errors import Conflict, PoolError
from observatory_storage.index_kinds import CLOSED
from observatory_storage.layout import PARTITIONED, advisory_key
from observatory_storage.lifecycle import closing
from observatory_storage.lifecycle.closing import close_partitions
from observatory_storage.lifecycle.partitions_ahead import make_partitions_ahead
from observatory_storage.lifecycle.run import Deadline, Run
from observatory_storage.models import PartitionState
from observatory_storage.partition_indexes import build_partition_indexes
from observatory_storage.pool import StoragePool
from observatory_storage.repositories import SpanFilters
from observatory_storage.writers import CopyWriter
from tests import citus
from tests.lifecycle.pools import pool_with, scalar
from tests.repositories.plans import plans_of, walk_first
from tests.repositories.samples import a_log, a_span, an_event
from tests.writers.helpers import eventually, fetch, fork, wait_for

DAY = timedelta(days=1)
TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - 7 * DAY
START = TODAY + DAY / 2
OVER = TODAY + DAY + timedelta(hours=1)
SPANS, EVENTS, LOGS = (
    f"{table}_p{TODAY:%Y%m%d}" for table in ("trace_spans", "trace_events", "logs")
)


def write(pool: StoragePool, first: int = 1, rows: int = 1) -> None:
    numbers = range(first, first + rows)
    CopyWriter(pool).write_spans([a_span(n, n, START, events=[an_event(k=n)]) for n in numbers])
    CopyWriter(pool).write_logs([a_log(n, START) for n in numbers])
    # A session reports its changes once a second. Reported after VACUUM, they would look like late
    # rows. The pool gives the connection that was used last.
    scalar(pool, "SELECT pg_stat_force_next_flush()")


def is_frozen(pool: StoragePool, partition: str) -> bool:
    """Whether the partition may hold no transaction id as young as those of its rows."""
    query = (
        "SELECT max(age(xmin)) > (SELECT age(relfrozenxid) FROM pg_class WHERE relname = :name)"
        f" FROM {partition}"
    )
    return bool(scalar(pool, query, name=partition))


def states(pool: StoragePool) -> dict[str, dict[str, Any]]:
    return {row["partition_name"]: row for row in fetch(pool, PartitionState)}


def test_a_partition_is_closed_when_its_time_is_over(database_url: str) -> None:
    with pool_with(database_url, close_after="2h", ahead="3d") as pool:
        write(pool)
        make_partitions_ahead(Run(pool, TODAY))
        assert close_partitions(Run(pool, OVER)).closed == ()
        assert states(pool) == {}
        now = OVER + timedelta(hours=1)
        lines: list[str] = []
        result = close_partitions(Run(pool, now, progress=lines.append))
        # That of data points, too, which gets no index. Partitions ahead stay open.
        assert set(result.closed) == {f"{table}_p{TODAY:%Y%m%d}" for table in PARTITIONED}
        assert (result.renewed, result.failed, result.is_complete) == ((), (), True)
        assert lines == [f"closed {name}" for name in result.closed]
        assert not build_partition_indexes(pool, now=now).built
        assert len(build_partition_indexes(pool, now=now).existing) == len(CLOSED)
        state = states(pool)[SPANS]
        assert state["table_name"] == "trace_spans"
        assert (state["lower_bound"], state["upper_bound"]) == (TODAY, TODAY + DAY)
        assert state["closed_at"] == state["frozen_at"] == now
        assert state["row_count"] == (0 if citus.URL else 1)
        again = close_partitions(Run(pool, now + DAY / 2))
        assert (again.closed, again.renewed) == ((), ())


@citus.not_there("the coordinator has no rows of partitions")
def test_a_closed_partition_is_analysed_and_frozen(pool: StoragePool) -> None:
    write(pool, rows=20)
    analysed = "SELECT count(*) FROM pg_stats WHERE tablename = :name"
    assert scalar(pool, analysed, name=SPANS) == 0
    assert not is_frozen(pool, SPANS)
    close_partitions(Run(pool, OVER))
    assert scalar(pool, analysed, name=SPANS) > 0
    assert is_frozen(pool, SPANS)
    pages = "SELECT relallvisible = relpages AND relpages > 0 FROM pg_class WHERE relname = :name"
    assert scalar(pool, pages, name=SPANS)


@citus.not_there("shards have plans of their own")
def test_queries_use_the_indexes_of_a_closed_partition(
    pool: StoragePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    walk_first(monkeypatch, 10)
    rows = [
        a_span(n, n, TODAY + n * timedelta(seconds=1), attributes={"tenant": n})
        for n in range(1, 3001)
    ]
    CopyWriter(pool).write_spans(rows)
    filters = SpanFilters(attributes={"tenant": 7}, start_time=TODAY, end_time=TODAY + DAY)
    close_partitions(Run(pool, OVER))
    plans = plans_of(pool, lambda uow: uow.traces.list_spans(filters))
    used = {scan.index for plan in plans for scan in plan.run if scan.index is not None}
    assert any("_attributes_" in index for index in used), used


@citus.not_there("late rows do not close a partition again")
def test_late_rows_go_in_and_many_of_them_close_it_again(
    pool: StoragePool, database_url: str
) -> None:
    write(pool, rows=40)
    close_partitions(Run(pool, OVER))

    def write_late(first: int, rows: int, changes: int) -> None:
        with pool_with(database_url) as writer:  # it reports its changes when it disconnects
            write(writer, first, rows)
        counted = "SELECT pg_stat_get_mod_since_analyze(:name ::regclass)"
        eventually(lambda: bool(scalar(pool, counted, name=LOGS) == changes))

    write_late(100, 4, 4)
    assert close_partitions(Run(pool, OVER + DAY / 4)).renewed == ()
    write_late(200, 1, 5)
    later = OVER + DAY / 2
    assert set(close_partitions(Run(pool, later)).renewed) == {SPANS, EVENTS, LOGS}
    state = states(pool)[LOGS]
    assert (state["row_count"], state["closed_at"], state["frozen_at"]) == (45, OVER, later)
    assert close_partitions(Run(pool, later)).renewed == ()


@citus.not_there("late rows do not close a partition again")
def test_rows_that_autovacuum_has_analysed_count_as_late_too(pool: StoragePool) -> None:
    write(pool, rows=10)
    close_partitions(Run(pool, OVER))
    write(pool, 100, 2)
    with pool.engine.begin() as connection:
        connection.exec_driver_sql(f"ANALYZE {LOGS}")
    assert LOGS in close_partitions(Run(pool, OVER)).renewed


def test_a_changed_definition_of_an_index_is_built_for_closed_partitions(
    pool: StoragePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(pool)
    close_partitions(Run(pool, OVER))
    changed = [
        index_kinds.IndexKind(kind.table, kind.purpose, lambda c: [c.otlp])
        if (kind.table, kind.purpose) == ("trace_events", "content")
        else kind
        for kind in CLOSED
    ]
    for module in (closing, index_builder):
        monkeypatch.setattr(module, "CLOSED", changed)
    # Which partition has the index of which definition is found by looking at each.
    assert EVENTS in close_partitions(Run(pool, OVER)).renewed
    assert close_partitions(Run(pool, OVER)).renewed == ()
    assert not build_partition_indexes(pool, now=OVER).built


def test_marks_of_dropped_partitions_go(pool: StoragePool) -> None:
    write(pool)
    close_partitions(Run(pool, OVER))
    with pool.engine.begin() as connection:
        connection.exec_driver_sql(f"DROP TABLE {LOGS}, {SPANS}")
    pool.partitions.forget()
    pool.partitions.ensure("logs", [START])  # it has the name of the one before
    assert close_partitions(Run(pool, OVER)).closed == (LOGS,)
    assert set(states(pool)) == {LOGS, EVENTS}


def test_the_deadline_is_asked_before_each_partition(
    pool: StoragePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(pool)
    assert close_partitions(Run(pool, OVER, Deadline(0))).is_complete is False
    assert states(pool) == {}
    left = iter([False, True, True, True])
    monkeypatch.setattr(Deadline, "is_over", property(lambda _: next(left)))
    first = close_partitions(Run(pool, OVER))
    assert (len(first.closed), first.is_complete) == (1, False)
    monkeypatch.undo()
    assert len(close_partitions(Run(pool, OVER)).closed) == 2


def test_a_partition_that_is_locked_is_left_for_the_next_run(
    pool: StoragePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(closing, "_LOCK_TIMEOUT", "50ms")
    write(pool)
    with pool.engine.begin() as connection:
        connection.exec_driver_sql(f"LOCK TABLE {LOGS} IN SHARE UPDATE EXCLUSIVE MODE")
        result = close_partitions(Run(pool, OVER))
        assert [failure.partition for failure in result.failed] == [LOGS]
        assert isinstance(result.failed[0].error, Conflict)
        assert set(result.closed) == {SPANS, EVENTS}
        assert not result.is_complete
    assert close_partitions(Run(pool, OVER)).closed == (LOGS,)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_run_that_is_killed_is_completed_by_the_next(
    pool: StoragePool, database_url: str
) -> None:
    write(pool)

    def run_until(told: str) -> None:
        def die(*given: Any) -> None:
            if told in given[2]:
                os._exit(0)

        with pool_with(database_url) as own:
            sa.event.listen(own.engine, "before_cursor_execute", die)
            close_partitions(Run(own, OVER))
        os._exit(1)  # it was to die

    for told in ("_usage_", "VACUUM", "INSERT INTO public.partition_states"):
        wait_for(fork(partial(run_until, told)))
        assert states(pool) == {}
    assert set(close_partitions(Run(pool, OVER)).closed) == {SPANS, EVENTS, LOGS}
    assert len(build_partition_indexes(pool, now=OVER).existing) == len(CLOSED)


def test_a_process_that_builds_indexes_is_left_alone(pool: StoragePool) -> None:
    write(pool)
    key = advisory_key("indexes", pool.schema)
    with pool.engine.begin() as connection:
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(key)))
        result = close_partitions(Run(pool, OVER))
    assert (result.closed, result.is_complete) == ((), False)


def test_a_pool_of_one_connection_is_refused(database_url: str) -> None:
    with pool_with(database_url) as pool:
        config = pool.config.model_copy(
            update={"pool": pool.config.pool.model_copy(update={"max_connections": 1})}
        )
    with StoragePool(config) as one, pytest.raises(PoolError, match="two connections"):
        close_partitions(Run(one, OVER))


def test_a_partition_that_another_role_owns_is_told(embedded_server: EmbeddedPostgres) -> None:
    with pool_with(embedded_server.url) as owner:
        owner.run_migrations()
        owner.partitions.ensure("metric_data_points", [START])
        owner.partitions.ensure("logs", [START])
        with owner.engine.begin() as connection:
            connection.exec_driver_sql("CREATE ROLE visitor LOGIN")
            connection.exec_driver_sql("GRANT ALL ON ALL TABLES IN SCHEMA public TO visitor")
            connection.exec_driver_sql(f"ALTER TABLE {LOGS} OWNER TO visitor")
            connection.exec_driver_sql("GRANT CREATE ON SCHEMA public TO visitor")
        with pool_with(embedded_server.url, username="visitor") as theirs:
            result = close_partitions(Run(theirs, OVER))
        assert result.closed == (LOGS,)
        (failure,) = result.failed
        assert str(failure.error).startswith(f"visitor does not own {failure.partition}: only")
        assert set(states(owner)) == {LOGS}


def test_the_far_past_is_closed_and_the_far_future_is_not(pool: StoragePool) -> None:
    times = [datetime(1980, 1, 1, tzinfo=UTC), datetime(2554, 1, 1, tzinfo=UTC)]
    CopyWriter(pool).write_logs([a_log(n, time) for n, time in enumerate(times)])
    assert close_partitions(Run(pool)).closed == ("logs_past",)
    state = states(pool)["logs_past"]
    assert state["lower_bound"] is None
    assert state["upper_bound"] == datetime(2000, 1, 1, tzinfo=UTC)
