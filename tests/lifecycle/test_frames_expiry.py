"""Payload frames go and stay with the spans and events that refer to them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
import sqlalchemy as sa

from observatory_storage.lifecycle import partition_rewriting, retention
from observatory_storage.lifecycle.partition_removal import recover
from observatory_storage.lifecycle.retention_plan import total_bytes
from observatory_storage.lifecycle.run import Run
from observatory_storage.lifecycle.short_locks import with_short_locks
from observatory_storage.lifecycle.splitting import split_partitions
from observatory_storage.models import PayloadFrame, TraceSpan
from observatory_storage.pool import StoragePool
from observatory_storage.storing import Source
from tests import citus
from tests.lifecycle.days import DAY, HOUR, noon, oddities, partitions, retain, traces_in
from tests.lifecycle.full_month import DAYS, FIRST, Ending, make_month
from tests.lifecycle.full_month import NOW as MONTH_NOW
from tests.lifecycle.pools import pool_with, ranges
from tests.lifecycle.test_late_spans import before
from tests.payloads.framed import a_turn, frame_count, write
from tests.payloads.invariants import check_payloads, whole_rows
from tests.writers.helpers import trace_id

MINUTE = timedelta(minutes=1)


def pin(pool: StoragePool, *traces: int) -> None:
    with pool.unit_of_work() as work:
        for trace in traces:
            work.traces.pin(trace_id(trace))
        work.commit()


def check(pool: StoragePool, url: str) -> int:
    assert oddities(url) == {}
    return check_payloads(pool)


def test_frames_go_with_their_partition(pool: StoragePool, database_url: str) -> None:
    write(pool, [a_turn(1, 1, noon(10)), a_turn(2, 1, noon(1))])
    assert len(partitions(database_url, "payload_frames")) == 2
    result = retain(pool, traces="3d")
    assert {one.table for one in result.partitions} == {
        "trace_spans",
        "trace_events",
        "payload_frames",
    }
    assert [one.outcome for one in result.partitions] == ["dropped"] * 3
    assert check(pool, database_url) == 3
    assert traces_in(pool) == {2}
    assert len(partitions(database_url, "payload_frames")) == 1


def test_spared_traces_keep_their_frames(pool: StoragePool, database_url: str) -> None:
    midnight = noon(3).replace(hour=0)
    write(
        pool,
        [a_turn(1, 1, noon(10)), a_turn(2, 1, noon(10)), a_turn(3, 1, midnight - HOUR)],
        [a_turn(1, 2, noon(10) + 2 * HOUR), a_turn(3, 2, midnight + HOUR)],
    )
    pin(pool, 1)
    rows = [row for row in whole_rows(pool)["trace_spans"] if row[2]["user_id"] != "user-2"]
    result = retain(pool, traces="3d")
    kept = {one.table: one.kept_rows for one in result.partitions if one.upper < noon(9)}
    assert kept == {"trace_spans": 2, "trace_events": 2, "payload_frames": 2}
    assert check(pool, database_url) == 4 * 3
    assert whole_rows(pool)["trace_spans"] == rows
    assert retain(pool, traces="3d").partitions == ()
    with pool.unit_of_work() as work:
        work.traces.unpin(trace_id(1))
        work.commit()
    retain(pool, traces="3d")
    assert traces_in(pool) == {3}
    assert check(pool, database_url) == 2 * 3


def test_values_of_expired_spans_leave_a_frame_that_stays(
    pool: StoragePool, database_url: str
) -> None:
    """A late span has made the trace anew, so some of its earlier spans go and others stay."""
    write(pool, [a_turn(1, 1, noon(10) + n * MINUTE) for n in (5, 40)])
    with pool.engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM traces"))  # as the first part of a run does
    write(pool, [a_turn(1, 2, noon(10) + n * MINUTE) for n in (20, 50)])
    pin(pool, 1)
    with pool.engine.connect() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(TraceSpan)) == 4
    retain(pool, traces="3d")
    with pool.unit_of_work() as work:
        assert len(work.traces.get_spans(trace_id(1))) == 3
    assert check(pool, database_url) == 3 * 3
    assert frame_count(pool) == 2


def test_frames_of_late_spans_are_put_back(
    pool: StoragePool, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(pool, [a_turn(1, n, noon(10) + n * MINUTE) for n in (1, 2, 3)])
    again = [a_turn(1, n, noon(10) + n * MINUTE) for n in (2, 3)]
    with before(monkeypatch, retention, "remove", lambda: write(pool, again)) as called:
        retain(pool, traces="3d")
    assert called
    with pool.unit_of_work() as work:
        assert len(work.traces.get_spans(trace_id(1))) == 2
    assert check(pool, database_url) == 2 * 3
    retain(pool, traces="3d")
    assert frame_count(pool) == 0


def test_what_changes_while_frames_are_copied_is_copied_too(
    pool: StoragePool, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(pool, [a_turn(n, turn, noon(10)) for n in (1, 2) for turn in (1, 2)])
    pin(pool, 1, 2)
    swaps: list[str] = []

    def change() -> None:
        swaps.append("")
        write(pool, [a_turn(1, 2, noon(10), version=len(swaps)), a_turn(3, 1, noon(10))])
        with pool.unit_of_work() as work:
            if len(swaps) == 3:
                work.traces.delete(trace_id(2))
            work.commit()

    def changing(source: Source, swap: Callable[[sa.Connection], int]) -> int:
        change()
        return with_short_locks(source, swap)

    monkeypatch.setattr(partition_rewriting, "with_short_locks", changing)
    retain(pool, traces="3d")
    assert len(swaps) == 3
    check_payloads(pool)
    assert traces_in(pool) == {1, 3}


def test_frames_count_in_the_size_that_is_kept(pool: StoragePool) -> None:
    write(pool, [a_turn(1, n, noon(10)) for n in range(1, 9)])
    before_frames = total_bytes(pool)
    with pool.engine.begin() as connection:
        connection.execute(sa.text("TRUNCATE payload_frames"))
    assert total_bytes(pool) < before_frames


@citus.not_there("partitions are not split")
def test_three_tables_are_split_alike_and_look_ups_stay_right(database_url: str) -> None:
    tables = ("trace_spans", "trace_events", "payload_frames")
    with pool_with(database_url, split_rows=50) as pool:
        make_month(pool, *tables)
        write(pool, [a_turn(n, 1, FIRST + n * 6 * HOUR) for n in range(1, 80)])
        rows = whole_rows(pool)
        for done in range(1, 4):
            split = split_partitions(Run(pool, MONTH_NOW, Ending(3)))
            assert (len(split.split), split.is_complete) == (1, done == 3), split
            assert check_payloads(pool) == 79 * 3
            assert whole_rows(pool) == rows
        assert all(list(ranges(pool, table)) == DAYS for table in tables)


def test_frames_at_the_bound_of_a_partition_within_their_hour_stay(
    pool: StoragePool, database_url: str
) -> None:
    """Another program has made partitions that begin within an hour."""
    day = noon(10).replace(hour=0)
    half = noon(10) + 30 * MINUTE
    with pool.engine.begin() as connection:
        for table in ("trace_spans", "trace_events", "payload_frames"):
            for name, first, last in (("a", day, half), ("b", half, day + DAY)):
                connection.execute(
                    sa.text(
                        f"CREATE TABLE {table}_{name} PARTITION OF {table}"
                        f" FOR VALUES FROM ('{first:%Y-%m-%d %H\\:%M}+00')"
                        f" TO ('{last:%Y-%m-%d %H\\:%M}+00')"
                    )
                )
    write(pool, [a_turn(1, 1, half + MINUTE), a_turn(2, 1, day)])
    with pool.engine.connect() as connection:
        hours = connection.scalars(sa.select(PayloadFrame.start_time)).all()
    assert noon(10) in hours
    retain(pool, now=half + 3 * DAY, traces="3d")
    assert traces_in(pool) == {1}
    assert check(pool, database_url) == 3


def test_nothing_is_left_to_recover(pool: StoragePool, database_url: str) -> None:
    write(pool, [a_turn(1, 1, noon(10)), a_turn(2, 1, noon(10))])
    pin(pool, 1)
    retain(pool, traces="3d")
    recover(Run(pool))
    assert check(pool, database_url) == 3
