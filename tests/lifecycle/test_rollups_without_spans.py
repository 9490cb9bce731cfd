"""What rollups keep when their spans or finer rollups are dropped, expire or are deleted."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from observatory_storage import TraceSpan, ValidationError
from observatory_storage.lifecycle.rollup_expiry import expire_rollups
from observatory_storage.lifecycle.rollups import keep_rollups_before, rebuild_rollups
from observatory_storage.lifecycle.run import Run
from observatory_storage.pool import StoragePool
from tests.lifecycle.rolled import (
    DAY,
    HOUR,
    LATER,
    a_span,
    check_answers,
    refresh,
    rollups,
    tokens,
    write,
)


def drop_spans(pool: StoragePool, before: datetime) -> None:
    with pool.engine.begin() as connection:
        assert keep_rollups_before(connection, before)
    with pool.engine.begin() as connection:
        connection.execute(sa.delete(TraceSpan).where(TraceSpan.start_time < before))


def test_rollups_stay_when_their_spans_are_dropped(pool: StoragePool) -> None:
    rows = [a_span(n, DAY + timedelta(hours=5 * n), status="error") for n in range(10)][1:]
    write(pool, *rows)
    refresh(pool, LATER)
    with pool.unit_of_work() as uow:
        costs = uow.metrics.get_cost_summary(bucket_size_secs="day")
        usage = uow.metrics.get_user_usage(bucket_size_secs=3600)
        errors = uow.metrics.get_error_summary()
        latency = uow.metrics.get_latency_percentiles(bucket_size_secs=300)
    write(pool, a_span(20, DAY + HOUR))
    with pool.engine.begin() as connection:
        assert not keep_rollups_before(connection, DAY + timedelta(days=1))
        assert keep_rollups_before(connection, DAY + timedelta(days=1), even_if_stale=True)
    with pool.engine.begin() as connection:
        connection.execute(
            sa.delete(TraceSpan).where(TraceSpan.start_time < DAY + timedelta(days=1))
        )
    write(pool, a_span(21, DAY + 2 * HOUR), a_span(22, DAY + timedelta(days=1, hours=2)))
    for _ in range(2):
        refresh(pool, LATER)
        rebuild_rollups(pool)
    late = a_span(22, DAY + timedelta(days=1, hours=2))["start_time"]
    with pool.unit_of_work() as uow:
        (first, second) = uow.metrics.get_cost_summary(bucket_size_secs="day")
        assert (first.total_tokens, first.source) == (40, "rollup")
        assert (second.total_tokens, second.source) == (60, "rollup")
        assert costs[0] == first
        assert uow.metrics.get_user_usage(bucket_size_secs=3600, end_time=late) == [
            row for row in usage if row.timestamp is not None and row.timestamp < late
        ]
        assert uow.metrics.get_error_summary() == errors
        assert latency[0] in uow.metrics.get_latency_percentiles(bucket_size_secs=300)
        # Where only the hour is known, the range is widened to it; here the minute is.
        start = DAY + timedelta(hours=5, seconds=10)
        (found,) = uow.metrics.get_cost_summary(start, DAY + 6 * HOUR, group_by=())
        assert found.total_tokens == 10


def test_rollups_expire_by_unit_and_late_spans_are_still_counted(pool: StoragePool) -> None:
    write(pool, *(a_span(n, DAY + timedelta(hours=n, minutes=n)) for n in range(1, 60)))
    refresh(pool, LATER)
    now = DAY + timedelta(days=10)
    assert expire_rollups(Run(pool, now=now), hour=None, day=None).minutes == 47
    assert expire_rollups(Run(pool, now=now)).minutes == 0
    with pool.unit_of_work() as uow:
        check_answers(
            uow, DAY + timedelta(hours=3, seconds=1), DAY + timedelta(hours=40, seconds=9)
        )
    write(pool, a_span(70, DAY + timedelta(hours=3, minutes=30)))
    refresh(pool, now)
    with pool.unit_of_work() as uow:
        check_answers(uow, None, None)
    assert tokens(pool) == (600, "rollup")
    expired = expire_rollups(
        Run(pool, now=now), minute=timedelta(0), hour=timedelta(days=9), day=timedelta(days=9)
    )
    assert (expired.hours > 0, expired.days > 0, expired.is_complete) == (True, True, True)
    write(pool, a_span(71, DAY + timedelta(hours=4)))
    refresh(pool, now)
    assert tokens(pool) == (610, "both")  # the day that has expired is read from its spans
    with pytest.raises(ValidationError, match=r"hour=.*must not be negative"):
        expire_rollups(Run(pool, now=now), hour=timedelta(days=-1))


def test_deletions_reach_rollups_whose_minutes_have_expired(pool: StoragePool) -> None:
    rows = [a_span(n, DAY + timedelta(hours=n)) for n in (1, 2, 3)]
    write(pool, *rows)
    now = DAY + timedelta(days=20)
    refresh(pool, now)
    assert expire_rollups(Run(pool, now=now)).minutes == 3
    for left in (rows[1:], rows[2:], []):
        gone = rows[2 - len(left)]
        with pool.unit_of_work() as uow:
            uow.traces.delete(gone["trace_id"])
            uow.commit()
        refresh(pool, now)
        with pool.unit_of_work() as uow:
            check_answers(uow, None, None)
    assert not any(rollups(pool).values())


def test_a_day_of_which_a_part_was_dropped_is_refreshed_once(pool: StoragePool) -> None:
    write(pool, *(a_span(n, DAY + timedelta(hours=n)) for n in range(1, 10)))
    refresh(pool, LATER)
    with pool.engine.begin() as connection:
        assert keep_rollups_before(connection, DAY + timedelta(hours=4))
    write(pool, a_span(20, DAY + timedelta(hours=6)))
    refresh(pool, LATER)
    assert tokens(pool) == (100, "rollup")


def test_half_hour_zones_lose_nothing_of_dropped_spans(pool: StoragePool) -> None:
    write(pool, *(a_span(n, DAY + timedelta(hours=n)) for n in range(1, 49)))
    now = DAY + timedelta(days=20)
    refresh(pool, now)
    expire_rollups(Run(pool, now=now))
    with pool.engine.begin() as connection:
        assert keep_rollups_before(connection, DAY + timedelta(days=10))
        connection.execute(sa.delete(TraceSpan))
    for end in (None, now):
        with pool.unit_of_work() as uow:
            days = uow.metrics.get_cost_summary(
                DAY, end, group_by=(), bucket_size_secs="day", time_zone="Asia/Kolkata"
            )
        assert sum(day.span_count for day in days) == 48
        assert {day.source for day in days} == {"rollup"}


def test_a_question_is_asked_again_if_maintenance_removes_its_rollups_meanwhile(
    pool: StoragePool,
) -> None:
    write(pool, *(a_span(n, DAY + timedelta(minutes=n)) for n in range(1, 41)))
    refresh(pool, LATER)
    left = [Run(pool, now=DAY + timedelta(days=20))]

    def expire(*arguments: Any) -> None:
        if "span_rollups_minute" in arguments[2] and left:
            expire_rollups(left.pop())

    sa.event.listen(pool.engine, "before_cursor_execute", expire)
    try:
        with pool.unit_of_work() as uow:
            found = uow.metrics.get_latency_percentiles(service_name="shop", bucket_size_secs=60)
    finally:
        sa.event.remove(pool.engine, "before_cursor_execute", expire)
    assert left == []
    assert sum(minute.span_count for minute in found) == 40


def test_an_erased_user_is_erased_from_rollups(pool: StoragePool) -> None:
    write(pool, a_span(1), a_span(2, user_id="bob", session_id="s2"))
    write(pool, a_span(3, DAY + timedelta(days=1)))
    refresh(pool, LATER)
    drop_spans(pool, DAY + timedelta(days=1))
    with pool.unit_of_work() as uow:
        uow.traces.delete_user("ada")
        uow.commit()
    for _ in range(2):
        with pool.unit_of_work() as uow:
            assert [row.user_id for row in uow.metrics.get_user_usage()] == ["bob"]
            assert [row.session_count for row in uow.metrics.get_active_users()] == [1]
        refresh(pool, LATER)
    assert not [row for name, rows in rollups(pool).items() for row in rows if "ada" in row]
