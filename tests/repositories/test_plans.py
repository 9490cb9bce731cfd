"""Hot questions are answered from an index, of the partitions that they are about alone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select

from observatory_storage import StoragePool, UnitOfWork
from observatory_storage.layout import PARTITIONED
from observatory_storage.models import LogRecord, Trace, TraceSpan
from observatory_storage.repositories import (
    LogFilters,
    Page,
    SpanFilters,
    TimeSeriesQuery,
    TraceFilters,
)
from observatory_storage.repositories.reading.cursors import encode_cursor, to_plain
from tests import citus
from tests.repositories.hot import (
    END_TIME,
    EVERY_DAY,
    NEWEST,
    SERVICE,
    START_TIME,
    THAT_DAY,
    WITHIN,
    Hot,
)
from tests.repositories.hot_questions import HOT
from tests.repositories.plans import Plan, plans_of
from tests.repositories.populated import fill, partitions

pytestmark = citus.not_there("shards have plans of their own")

ZONE = "America/Havana"
NOTHING_YET = START_TIME + timedelta(seconds=1)


@pytest.fixture(scope="module")
def metric_id(shared_pool: StoragePool) -> UUID:
    """A metric in the populated database, which is `shared_pool`'s."""
    return fill(shared_pool)


def check(plan: Plan, days: dict[str, range]) -> None:
    """That the plan reads no partition whole, and none of another day."""
    for table in PARTITIONED:
        assert plan.relations(table) <= partitions(table, days.get(table, range(0))), plan.text
    read_whole = {name for name in plan.read_whole if name.rpartition("_p")[0] in PARTITIONED}
    assert not read_whole, plan.text


@pytest.mark.usefixtures("metric_id")
@pytest.mark.parametrize("hot", HOT, ids=str)
def test_a_hot_question_is_answered_from_an_index(shared_pool: StoragePool, hot: Hot) -> None:
    plans = plans_of(shared_pool, hot.ask)
    everything = "\n\n".join(plan.text for plan in plans)
    for plan in plans:
        check(plan, hot.days)
    for index in hot.indexes:
        assert any(name.startswith(index) for plan in plans for name in plan.indexes), everything
    assert sum(plan.rows for plan in plans) <= hot.rows, everything


@pytest.mark.parametrize(
    ("days", "ask"),
    [
        (
            THAT_DAY,
            lambda uow, metric_id: uow.metrics.get_data_points(
                metric_id, START_TIME, END_TIME, limit=100
            ),
        ),
        (range(1), lambda uow, metric_id: uow.metrics.get_data_points(metric_id, limit=100)),
        (NEWEST, lambda uow, metric_id: uow.metrics.get_latest_data_point(metric_id)),
        (
            THAT_DAY,
            lambda uow, metric_id: uow.metrics.query_time_series(
                TimeSeriesQuery(metric_id, START_TIME, END_TIME, "p95", 3600)
            ),
        ),
        (
            THAT_DAY,
            lambda uow, metric_id: uow.metrics.query_time_series(
                TimeSeriesQuery(metric_id, START_TIME, END_TIME, "avg", "day", time_zone=ZONE)
            ),
        ),
        (
            # The latest point is of the day before, and the range ends before its first one.
            range(2, 4),
            lambda uow, metric_id: uow.metrics.query_time_series(
                TimeSeriesQuery(metric_id, START_TIME, NOTHING_YET, fill="previous")
            ),
        ),
        (
            range(2, 4),
            lambda uow, metric_id: uow.metrics.query_time_series(
                TimeSeriesQuery(metric_id, START_TIME, END_TIME, "avg", 60, "host", fill="previous")
            ),
        ),
    ],
    ids=["in a time", "the oldest", "the latest", "a series", "days", "previous", "of groups"],
)
def test_points_are_read_from_their_key(
    shared_pool: StoragePool,
    metric_id: UUID,
    days: range,
    ask: Callable[[UnitOfWork, UUID], object],
) -> None:
    plans = plans_of(shared_pool, lambda uow: ask(uow, metric_id))
    for plan in plans:
        check(plan, {"metric_data_points": days})
    assert "pk_metric_data_points" in plans[-1].indexes
    assert plans[-1].rows <= 1_000


# What adds up or sorts a whole range reads its partitions from end to end, and no others.
@pytest.mark.usefixtures("metric_id")
@pytest.mark.parametrize(
    ("table", "ask"),
    [
        (
            "trace_spans",
            lambda uow: uow.metrics.get_cost_summary(
                START_TIME, END_TIME, group_by=("model",), bucket_size_secs=86_400
            ),
        ),
        (
            "trace_spans",
            lambda uow: uow.metrics.get_cost_summary(
                START_TIME, END_TIME, bucket_size_secs="month", time_zone=ZONE, fill="zero"
            ),
        ),
        (
            "trace_spans",
            lambda uow: uow.traces.get_stats(
                **WITHIN, bucket_size_secs="day", time_zone=ZONE, fill="zero"
            ),
        ),
        (
            "trace_spans",
            lambda uow: uow.metrics.get_latency_percentiles(START_TIME, END_TIME),
        ),
        (
            "trace_spans",
            lambda uow: uow.traces.list_spans(order_by="-duration_us", **WITHIN),
        ),
        ("logs", lambda uow: uow.logs.count_by_level(LogFilters(**WITHIN))),
        ("logs", lambda uow: uow.logs.get_stats(LogFilters(**WITHIN))),
    ],
    ids=[
        "cost",
        "cost by month",
        "days",
        "percentiles",
        "slowest spans",
        "levels",
        "log statistics",
    ],
)
def test_rows_of_an_aggregate_are_read_once(
    shared_pool: StoragePool, table: str, ask: Callable[[UnitOfWork], object]
) -> None:
    *marks, plan = plans_of(shared_pool, ask)
    assert not any(one.relations(table) for one in marks)
    assert plan.relations(table) == partitions(table, THAT_DAY), plan.text
    assert plan.rows <= 10_000, plan.text


@pytest.mark.usefixtures("metric_id")
@pytest.mark.parametrize(
    ("name", "filters", "columns", "list_of"),
    [
        (
            "traces",
            TraceFilters(),
            (Trace.start_time, Trace.id),
            lambda uow, filters, after: uow.traces.list(filters, after=after),
        ),
        (
            "spans",
            SpanFilters(),
            (TraceSpan.start_time, TraceSpan.start_ns, TraceSpan.trace_id, TraceSpan.span_id),
            lambda uow, filters, after: uow.traces.list_spans(filters, after=after),
        ),
        (
            "logs",
            LogFilters(),
            (LogRecord.timestamp, LogRecord.timestamp_ns, LogRecord.id),
            lambda uow, filters, after: uow.logs.list(filters, after=after),
        ),
        (
            "logs",
            LogFilters(service_name=SERVICE),
            (LogRecord.timestamp, LogRecord.timestamp_ns, LogRecord.id),
            lambda uow, filters, after: uow.logs.list(filters, after=after),
        ),
    ],
    ids=["traces", "spans", "logs", "logs of a service"],
)
def test_the_last_page_costs_the_same_as_the_first(
    shared_pool: StoragePool,
    name: str,
    filters: Any,
    columns: tuple[Any, ...],
    list_of: Callable[..., Page[Any]],
) -> None:
    with shared_pool.unit_of_work() as uow:
        first = list_of(uow, filters=filters, after=None).next
        # The place of which fifty rows are left, without walking there.
        place = select(*columns).where(*filters.conditions()).order_by(*columns).offset(50).limit(1)
        values = [to_plain(value) for value in uow.session.execute(place).one()]
        last = encode_cursor(name, filters.query(), values)
        assert len(list_of(uow, filters=filters, after=last)) == 50
        assert list_of(uow, filters=filters, after=last).next is None
    costs = []
    for cursor in (first, last):
        (plan,) = plans_of(shared_pool, partial(list_of, filters=filters, after=cursor))
        check(plan, dict.fromkeys(PARTITIONED, EVERY_DAY))
        costs.append((plan.rows, plan.blocks))
    (rows, blocks), (last_rows, last_blocks) = costs
    assert last_rows <= 2 * rows + 100
    assert last_blocks <= 2 * blocks + 50
