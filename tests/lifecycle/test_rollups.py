"""Rollups are kept up to date, whoever writes, refreshes, drops or expires at the same time."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from observatory_storage import (
    CopyWriter,
    Exists,
    LogWriter,
    TraceSpan,
    TraceWriter,
    ValidationError,
    ingest_traces,
)
from observatory_storage.changed_spans import ranges_of
from observatory_storage.lifecycle.rollup_expiry import expire_rollups
from observatory_storage.lifecycle.rollups import (
    keep_rollups_before,
    rebuild_rollups,
    refresh_rollups,
)
from observatory_storage.lifecycle.run import Deadline, Run
from observatory_storage.llm.token_details import TOKEN_DETAILS
from observatory_storage.models.rollup_tables import TOKEN_DETAIL_SUMS
from observatory_storage.pool import StoragePool
from tests.lifecycle.rolled import check_answers, refresh, rollups
from tests.writers.helpers import Row, contents, trace_id

DAY = datetime(2026, 3, 14, tzinfo=UTC)
LATER = DAY + timedelta(days=3)
HOUR = timedelta(hours=1)


def a_span(number: int, start: datetime = DAY, **columns: Any) -> Row:
    return {
        "trace_id": trace_id(number),
        "span_id": f"{number:016x}",
        "name": "chat",
        "service_name": "shop",
        "start_time": start,
        "duration_us": 1000 * number,
        "model": "gpt-4o",
        "total_tokens": 10,
        "total_cost_usd": Decimal("0.01"),
        "user_id": "ada",
        "session_id": "s1",
        **columns,
    }


def write(pool: StoragePool, *rows: Row) -> None:
    CopyWriter(pool).write_spans(rows)


def marks(pool: StoragePool) -> list[str]:
    return contents(pool)["span_changes"]


def tokens(pool: StoragePool, **arguments: Any) -> tuple[int | None, str]:
    with pool.unit_of_work() as uow:
        (row,) = uow.metrics.get_cost_summary(group_by=(), **arguments)
        return row.total_tokens, row.source


def test_nothing_is_marked_before_rollups_are_kept(pool: StoragePool) -> None:
    write(pool, a_span(1))
    assert marks(pool) == []
    assert tokens(pool) == (10, "raw")
    refresh(pool, LATER)
    assert marks(pool) == []
    assert tokens(pool) == (10, "rollup")
    assert tokens(pool, source="raw") == (10, "raw")


def by_trace_writer(pool: StoragePool, rows: list[Row]) -> None:
    with TraceWriter(pool) as writer:
        writer.write_spans(rows)


def by_session(pool: StoragePool, rows: list[Row]) -> None:
    with pool.unit_of_work() as uow:
        CopyWriter(uow).write_spans(rows)
        uow.commit()


def by_otlp(pool: StoragePool, rows: list[Row]) -> None:
    spans = [
        {
            "traceId": row["trace_id"],
            "spanId": row["span_id"],
            "name": row["name"],
            "startTimeUnixNano": str(int(row["start_time"].timestamp()) * 10**9),
            "endTimeUnixNano": str(int(row["start_time"].timestamp() + 1) * 10**9),
            "attributes": [
                {"key": "gen_ai.usage.input_tokens", "value": {"intValue": "10"}},
            ],
        }
        for row in rows
    ]
    request = {"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}
    assert ingest_traces(pool, request).accepted == len(rows)


def one_by_one(pool: StoragePool, rows: list[Row]) -> None:
    for row in rows:
        write(pool, row)


WAYS: dict[str, Callable[[StoragePool, list[Row]], object]] = {
    "trace writer": by_trace_writer,
    "stream": lambda pool, rows: write(pool, *rows),
    "one by one": one_by_one,
    "insert": lambda pool, rows: CopyWriter(pool, method="insert").write_spans(rows),
    "unit of work": by_session,
    "OTLP": by_otlp,
}


@pytest.mark.parametrize("way", WAYS)
def test_whoever_writes_spans_marks_their_time(pool: StoragePool, way: str) -> None:
    write(pool, a_span(500))
    refresh(pool, LATER)
    rows = [a_span(n, DAY + timedelta(seconds=n)) for n in range(1, 120 if way == "stream" else 9)]
    WAYS[way](pool, rows)
    assert marks(pool)
    assert tokens(pool) == (10 * len(rows) + 10, "raw")  # the whole day is marked, and short
    refresh(pool, LATER)
    assert tokens(pool) == (10 * len(rows) + 10, "rollup")
    WAYS[way](pool, rows)  # again, which changes nothing
    assert marks(pool) == []


def test_changes_of_stored_spans_are_marked(pool: StoragePool) -> None:
    call: Row = {"response_id": "r", "prompt_tokens": 10, "total_tokens": 10}
    write(pool, a_span(1, **call))
    write(pool, a_span(2, DAY + HOUR, **call))
    refresh(pool, LATER)
    assert tokens(pool) == (20, "rollup")
    assert pool.settle_usage().changed_traces == 1
    refresh(pool, LATER)
    assert tokens(pool) == (10, "rollup")
    with pool.engine.begin() as connection:
        connection.execute(sa.update(TraceSpan).values(attributes={"gen_ai.request.model": "o3"}))
    assert pool.refresh_facts().changed_spans == 2
    refresh(pool, LATER)
    with pool.unit_of_work() as uow:
        assert {row.model for row in uow.metrics.get_cost_summary()} == {"o3"}
        check_answers(uow, None, None)


def test_a_log_record_that_fills_a_span_marks_it(pool: StoragePool) -> None:
    write(pool, a_span(1, user_id=None, session_id=None, scope_name="gcp.vertex.agent"))
    refresh(pool, LATER)
    with LogWriter(pool) as writer:
        writer.write_log(
            {
                "timestamp": DAY,
                "service_name": "shop",
                "trace_id": trace_id(1),
                "span_id": f"{1:016x}",
                "event_name": "gen_ai.client.inference.operation.details",
                "attributes": {"user.id": "ada"},
            }
        )
    with pool.unit_of_work() as uow:
        assert [row.user_id for row in uow.metrics.get_user_usage()] == ["ada"]
    refresh(pool, LATER)
    with pool.unit_of_work() as uow:
        assert [row.source for row in uow.metrics.get_user_usage()] == ["rollup"]


def test_spans_of_an_open_transaction_are_counted_after_its_commit(pool: StoragePool) -> None:
    write(pool, a_span(1))
    refresh(pool, LATER)
    with pool.unit_of_work() as uow:
        CopyWriter(uow).write_spans([a_span(2)])
        refresh(pool, LATER)
        assert tokens(pool) == (10, "rollup")
        uow.commit()
    assert tokens(pool) == (20, "raw")
    refresh(pool, LATER)
    assert tokens(pool) == (20, "rollup")


def test_rollups_begin_only_while_nobody_is_writing(pool: StoragePool) -> None:
    with ThreadPoolExecutor(1) as thread:
        with pool.unit_of_work() as uow:
            CopyWriter(uow).write_spans([a_span(1)])
            refreshing = thread.submit(refresh, pool, LATER)
            with pytest.raises(TimeoutError):
                refreshing.result(timeout=0.5)
            uow.commit()
        refreshing.result()
    assert tokens(pool) == (10, "rollup")


def test_only_minutes_that_are_over_are_computed(pool: StoragePool) -> None:
    write(pool, *(a_span(n, DAY + timedelta(seconds=20 * n)) for n in range(1, 10)))
    now = DAY + timedelta(minutes=4)
    done = refresh_rollups(Run(pool, now=now))
    assert (done.minutes, done.hours, done.days) == (2, 0, 0)
    assert tokens(pool) == (90, "both")
    write(pool, a_span(10, DAY + timedelta(seconds=30)))  # a late one
    with pool.unit_of_work() as uow:
        assert check_answers(uow, None, None) == {"raw", "both"}
        bounds = DAY + timedelta(seconds=25), DAY + timedelta(minutes=2, seconds=10)
        check_answers(uow, *bounds)
    assert refresh_rollups(Run(pool, now=now)).minutes == 1


def test_spans_of_a_far_future_are_computed_at_once(pool: StoragePool) -> None:
    last = datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
    write(pool, a_span(1), a_span(2, datetime(2093, 1, 1, tzinfo=UTC)))
    write(pool, a_span(3, last, duration_us=None))
    write(pool, a_span(4, datetime(1, 1, 1, tzinfo=UTC)))
    assert refresh_rollups(Run(pool, now=LATER)).is_complete
    with pool.unit_of_work() as uow:
        check_answers(uow, None, datetime(9999, 1, 1, tzinfo=UTC))


def test_two_refreshes_at_once_compute_everything_once(pool: StoragePool) -> None:
    refresh(pool, LATER)
    write(pool, *(a_span(n, DAY + timedelta(minutes=7 * n)) for n in range(1, 200)))
    with ThreadPoolExecutor(3) as threads:
        runs = [threads.submit(refresh, pool, LATER) for _ in range(3)]
        late = [a_span(n, DAY + timedelta(minutes=7 * n)) for n in range(200, 240)]
        for row in late:
            write(pool, row)
        for run in runs:
            run.result()
    refresh(pool, LATER)
    assert tokens(pool) == (2390, "rollup")
    kept = rollups(pool)
    rebuild_rollups(pool)
    assert rollups(pool) == kept


KILLED = """
import os, signal, sys
from datetime import datetime, timedelta
import sqlalchemy as sa
from observatory_storage import PostgresConfig, StorageConfig, StoragePool
from observatory_storage.lifecycle.rollups import refresh_rollups
from observatory_storage.lifecycle.run import Run
left = int(sys.argv[2])
with StoragePool(StorageConfig(postgres=PostgresConfig.from_url(sys.argv[1]))) as pool:
    @sa.event.listens_for(pool.engine, "before_cursor_execute")
    def count(*_):
        global left
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
    refresh_rollups(Run(pool, now=datetime.fromisoformat(sys.argv[3])))
"""


@pytest.mark.parametrize("statements", [7, 16, 40])
def test_a_killed_refresh_is_completed_by_the_next(
    pool: StoragePool, database_url: str, statements: int
) -> None:
    write(pool, *(a_span(n, DAY + timedelta(minutes=50 * n)) for n in range(1, 40)))
    arguments = [database_url, str(statements), LATER.isoformat()]
    killed = subprocess.run([sys.executable, "-c", KILLED, *arguments], check=False, timeout=60)
    assert killed.returncode == -9
    with pool.unit_of_work() as uow:
        check_answers(uow, None, None)
    refresh(pool, LATER)
    assert tokens(pool) == (390, "rollup")
    kept = rollups(pool)
    rebuild_rollups(pool)
    assert rollups(pool) == kept


def test_a_run_without_time_does_nothing(pool: StoragePool) -> None:
    write(pool, a_span(1))
    done = refresh_rollups(Run(pool, now=LATER, deadline=Deadline(0)))
    assert (done.minutes, done.is_complete) == (0, False)
    assert tokens(pool) == (10, "raw")
    assert not expire_rollups(Run(pool, now=LATER, deadline=Deadline(0))).is_complete


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


def test_a_rebuild_may_be_bounded(pool: StoragePool) -> None:
    refresh(pool, LATER)
    write(pool, a_span(1), a_span(2, DAY + timedelta(days=1)))
    refresh(pool, LATER)
    with pool.engine.begin() as connection:  # behind the back of the rollups
        connection.execute(sa.update(TraceSpan).values(total_tokens=7))
    done = rebuild_rollups(pool, DAY + timedelta(hours=20), DAY + timedelta(days=1, minutes=1))
    assert (done.minutes, done.hours, done.days) == (1, 1, 1)
    assert tokens(pool) == (17, "rollup")
    assert rebuild_rollups(pool, DAY, DAY).minutes == 0
    with pytest.raises(ValidationError, match="must not be before start"):
        rebuild_rollups(pool, LATER, DAY)
    with pytest.raises(ValidationError, match="must be a datetime with a time zone"):
        rebuild_rollups(pool, DAY.replace(tzinfo=None))


def test_users_sessions_and_errors_are_told(pool: StoragePool) -> None:
    write(
        pool,
        a_span(1, status="error", error_type="Timeout"),
        a_span(2, DAY + HOUR, status="error", error_type="Timeout", user_id="bob"),
        a_span(3, DAY + timedelta(days=1), session_id=None, total_cost_usd=None),
        a_span(4, user_id=None),
    )
    for _ in range(2):
        with pool.unit_of_work() as uow:
            (error,) = uow.metrics.get_error_summary(service_name="shop")
            assert (error.span_count, error.user_count, error.session_count) == (2, 2, 1)
            assert (error.first_seen, error.last_seen) == (DAY, DAY + HOUR)
            assert (error.error_type, error.span_id) == ("Timeout", f"{2:016x}")
            ada, bob = uow.metrics.get_user_usage()
            assert (ada.user_id, ada.span_count, ada.error_count) == ("ada", 2, 1)
            assert (ada.total_tokens, ada.total_cost_usd, ada.unpriced_span_count) == (
                *(20, Decimal("0.01")),
                1,
            )
            assert [ada] == uow.metrics.get_user_usage("ada")
            assert [ada] == uow.metrics.get_user_usage(Exists(), limit=1)
            assert (bob.user_id, bob.error_count) == ("bob", 1)
            days = uow.metrics.get_active_users()
            assert [(day.user_count, day.session_count) for day in days] == [(2, 1), (1, 0)]
            assert {error.source, ada.source, bob.source, days[0].source} <= {"raw", "rollup"}
        refresh(pool, LATER)
    with pool.unit_of_work() as uow, pytest.raises(ValidationError, match="must be one of auto"):
        uow.metrics.get_user_usage(source="rollup")  # type: ignore[arg-type]


def test_marks_are_few_and_cover_their_spans() -> None:
    def ranges(*minutes: float) -> list[tuple[float, float]]:
        found = ranges_of([DAY + timedelta(minutes=each) for each in minutes])
        return [tuple((each - DAY) / timedelta(minutes=1) for each in one) for one in found]  # type: ignore[misc]

    assert ranges(3, 1, 59) == [(1, 59)]
    assert ranges(0, 90, 92, 400) == [(0, 0), (90, 92), (400, 400)]
    many = [each * 90 for each in range(1000)]
    assert len(ranges(*many)) <= 64
    assert all(any(a <= each <= b for a, b in ranges(*many)) for each in many)


def test_rollups_add_up_each_detail_of_tokens() -> None:
    assert {*TOKEN_DETAIL_SUMS} == TOKEN_DETAILS.keys()


def test_refreshing_does_not_depend_on_the_time_zone(pool: StoragePool) -> None:
    write(pool, a_span(1, DAY.astimezone(timezone(timedelta(hours=5, minutes=30)))))
    with pool.engine.begin() as connection:
        connection.exec_driver_sql("SET timezone = 'Asia/Kolkata'")
    refresh(pool, LATER)
    with pool.unit_of_work() as uow:
        (row,) = uow.metrics.get_cost_summary(bucket_size_secs="day")
        assert row.timestamp == DAY
