"""Indexing finished slices of open partitions: which, when, and again after failures."""

from __future__ import annotations

import os
import signal
import threading
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import sqlalchemy as sa
from psycopg.conninfo import conninfo_to_dict

from observatory_storage import index_builder, index_kinds
from observatory_storage.errors import Conflict
from observatory_storage.index_kinds import IndexKind
from observatory_storage.layout import advisory_key
from observatory_storage.lifecycle import open_slices
from observatory_storage.lifecycle.closing import close_partitions
from observatory_storage.lifecycle.open_slices import IndexedSlices, index_open_partitions
from observatory_storage.lifecycle.run import Deadline, Run
from observatory_storage.lifecycle.split_plan import Split
from observatory_storage.lifecycle.split_state import begin
from observatory_storage.lifecycle.splitting import split_partitions
from observatory_storage.partition_indexes import build_partition_indexes
from observatory_storage.pool import StoragePool
from observatory_storage.slice_catalog import slice_indexes
from observatory_storage.time_ranges import Range
from observatory_storage.writers import CopyWriter
from tests import citus
from tests.lifecycle.full_month import FIRST
from tests.lifecycle.full_month import NOW as IN_MONTH
from tests.lifecycle.pools import pool_with, scalar
from tests.repositories.samples import a_log, a_span, an_event
from tests.repositories.slices import few_are_enough
from tests.servers import Server
from tests.writers.helpers import eventually, fork, quick_pool

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - 7 * DAY
NOON = TODAY + DAY / 2
OVER = TODAY + DAY + HOUR
TABLES = ("trace_spans", "trace_events", "logs")
SPANS, EVENTS, LOGS = (f"{table}_p{TODAY:%Y%m%d}" for table in TABLES)


def write(pool: StoragePool, *starts: datetime) -> None:
    spans, logs = [], []
    for start in starts:
        number = int((start - TODAY).total_seconds())
        spans.append(a_span(number + 1, number + 1, start, events=[an_event(k=number)]))
        logs.append(a_log(number + 1, start))
    CopyWriter(pool).write_spans(spans)
    CopyWriter(pool).write_logs(logs)
    # Changes that a session reports after VACUUM would look like late rows.
    scalar(pool, "SELECT pg_stat_force_next_flush()")


def indexed(pool: StoragePool, now: datetime) -> IndexedSlices:
    with few_are_enough():
        return index_open_partitions(Run(pool, now))


def stored(pool: StoragePool) -> dict[str, tuple[str, datetime, datetime, bool]]:
    """The indexes of slices by their names."""
    with pool.engine.begin() as connection:
        return {
            one.name: (one.partition, one.lower, one.upper, one.is_valid)
            for table in TABLES
            for one in slice_indexes(connection, pool.schema, table)
        }


def slices(pool: StoragePool, partition: str = SPANS) -> list[tuple[datetime, datetime]]:
    found = {one[1:3] for one in stored(pool).values() if one[0] == partition}
    return sorted(found)


def invalid(pool: StoragePool) -> int:
    return int(scalar(pool, "SELECT count(*) FROM pg_index WHERE NOT indisvalid AND indislive"))


def test_what_is_finished_gets_the_indexes_of_closed_partitions(pool: StoragePool) -> None:
    write(pool, *(TODAY + n * HOUR for n in range(14)))
    lines: list[str] = []
    with few_are_enough():
        result = index_open_partitions(Run(pool, NOON + HOUR, progress=lines.append))
    end = NOON + HOUR - timedelta(minutes=5)
    assert [(one.partition, one.start, one.end) for one in result.indexed] == [
        (name, TODAY, end) for name in (SPANS, EVENTS, LOGS)
    ]
    assert (result.failed, result.is_complete) == ((), True)
    assert lines == [f"indexed {n} until {end.isoformat()}" for n in (SPANS, EVENTS, LOGS)]
    assert sorted((one[0], name.split("_")[-3]) for name, one in stored(pool).items()) == sorted(
        (name, purpose) for name in (SPANS, EVENTS, LOGS) for purpose in ("attributes", "content")
    )
    for name in stored(pool):
        assert scalar(pool, f"SELECT gin_clean_pending_list('{name}')") == 0  # a GIN index
    again = indexed(pool, NOON + HOUR)
    assert (again.indexed, again.is_complete) == ((), True)


def test_a_slice_follows_the_one_before(database_url: str) -> None:
    with pool_with(database_url, index_open_after="1h") as own:
        for hour in (3, 6, 9):
            write(own, TODAY + hour * HOUR)
            indexed(own, TODAY + (hour + 2) * HOUR)
        hours = [0, 4, 7, 10]
        assert slices(own) == [
            (TODAY + one * HOUR, TODAY + other * HOUR) for one, other in pairwise(hours)
        ]


def test_narrow_slices_are_replaced_by_a_wider_one(
    pool: StoragePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_slices, "_MOST_SLICES", 3)
    counts = []
    for hour in range(2, 24, 3):
        write(pool, TODAY + hour * HOUR)
        assert indexed(pool, TODAY + (hour + 1) * HOUR).is_complete
        found = slices(pool)
        assert found[0][0] == TODAY
        assert all(one[1] == other[0] for one, other in pairwise(found))
        assert found[-1][1] == TODAY + (hour + 1) * HOUR - timedelta(minutes=5)
        assert slices(pool, EVENTS) == slices(pool, LOGS) == found
        # Each slice has both indexes, and none is left of those that were replaced.
        assert len(stored(pool)) == 2 * 3 * len(found)
        counts.append(len(found))
    assert max(counts) == 3
    assert counts.count(3) < 4


def test_little_is_not_indexed(pool: StoragePool) -> None:
    write(pool, *(TODAY + n * HOUR for n in range(12)))
    assert index_open_partitions(Run(pool, NOON)) == IndexedSlices()
    assert stored(pool) == {}


@citus.not_there("the sizes of open partitions are not known")
def test_a_slice_has_a_part_of_its_partition(
    pool: StoragePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_slices, "_LEAST_BYTES", 1)
    monkeypatch.setattr(open_slices, "_LEAST_PART", 0.2)
    write(pool, *(TODAY + n * timedelta(seconds=1) for n in range(900)))
    write(pool, *(NOON + n * timedelta(seconds=1) for n in range(100)))
    for partition in (SPANS, EVENTS, LOGS):
        scalar(pool, f"SELECT count(*) FROM {partition}")
    assert index_open_partitions(Run(pool, TODAY + HOUR)).indexed
    assert not index_open_partitions(Run(pool, NOON + HOUR)).indexed
    write(pool, *(NOON + n * timedelta(seconds=1) for n in range(100, 400)))
    assert index_open_partitions(Run(pool, NOON + HOUR)).indexed


def test_what_is_closed_or_not_begun_or_has_all_indexes_is_left_alone(pool: StoragePool) -> None:
    write(pool, TODAY, TODAY + DAY + HOUR, TODAY + 3 * DAY)
    indexed(pool, TODAY + DAY + 2 * HOUR)
    assert {one[0] for one in stored(pool).values()} == {
        f"{table}_p{TODAY + DAY:%Y%m%d}" for table in TABLES
    }
    build_partition_indexes(pool, now=TODAY + DAY, grace=timedelta(0))
    assert not indexed(pool, TODAY + DAY).indexed


def test_a_partition_that_is_closed_keeps_the_indexes_of_the_whole_alone(
    pool: StoragePool,
) -> None:
    write(pool, *(TODAY + n * HOUR for n in range(20)))
    indexed(pool, NOON)
    indexed(pool, TODAY + DAY)
    indexes = "SELECT string_agg(relname, ' ' ORDER BY 1) FROM pg_class WHERE relkind IN ('i', 'I')"
    assert len(stored(pool)) == 12
    assert "_time_" in scalar(pool, indexes)
    assert set(close_partitions(Run(pool, OVER)).closed) >= {SPANS, EVENTS, LOGS}
    assert stored(pool) == {}
    assert f"ix_{EVENTS}_time_" not in scalar(pool, indexes)
    assert close_partitions(Run(pool, OVER)).renewed == ()
    assert not indexed(pool, OVER).indexed


@citus.not_there("partitions are not split")
def test_a_partition_with_slices_is_split(filled: StoragePool) -> None:
    before = scalar(filled, "SELECT count(*) FROM logs")
    assert [one.partition for one in indexed(filled, IN_MONTH).indexed] == ["logs_p202601"]
    assert [one.partition for one in split_partitions(Run(filled, IN_MONTH)).split] == [
        "logs_p202601"
    ]
    assert scalar(filled, "SELECT count(*) FROM logs") == before
    assert stored(filled) == {}


def test_a_partition_that_is_being_split_is_not_indexed(filled: StoragePool) -> None:
    whole = Range(FIRST, FIRST + 31 * DAY)
    begin(filled, Split("logs", "logs_p202601", (whole,)))
    assert not indexed(filled, IN_MONTH).indexed


def test_a_changed_definition_replaces_the_older_index(
    pool: StoragePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(pool, TODAY + HOUR)
    indexed(pool, NOON)
    before = stored(pool)
    changed = IndexKind("logs", "content", lambda c: [c.otlp], using="gin")
    kinds = [
        changed if (kind.table, kind.purpose) == ("logs", "content") else kind
        for kind in index_kinds.OF_SLICES
    ]
    monkeypatch.setattr(index_builder, "OF_SLICES", kinds)
    assert [one.partition for one in indexed(pool, NOON).indexed] == [LOGS]
    after = stored(pool)
    assert slices(pool, LOGS) == [(TODAY, NOON - timedelta(minutes=5))]
    (new,) = after.keys() - before.keys()
    (old,) = before.keys() - after.keys()
    assert new.rpartition("_")[0] == old.rpartition("_")[0]
    assert "otlp" in scalar(pool, f"SELECT pg_get_indexdef('{new}'::regclass)")


def test_an_index_of_somebody_else_stays(pool: StoragePool) -> None:
    write(pool, TODAY + HOUR)
    with pool.engine.begin() as connection:
        connection.exec_driver_sql(
            f"CREATE INDEX ix_mine_slice ON {SPANS} (name) WHERE start_time >= '2020-01-01Z'"
        )
    indexed(pool, NOON)
    close_partitions(Run(pool, OVER))
    assert scalar(pool, "SELECT to_regclass('ix_mine_slice') IS NOT NULL")


def test_a_build_holds_up_no_writer_and_is_tried_again(
    pool: StoragePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_slices, "_LOCK_TIMEOUT", "50ms")
    write(pool, TODAY + HOUR, TODAY + 2 * HOUR)
    with pool.engine.begin() as writing:
        writing.exec_driver_sql(f"LOCK TABLE {LOGS} IN ROW EXCLUSIVE MODE")
        result = indexed(pool, NOON)
        write(pool, TODAY + 3 * HOUR)
        assert {one.partition for one in result.indexed} == {SPANS, EVENTS}
        assert [one.partition for one in result.failed] == [LOGS]
        assert isinstance(result.failed[0].error, Conflict)
        assert not result.is_complete
        assert invalid(pool) == 1
    # The index that was left has the range of its time. It goes, whatever the time is now.
    assert indexed(pool, NOON + HOUR).is_complete
    assert invalid(pool) == 0
    assert slices(pool, LOGS) == [(TODAY, NOON + HOUR - timedelta(minutes=5))]


def test_a_writer_goes_on_while_a_build_waits_for_another_one(
    pool: StoragePool, postgres_server: Server
) -> None:
    write(pool, TODAY + HOUR)
    results: list[IndexedSlices] = []
    with pool.engine.begin() as writing:
        writing.exec_driver_sql(f"LOCK TABLE {LOGS} IN ROW EXCLUSIVE MODE")
        thread = threading.Thread(target=lambda: results.append(indexed(pool, NOON)))
        thread.start()
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE query ~ 'CONCURRENTLY'"
        is_waiting = f"{waiting} AND wait_event_type = 'Lock' AND datname = current_database()"
        eventually(lambda: bool(scalar(pool, is_waiting)))
        with pool.engine.begin() as connection:
            connection.exec_driver_sql("SET LOCAL lock_timeout = '1s'")
            CopyWriter(pool).write_logs([a_log(77, TODAY + 3 * HOUR)])
    thread.join()
    assert results[0].is_complete


def test_no_build_begins_beside_a_long_transaction_with_a_snapshot(
    pool: StoragePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(pool, TODAY + HOUR)
    is_held_up = str(open_slices._IS_HELD_UP).replace("'1 min'", "'0 s'")
    monkeypatch.setattr(open_slices, "_IS_HELD_UP", sa.text(is_held_up))
    isolated = pool.engine.execution_options(isolation_level="REPEATABLE READ")
    with isolated.begin() as reading:
        reading.exec_driver_sql("SELECT 1")
        assert indexed(pool, NOON) == IndexedSlices()
    assert indexed(pool, NOON).indexed


def test_only_one_process_builds(pool: StoragePool) -> None:
    write(pool, TODAY + HOUR)
    key = advisory_key("indexes", pool.schema)
    with pool.engine.begin() as connection:
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(key)))
        assert indexed(pool, NOON) == IndexedSlices(is_complete=False)
    assert indexed(pool, NOON).indexed


def test_nothing_begins_after_the_deadline(pool: StoragePool) -> None:
    write(pool, TODAY + HOUR)
    with few_are_enough():
        result = index_open_partitions(Run(pool, NOON, Deadline(0)))
    assert result == IndexedSlices(is_complete=False)
    assert stored(pool) == {}


def _index_at_noon(url: str, *, killed_at: int = 0) -> int:
    """Index until all is done, killed at a statement; how many statements there were."""
    count = 0

    def note(*_: Any) -> None:
        nonlocal count
        count += 1
        if count == killed_at:
            os.kill(os.getpid(), signal.SIGKILL)

    with quick_pool(url) as pool:
        sa.event.listen(pool.engine, "before_cursor_execute", note)
        # The server may not have noticed yet that a killed process has gone.
        eventually(lambda: indexed(pool, NOON).is_complete)
    return count


def test_the_end_is_the_same_after_kills(
    postgres_server: Server, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_slices, "_MOST_SLICES", 2)
    with quick_pool(database_url) as pool:
        for hour in (4, 8, 11):
            write(pool, TODAY + hour * HOUR, TODAY + (hour - 1) * HOUR)
            if hour < 11:
                indexed(pool, TODAY + (hour + 1) * HOUR)
        before = stored(pool)
    template = str(conninfo_to_dict(database_url)["dbname"])
    with postgres_server.database(template) as undisturbed:
        count = _index_at_noon(undisturbed)
        with quick_pool(undisturbed) as pool:
            expected = stored(pool)
    assert len(before) == 2 * len(expected) == 12
    with postgres_server.database(template) as disturbed:
        for statement in range(4, count, count // 8):
            work = partial(_index_at_noon, disturbed, killed_at=statement)
            _, status = os.waitpid(fork(work), 0)
            assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
        _index_at_noon(disturbed)
        with quick_pool(disturbed) as pool:
            assert stored(pool) == expected
            assert invalid(pool) == 0
