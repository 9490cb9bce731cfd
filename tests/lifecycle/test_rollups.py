"""Rollups are refreshed and rebuilt from spans, whoever writes or refreshes at the same time."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
import sqlalchemy as sa

from observatory_storage import CopyWriter, Exists, TraceSpan, ValidationError
from observatory_storage.lifecycle.rollup_expiry import expire_rollups
from observatory_storage.lifecycle.rollups import rebuild_rollups, refresh_rollups
from observatory_storage.lifecycle.run import Deadline, Run
from observatory_storage.llm.token_details import TOKEN_DETAILS
from observatory_storage.models.rollup_tables import TOKEN_DETAIL_SUMS
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
url, layout, left = sys.argv[1], sys.argv[2], int(sys.argv[3])
with StoragePool(StorageConfig(postgres=PostgresConfig.from_url(url, layout=layout))) as pool:
    @sa.event.listens_for(pool.engine, "before_cursor_execute")
    def count(*_):
        global left
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
    refresh_rollups(Run(pool, now=datetime.fromisoformat(sys.argv[4])))
"""


@pytest.mark.parametrize("statements", [7, 16, 40])
def test_a_killed_refresh_is_completed_by_the_next(
    pool: StoragePool, database_url: str, statements: int
) -> None:
    write(pool, *(a_span(n, DAY + timedelta(minutes=50 * n)) for n in range(1, 40)))
    layout = pool.config.postgres.layout
    arguments = [database_url, layout, str(statements), LATER.isoformat()]
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
