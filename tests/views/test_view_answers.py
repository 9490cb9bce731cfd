"""The rows of the views are right: the same as the repositories say, in whatever time zone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from observatory_storage import CopyWriter, StoragePool
from observatory_storage.lifecycle.rollups import keep_rollups_before
from observatory_storage.models import TraceSpan
from observatory_storage.models.severities import SEVERITIES
from tests import citus
from tests.lifecycle.rolled import DAY, HOUR, LATER, a_span, refresh, write
from tests.payloads.framed import turns
from tests.payloads.framed import write as write_turns
from tests.repositories.samples import a_log, many_spans
from tests.views.view_rows import (
    VIEW_NAMES,
    costs,
    expected_costs,
    expected_sessions,
    rows_of,
    sessions,
)
from tests.writers.helpers import quick_pool, span_id, trace_id

ODD = 'Obs: "50%"'

# Citus refuses these, and so the tests of their answers are about one server.
REFUSED = ("observatory_sessions", "observatory_costs_by_day") if citus.URL else ()


@pytest.fixture
def odd_pool(empty_database_url: str) -> Iterator[StoragePool]:
    """A pool on a schema whose name has to be quoted."""
    with quick_pool(empty_database_url, schema=ODD) as pool:
        pool.run_migrations()
        yield pool


@citus.not_there("this view is refused")
def test_costs_by_day_are_those_of_the_repository(pool: StoragePool) -> None:
    write(pool, *(a_span(n, DAY + n * 5 * HOUR, environment="test") for n in range(1, 12)))
    for moment in (None, DAY + timedelta(days=1, hours=3), LATER):
        if moment is not None:
            refresh(pool, moment)
        with pool.unit_of_work() as uow:
            assert costs(uow) == expected_costs(uow) != set()
    write(pool, a_span(20, DAY + HOUR, model="late"), a_span(21, LATER, model="new"))
    with pool.unit_of_work() as uow:
        assert costs(uow) == expected_costs(uow)
        assert {row[5] for row in costs(uow)} == {"gpt-4o", "late", "new"}


@citus.not_there("this view is refused")
def test_costs_of_dropped_spans_stay(pool: StoragePool) -> None:
    write(pool, *(a_span(n, DAY + n * 5 * HOUR) for n in range(1, 12)))
    refresh(pool, LATER)
    with pool.unit_of_work() as uow:
        before = expected_costs(uow)
    dropped = DAY + timedelta(days=1, hours=6)  # within a day
    with pool.engine.begin() as connection:
        assert keep_rollups_before(connection, dropped)
    with pool.engine.begin() as connection:
        connection.execute(sa.delete(TraceSpan).where(TraceSpan.start_time < dropped))
    with pool.unit_of_work() as uow:
        assert costs(uow) == before == expected_costs(uow, "auto")
    # A span of the day of which only hours are left makes the rollup of the day out of date.
    write(pool, a_span(30, DAY + timedelta(days=1, hours=20), total_tokens=7))
    with pool.unit_of_work() as uow:
        assert costs(uow) == expected_costs(uow, "auto") != before
        (second,) = [row for row in costs(uow) if row[0] == date(2026, 3, 15)]
    assert second[6:11] == (6, 0, None, None, 57)


@citus.not_there("this view is refused")
def test_costs_of_days_whose_rollups_have_expired_come_from_spans(pool: StoragePool) -> None:
    write(pool, *(a_span(n, DAY + n * 5 * HOUR) for n in range(1, 12)))
    refresh(pool, LATER)
    with pool.unit_of_work() as uow:
        before = expected_costs(uow)
    for unit, since in (("hour", LATER), ("day", DAY + timedelta(days=2))):
        with pool.engine.begin() as connection:
            connection.exec_driver_sql(
                f"UPDATE rollup_state SET {unit}_since = '{since.isoformat()}'"
            )
            connection.exec_driver_sql(
                f"DELETE FROM span_rollups_{unit} WHERE bucket < '{since.isoformat()}'"
            )
        with pool.unit_of_work() as uow:
            assert costs(uow) == before


@citus.not_there("this view is refused")
def test_costs_of_absurd_times_take_no_longer(pool: StoragePool) -> None:
    starts = [datetime(1, 1, 2, tzinfo=UTC), DAY, datetime(9999, 12, 30, tzinfo=UTC)]
    write(pool, *(a_span(n, start) for n, start in enumerate(starts, 1)))
    with pool.unit_of_work() as uow:
        assert costs(uow) == expected_costs(uow)
    refresh(pool, LATER)
    with pool.engine.begin() as connection:
        # As of a rebuild of all rollups: millions of days, most of which have no spans.
        connection.exec_driver_sql(
            "INSERT INTO span_changes (start_time, end_time)"
            " VALUES ('0001-01-01 00:00+00', '9999-12-31 00:00+00')"
        )
    with pool.unit_of_work() as uow:
        uow.session.execute(sa.text("SET LOCAL statement_timeout = '20s'"))
        assert costs(uow) == expected_costs(uow)
    assert len(rows_of(pool, "SELECT day FROM observatory_costs_by_day")) == 3


@citus.not_there("this view is refused")
def test_sessions_are_those_of_the_repository(pool: StoragePool) -> None:
    rows = many_spans()
    for row in rows:
        row["session_id"] = {0: None, 1: "a"}.get(row["start_time"].second % 7, row["name"])
    CopyWriter(pool).write_spans(rows)
    with pool.unit_of_work() as uow:
        found = sessions(uow)
        assert found == expected_sessions(uow)
    assert len(found) > 3


@citus.not_there("this view is refused")
def test_spans_that_start_last_together_are_one_session(pool: StoragePool) -> None:
    write(pool, *(a_span(n, DAY, session_id="s", user_id=None) for n in (1, 2, 3)))
    with pool.unit_of_work() as uow:
        (session,) = sessions(uow)
        assert [session] == expected_sessions(uow)
    assert (session["trace_count"], session["user_ids"]) == (3, None)


@citus.not_there("this view is refused")
@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Kolkata"])
@pytest.mark.parametrize("is_rolled", [False, True], ids=["spans", "rollups"])
def test_the_time_zone_of_the_session_does_not_matter(
    pool: StoragePool, zone: str, is_rolled: bool
) -> None:
    write(pool, *(a_span(n, DAY + n * 5 * HOUR) for n in range(1, 12)))
    if is_rolled:
        refresh(pool, LATER)
    found = []
    for each in ("UTC", zone):
        engine = sa.create_engine(
            pool.engine.url, poolclass=NullPool, connect_args={"options": f"-c TimeZone={each}"}
        )
        with engine.connect() as connection:
            assert connection.scalar(sa.text("SHOW TimeZone")) == each
            of_day = "SELECT * FROM observatory_costs_by_day WHERE day = '2026-03-15'"
            rows = {"a day": connection.execute(sa.text(of_day)).all()}
            for view in VIEW_NAMES:
                in_order = f"SELECT * FROM {view} ORDER BY 1, 2, 3"
                rows[view] = connection.execute(sa.text(in_order)).all()
        found.append(rows)
    assert len(found[0]["a day"]) == 1
    assert found[0]["a day"][0].total_tokens == 50
    for view, expected in found[0].items():
        assert found[1][view] == expected, view


def test_usage_counts_once_and_calls_are_told_from_what_is_around_them(pool: StoragePool) -> None:
    usage: dict[str, Any] = {
        "model": "gpt-4o",
        "total_tokens": 10,
        "total_cost_usd": Decimal("0.1"),
    }
    agent = a_span(1, operation="invoke_agent", **usage)
    call = a_span(2, trace_id=trace_id(1), parent_span_id=span_id(1), **usage)
    call["token_details"] = {"prompt_cache_read": 4, "completion_reasoning": 3}
    failed = a_span(3, trace_id=trace_id(1), parent_span_id=span_id(1), status="error")
    tool = a_span(4, trace_id=trace_id(1), parent_span_id=span_id(1), operation="execute_tool")
    for row in (failed, tool):
        row |= {"total_tokens": None, "total_cost_usd": None}
    write(pool, agent, call, failed, tool)
    query = (
        "SELECT span_id, is_model_call, total_tokens, cached_tokens, reasoning_tokens, duration_ms"
        " FROM observatory_span_facts ORDER BY span_id"
    )
    rows = [tuple(row.values()) for row in rows_of(pool, query)]
    assert rows == [
        (span_id(1), False, None, None, None, 1.0),
        (span_id(2), True, 10, 4, 3, 2.0),
        (span_id(3), True, None, None, None, 3.0),
        (span_id(4), False, None, None, None, 4.0),
    ]


def test_errors_have_the_exception_that_the_span_recorded(pool: StoragePool) -> None:
    events = [
        {"name": name, "timestamp": DAY, "attributes": {"exception.message": text}}
        for name, text in (("exception", "first"), ("exception", "last"), ("other", "none"))
    ]
    write(
        pool,
        a_span(1, status="error", status_message="it failed", events=events),
        a_span(2, status="error"),
        a_span(3, status="ok", events=events),
    )
    query = (
        "SELECT status_message, exception_message, exception_stacktrace FROM observatory_errors"
        " ORDER BY span_id"
    )
    rows = [tuple(row.values()) for row in rows_of(pool, query)]
    assert rows == [("it failed", "last", None), (None, None, None)]


def test_levels_of_logs_are_those_of_the_repository(pool: StoragePool) -> None:
    texts = [*SEVERITIES, *(name.lower() for name in SEVERITIES), "odd", None]
    records: list[dict[str, Any]] = [
        *({"severity_text": text} for text in texts),
        *({"severity_number": number, "severity_text": "ERROR"} for number in range(1, 25)),
    ]
    CopyWriter(pool).write_logs(
        [a_log(number, **record) for number, record in enumerate(records, 1)]
    )
    query = "SELECT level, count(*) AS count FROM observatory_logs GROUP BY level"
    found = {row["level"]: row["count"] for row in rows_of(pool, query)}
    with pool.unit_of_work() as uow:
        assert found == {each.level: each.count for each in uow.logs.count_by_level()}
    assert len(found) == 7  # one of them UNSPECIFIED


def test_data_points_have_the_facts_of_their_metric(pool: StoragePool) -> None:
    metric = {"name": "queue", "metric_type": "gauge", "unit": "1", "service_name": "shop"}
    CopyWriter(pool).write_metrics([metric])
    with pool.unit_of_work() as uow:
        (stored,) = uow.metrics.get_by_name("queue")
    CopyWriter(pool).write_data_points([{"metric_id": stored.id, "timestamp": DAY, "value": 2.5}])
    (row,) = rows_of(pool, "SELECT * FROM observatory_data_points WHERE metric_name = 'queue'")
    assert row["timestamp"] == DAY.astimezone(UTC)
    assert (row["value"], row["unit"], row["metric_type"]) == (2.5, "1", "gauge")


def test_large_values_in_frames_are_previews(odd_pool: StoragePool) -> None:
    write_turns(odd_pool, *turns([1], 1))
    shown = ""
    for view in ("observatory_spans", "observatory_events"):
        (row,) = rows_of(odd_pool, f"SELECT attributes, payload_digests FROM {{schema}}.{view}")
        assert row["payload_digests"]
        for key in row["payload_digests"]:
            assert len(row["attributes"][key]) == 101
            assert row["attributes"][key].endswith("…")
        shown += json.dumps(row["attributes"])
    assert shown.count("secret-1") == 3


@pytest.mark.parametrize("view", [view for view in VIEW_NAMES if view not in REFUSED])
def test_every_view_can_be_read_in_any_schema(odd_pool: StoragePool, view: str) -> None:
    assert rows_of(odd_pool, f"SELECT * FROM {{schema}}.{view}") == []
