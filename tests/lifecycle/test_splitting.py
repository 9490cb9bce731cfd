"""Splitting partitions: no row is lost, doubled or changed, whatever happens meanwhile."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa

from observatory_storage.lifecycle import split_copy, splitting
from observatory_storage.lifecycle.closing import close_partitions
from observatory_storage.lifecycle.run import Run
from observatory_storage.lifecycle.split_plan import MOST_RANGES
from observatory_storage.lifecycle.splitting import split_partitions
from observatory_storage.pool import StoragePool
from observatory_storage.writers import CopyWriter
from tests import citus
from tests.lifecycle.full_month import (
    DAY,
    DAYS,
    FIRST,
    HOUR,
    MAX,
    MIN,
    NOW,
    Ending,
    logs,
    make_month,
    rows_in_place,
    tables,
)
from tests.lifecycle.pools import pool_with, ranges, scalar
from tests.writers.helpers import a_log, a_span, contents, count, event, fork, wait_for

pytestmark = citus.not_there("partitions are not split")


def test_a_month_that_has_filled_up_becomes_days(filled: StoragePool) -> None:
    before = contents(filled)
    lines: list[str] = []
    result = split_partitions(Run(filled, NOW, progress=lines.append))
    (done,) = result.split
    assert (done.partition, done.rows, result.is_complete) == ("logs_p202601", 200, True)
    assert list(ranges(filled, "logs")) == DAYS
    assert tables(filled) == {f"logs_{day}" for day in DAYS} == set(done.into)
    assert contents(filled) == {**before, "partition_splits": []}
    assert rows_in_place(filled, "logs", "timestamp")
    assert lines == ["split logs_p202601 into 31 partitions"]
    assert split_partitions(Run(filled, NOW)).split == ()
    # The new partitions are like any other: no check is left, and their indexes are attached.
    checks = "SELECT count(*) FROM pg_constraint WHERE conname = 'split_range'"
    assert scalar(filled, checks) == 0
    attached = (
        "SELECT count(*) FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid"
        " WHERE x.indrelid = 'logs_p20260105'::regclass AND NOT i.relispartition"
    )
    assert scalar(filled, attached) == 0


@pytest.mark.parametrize(
    ("settings", "now", "is_split"),
    [
        ({"split_rows": 199}, NOW, True),
        ({"split_rows": 200}, NOW, False),
        ({"split_rows": 1, "logs": "month"}, NOW, False),
        ({"split_rows": 1, "logs": "week"}, NOW, True),
        ({"split_rows": 1}, NOW - 300 * DAY, False),
        ({"split_rows": 1}, NOW + 300 * DAY, False),
    ],
)
def test_only_what_is_near_and_full_and_wide_is_split(
    filled: StoragePool,
    database_url: str,
    settings: dict[str, Any],
    now: datetime,
    *,
    is_split: bool,
) -> None:
    with pool_with(database_url, **settings) as pool:
        assert bool(split_partitions(Run(pool, now)).split) == is_split


def test_a_partition_that_is_closed_stays_as_it_is(filled: StoragePool) -> None:
    later = FIRST + 32 * DAY
    assert close_partitions(Run(filled, later)).closed == ("logs_p202601",)
    assert split_partitions(Run(filled, later)).split == ()


def test_hours_are_few_and_the_rest_is_coarse(filled: StoragePool, database_url: str) -> None:
    with pool_with(database_url, split_rows=50, logs="hour") as pool:
        before = contents(pool)["logs"]
        assert len(split_partitions(Run(pool, NOW)).split) == 1
        found = ranges(pool, "logs")
        assert len(found) <= MOST_RANGES + 4
        assert contents(pool)["logs"] == before
        assert rows_in_place(pool, "logs", "timestamp")


def test_absurd_times_make_few_partitions(database_url: str) -> None:
    times = [MIN, *(datetime(year, 5, 1, tzinfo=UTC) for year in range(2, 2000, 11))]
    times += [datetime(1970, 1, 1, tzinfo=UTC)] * 300
    times += [MAX, datetime(2554, 7, 21, 23, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)] * 40
    with pool_with(database_url, split_rows=100) as pool:
        CopyWriter(pool).write_logs([a_log(timestamp=time) for time in times])
        assert list(ranges(pool, "logs")) == ["past", "future"]
        close_partitions(Run(pool))
        before = contents(pool)["logs"]
        # Once more what is still coarse and full.
        for _ in range(3):
            assert split_partitions(Run(pool)).is_complete
        found = ranges(pool, "logs")
        assert "p1970" in found
        assert "p2554" in found
        assert {"p2100", "future9999"} <= set(found)
        assert len(found) <= 2 * MOST_RANGES
        assert contents(pool)["logs"] == before
        assert rows_in_place(pool, "logs", "timestamp")
        # All of the far past and future still has a partition, so that this makes none.
        others = [
            datetime(year, 2, 3, tzinfo=UTC)
            for year in (*range(1, 2000, 7), *range(2100, 9999, 40))
        ]
        CopyWriter(pool).write_logs([a_log(timestamp=time) for time in others])
        assert ranges(pool, "logs") == found


def test_spans_and_their_events_get_the_same_ranges(database_url: str) -> None:
    with pool_with(database_url, split_rows=50) as pool:
        make_month(pool, "trace_spans", "trace_events")
        spans = [
            a_span(
                n,
                n,
                start_time=FIRST + n * 6 * HOUR,
                end_time=None,
                events=[event("e")] * (n % 4 == 0),
            )
            for n in range(1, 80)
        ]
        CopyWriter(pool).write_spans(spans)
        before = contents(pool)
        assert len(split_partitions(Run(pool, NOW)).split) == 2
        assert list(ranges(pool, "trace_spans")) == list(ranges(pool, "trace_events")) == DAYS
        assert contents(pool) == before
        for table, column in (("trace_spans", "start_time"), ("trace_events", "span_start_time")):
            assert rows_in_place(pool, table, column)


def test_events_follow_spans_that_were_split_before_the_run_ended(database_url: str) -> None:
    with pool_with(database_url, split_rows=50) as pool:
        make_month(pool, "trace_spans", "trace_events")
        CopyWriter(pool).write_spans(
            [a_span(n, n, start_time=FIRST + n * 6 * HOUR, end_time=None) for n in range(1, 80)]
        )
        first = split_partitions(Run(pool, NOW, Ending(3)))
        assert (len(first.split), first.is_complete) == (1, False)
        second = split_partitions(Run(pool, NOW))
        assert [done.partition for done in second.split] == ["trace_events_p202601"]
        assert list(ranges(pool, "trace_spans")) == list(ranges(pool, "trace_events")) == DAYS


def test_what_writers_do_between_two_runs_is_not_lost(
    filled: StoragePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(split_copy, "_FIRST_BLOCKS", 1)
    monkeypatch.setattr(split_copy, "_MOST_BLOCKS", 1)
    monkeypatch.setattr(split_copy, "_BLOCKS_OF_CHANGES", 2)
    for round_, questions in enumerate((2, 2, 1), 1):
        with monkeypatch.context() as patch:
            # Otherwise a short run may end the split, where old transactions of other databases
            # have it copy as changes what it would copy before.
            patch.setattr(splitting, "_MOST_CHANGES", -1)
            assert not split_partitions(Run(filled, NOW, Ending(questions))).is_complete
        assert count(filled, "partition_splits") == 1
        with filled.engine.begin() as connection:
            for statement in (
                "UPDATE logs SET body = 'changed' || body WHERE id::text ~ '[05]$'",
                "UPDATE logs SET timestamp = timestamp + interval '3 days' WHERE id::text ~ '7$'"
                " AND timestamp < '2026-01-25'",
                "DELETE FROM logs WHERE id::text ~ '3$'",
            ):
                connection.exec_driver_sql(statement)
        CopyWriter(filled).write_logs(logs(1000 * round_, 30))
    before = contents(filled)["logs"]
    assert split_partitions(Run(filled, NOW)).is_complete
    assert list(ranges(filled, "logs")) == DAYS
    assert contents(filled)["logs"] == before
    assert rows_in_place(filled, "logs", "timestamp")


def test_rows_that_only_went_are_found_out(filled: StoragePool) -> None:
    assert not split_partitions(Run(filled, NOW, Ending(2))).is_complete
    with filled.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM logs WHERE id::text ~ '3$'")
    before = contents(filled)["logs"]
    assert split_partitions(Run(filled, NOW)).is_complete
    assert contents(filled)["logs"] == before


def test_a_partition_that_is_rewritten_meanwhile_is_copied_anew(filled: StoragePool) -> None:
    assert not split_partitions(Run(filled, NOW, Ending(2))).is_complete
    with filled.engine.connect() as connection:
        autocommit = connection.execution_options(isolation_level="AUTOCOMMIT")
        autocommit.exec_driver_sql("VACUUM FULL logs_p202601")
    before = contents(filled)["logs"]
    assert split_partitions(Run(filled, NOW)).is_complete
    assert contents(filled)["logs"] == before
    assert tables(filled) == {f"logs_{day}" for day in DAYS}


def test_a_migration_meanwhile_begins_the_split_anew(filled: StoragePool) -> None:
    assert not split_partitions(Run(filled, NOW, Ending(2))).is_complete
    with filled.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE logs ADD COLUMN shade text DEFAULT 'grey'")
        connection.exec_driver_sql("UPDATE logs SET shade = body WHERE id::text ~ '4$'")
        connection.exec_driver_sql("CREATE INDEX ON ONLY logs (shade)")
    shades = "SELECT string_agg(shade || body, ',' ORDER BY id) FROM logs"
    before = scalar(filled, shades)
    assert split_partitions(Run(filled, NOW)).is_complete
    assert scalar(filled, shades) == before
    assert tables(filled) == {f"logs_{day}" for day in DAYS}


def test_a_partition_that_was_dropped_meanwhile_leaves_nothing(filled: StoragePool) -> None:
    assert not split_partitions(Run(filled, NOW, Ending(2))).is_complete
    with filled.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE logs_p202601")
    filled.partitions.forget()
    CopyWriter(filled).write_logs([a_log(timestamp=FIRST)])
    held = ranges(filled, "logs")
    assert split_partitions(Run(filled, NOW)).split == ()
    assert ranges(filled, "logs") == held
    assert len(tables(filled)) == 1


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_run_that_is_killed_anywhere_is_completed_by_the_next(
    filled: StoragePool, database_url: str
) -> None:
    before = contents(filled)["logs"]

    def run_until(told: str) -> None:
        def die(*given: Any) -> None:
            if told in given[2]:
                os._exit(0)

        with pool_with(database_url, split_rows=50) as own:
            sa.event.listen(own.engine, "before_cursor_execute", die)
            split_partitions(Run(own, NOW))
        os._exit(1)  # it was to die

    for told in (
        "ADD CONSTRAINT",
        "INSERT INTO public.partition_splits",
        "NOT age(",
        "UPDATE public.partition_splits",
        "RETURNING xmax",
        "ANALYZE",
        "array_agg(m.ctid)",
        "LOCK TABLE ONLY public.logs IN",
        "DETACH PARTITION",
        "DROP CONSTRAINT",
        "DROP TABLE",
    ):
        if told == "RETURNING xmax":
            CopyWriter(filled).write_logs(logs(500, 20))
            before = contents(filled)["logs"]
        wait_for(fork(partial(run_until, told)))
        assert contents(filled)["logs"] == before
    assert list(ranges(filled, "logs")) == DAYS
    assert "logs_p202601" in tables(filled)
    assert split_partitions(Run(filled, NOW)).is_complete
    assert tables(filled) == {f"logs_{day}" for day in DAYS}
    assert count(filled, "partition_splits") == 0
