"""Buckets of time: where they begin, and what stands in those without a value."""

from __future__ import annotations

import itertools
import math
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from observatory_storage import CopyWriter, StoragePool, ValidationError
from observatory_storage.repositories import TimeSeriesPoint, TimeSeriesQuery
from observatory_storage.repositories.metrics.gap_filling import fill_gaps
from observatory_storage.repositories.reading.time_buckets import (
    bucket_count,
    bucket_floor,
    buckets_between,
)
from tests.repositories.samples import DAY, SECOND, START, Row, a_span

METRIC = UUID(int=1)
MOMENTS = st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - the zone is given beside
WIDTHS = st.timedeltas(timedelta(microseconds=1), 400 * DAY)


def query(**fields: Any) -> TimeSeriesQuery:
    return TimeSeriesQuery(
        **{
            "metric_id": METRIC,
            "start_time": START,
            "end_time": START + 240 * SECOND,
            "bucket_size_secs": 60,
            **fields,
        }
    )


def a_point(at: float, value: float | None, **group: Any) -> TimeSeriesPoint:
    return TimeSeriesPoint(START + at * SECOND, value, group)


@given(MOMENTS, WIDTHS)
def test_a_moment_lies_in_its_bucket(moment: datetime, width: timedelta) -> None:
    start = bucket_floor(width, moment)
    assert start <= moment < start + width
    assert bucket_floor(width, start) == start


@given(MOMENTS, st.integers(0, 50), st.floats(0, 1), WIDTHS)
def test_the_buckets_of_a_range_are_those_that_it_touches(
    start: datetime, buckets: int, part: float, width: timedelta
) -> None:
    end = start + (buckets + part) * width
    found = list(buckets_between(width, start, end))
    assert len(found) == bucket_count(width, start, end)
    if start == end:
        assert not found
        return
    assert found[0] == bucket_floor(width, start)
    assert found[-1] == bucket_floor(width, end - timedelta(microseconds=1))
    assert all(later - sooner == width for sooner, later in itertools.pairwise(found))


def test_weeks_begin_on_mondays() -> None:
    for day in range(8):
        assert bucket_floor(7 * DAY, START + day * DAY).weekday() == 0


@pytest.mark.parametrize(
    ("fill", "expected"),
    [
        ("null", [None, 1.0, None, 2.0]),
        ("zero", [0.0, 1.0, 0.0, 2.0]),
        ("previous", [None, 1.0, 1.0, 2.0]),
    ],
)
def test_every_bucket_is_filled(fill: str, expected: list[float | None]) -> None:
    points = [a_point(60, 1.0), a_point(180, 2.0)]
    found = fill_gaps(points, query(fill=fill))
    assert [point.value for point in found] == expected
    assert [point.timestamp for point in found] == [START + at * SECOND for at in (0, 60, 120, 180)]


def test_every_group_is_filled_by_itself() -> None:
    points = [a_point(0, 1.0, k=1), a_point(60, 2.0, k=True), a_point(120, 3.0, k=1.0)]
    found = fill_gaps(
        points, query(fill="previous", group_by=("k",), end_time=START + 180 * SECOND)
    )
    assert [(point.group["k"] is True, point.value) for point in found] == [
        (False, 1.0),
        (True, None),
        (False, 1.0),
        (True, 2.0),
        (False, 3.0),
        (True, 2.0),
    ]


@pytest.mark.parametrize(("group_by", "count"), [((), 4), (("k",), 0)])
def test_without_points_there_is_one_group_or_none(group_by: tuple[str, ...], count: int) -> None:
    assert [point.value for point in fill_gaps([], query(fill="zero", group_by=group_by))] == (
        [0.0] * count
    )
    assert fill_gaps([], query(fill="zero", group_by=group_by, end_time=START)) == []


def test_more_points_than_can_be_shown_are_refused() -> None:
    year = {"end_time": START + 365 * DAY, "bucket_size_secs": 60}
    assert query(**year).fill is None
    with pytest.raises(ValidationError, match="more than 200000 buckets") as refused:
        query(**year, fill="null")
    assert refused.value.field == "bucket_size_secs"
    day = query(end_time=START + DAY, fill="zero", group_by=("k",))
    assert len(fill_gaps([a_point(0, 1.0, k=n) for n in range(10)], day)) == 14_400
    with pytest.raises(ValidationError, match="200 groups of 1440 buckets") as refused:
        fill_gaps([a_point(0, 1.0, k=n) for n in range(200)], day)
    assert refused.value.field == "group_by"


@pytest.mark.parametrize("fill", ["linear", "", 0, "NULL"])
def test_an_unknown_fill_is_refused(fill: Any) -> None:
    with pytest.raises(ValidationError, match="null, zero, previous"):
        query(fill=fill)


def test_the_widest_buckets_stay_within_the_calendar() -> None:
    wide = 10_000 * 365 * 86_400
    found = fill_gaps([], query(bucket_size_secs=wide, fill="null"))
    assert [point.timestamp for point in found] == [datetime(1970, 1, 5, tzinfo=UTC)]
    with pytest.raises(ValidationError, match="year 1") as refused:
        query(start_time=datetime(1960, 1, 1, tzinfo=UTC), bucket_size_secs=wide)
    assert refused.value.field == "bucket_size_secs"


def test_days_of_a_time_zone_stay_within_the_calendar(shared_pool: StoragePool) -> None:
    last = datetime.max.replace(tzinfo=UTC)
    days = {"bucket_size_secs": "day", "time_zone": "Asia/Tokyo", "fill": "zero"}
    found = fill_gaps([], query(start_time=last - DAY, end_time=last, **days))
    assert [point.timestamp.day for point in found] == [30]
    first = datetime.min.replace(tzinfo=UTC)
    with pytest.raises(ValidationError, match="year 1"):
        query(**{**days, "start_time": first, "time_zone": "America/New_York"})
    with shared_pool.unit_of_work() as uow, pytest.raises(ValidationError, match="year 1"):
        uow.traces.get_stats(
            start_time=first,
            end_time=first + DAY,
            bucket_size_secs="day",
            time_zone="America/New_York",
            fill="zero",
        )


@pytest.fixture(scope="module")
def a_metric(shared_pool: StoragePool) -> UUID:
    """A counter with one point every 90 seconds, on two hosts, and once a null for a host."""
    writer = CopyWriter(shared_pool)
    writer.write_metrics(
        [{"name": "m", "metric_type": "counter", "temporality": "delta", "service_name": "s"}]
    )
    with shared_pool.unit_of_work() as uow:
        metric_id = uow.metrics.list()[0].id
    rows: list[Row] = [
        {
            "metric_id": metric_id,
            "timestamp": START + at * SECOND,
            "value": 1.0,
            "attributes": {"host": "ab"[at % 2]},
        }
        for at in range(0, 900, 45)
    ]
    rows.append({**rows[0], "attributes": {"host": None}})
    rows.append({**rows[0], "attributes": {}})
    writer.write_data_points(rows)
    return metric_id


@pytest.mark.parametrize("aggregation", ["sum", "rate", "increase", "avg", "last", "p90"])
@pytest.mark.parametrize("width", [7, 30.5, 60, 7 * 86_400])
@pytest.mark.parametrize("group_by", [(), ("host",), ("missing",)])
def test_filling_adds_buckets_and_changes_none(
    shared_pool: StoragePool,
    a_metric: UUID,
    aggregation: str,
    width: float,
    group_by: tuple[str, ...],
) -> None:
    def ask(fill: str | None) -> dict[Any, float | None]:
        asked = query(
            metric_id=a_metric,
            aggregation=aggregation,
            bucket_size_secs=width,
            group_by=group_by,
            fill=fill,
        )
        with shared_pool.unit_of_work() as uow:
            points = uow.metrics.query_time_series(asked)
        assert [p.timestamp for p in points] == sorted(p.timestamp for p in points)
        found = {(p.timestamp, *p.group.values()): p.value for p in points}
        assert len(found) == len(points)
        return found

    measured, whole = ask(None), ask("null")
    assert measured == {key: value for key, value in whole.items() if value is not None}
    groups = {tuple(group) for _, *group in whole}
    assert groups == {tuple(group) for _, *group in measured}
    first = START - (START - datetime(1970, 1, 5, tzinfo=UTC)) % timedelta(seconds=width)
    buckets = math.ceil((240 - (first - START).total_seconds()) / width)
    assert len(whole) == buckets * len(groups)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, [7.0, 1.0]),
        ({"aggregation": "sum"}, [12.0, 1.0]),
        ({"aggregation": "count", "bucket_size_secs": "day"}, [3.0, 1.0]),
        ({"group_by": "host"}, [("a", None), ("a", 1.0)]),
        ({"group_by": "host", "start_time": START - 3 * DAY}, [("a", 7.0)] * 3 + [("a", 1.0)]),
        ({"fill": "null"}, [None, 1.0]),
        ({"end_time": START - DAY}, []),
    ],
)
def test_a_previous_value_may_lie_before_the_range(
    pool: StoragePool, fields: dict[str, Any], expected: list[Any]
) -> None:
    asked: dict[str, Any] = {
        "start_time": START - DAY,
        "end_time": START + 2 * SECOND,
        "aggregation": "last",
        "bucket_size_secs": 86_400,
        "fill": "previous",
        **fields,
    }
    writer = CopyWriter(pool)
    writer.write_metrics([{"name": "m", "metric_type": "gauge", "service_name": "s"}])
    with pool.unit_of_work() as uow:
        (metric,) = uow.metrics.list()
    rows: list[Row] = [
        {"metric_id": metric.id, "timestamp": at, "value": value, "attributes": {"host": host}}
        for at, value, host in [
            (START - 9 * DAY, 5.0, "b"),
            (START - 5 * DAY, 2.0, "b"),
            (START - 5 * DAY + SECOND, 3.0, "b"),
            (START - 5 * DAY + 2 * SECOND, 7.0, "a"),
            (START + SECOND, 1.0, "a"),
        ]
    ]
    writer.write_data_points(rows)
    with pool.unit_of_work() as uow:
        found = uow.metrics.query_time_series(metric_id=metric.id, **asked)
    values = [(*point.group.values(), point.value) for point in found]
    assert [one if len(one) > 1 else one[0] for one in values] == expected


def calls(pool: StoragePool) -> None:
    """Two days with calls of "m", and one of them with a call of "n"."""
    CopyWriter(pool).write_spans(
        [
            a_span(1, 1, START, model="m", total_tokens=5, total_cost_usd=1),
            a_span(2, 1, START, model="n", total_tokens=7),
            a_span(3, 1, START + 2 * DAY, model="m", total_tokens=6, total_cost_usd=2),
        ]
    )


@pytest.mark.parametrize(("fill", "nothing"), [("zero", 0), ("null", None)])
def test_empty_buckets_of_statistics_and_costs(
    pool: StoragePool, fill: str, nothing: int | None
) -> None:
    calls(pool)
    asked: dict[str, Any] = {"group_by": "model", "bucket_size_secs": "day", "fill": fill}
    with pool.unit_of_work() as uow:
        stats = uow.traces.get_stats(start_time=START - DAY, end_time=START + 3 * DAY, **asked)
        costs = uow.metrics.get_cost_summary(START - DAY, START + 3 * DAY, **asked)
        inner = uow.traces.get_stats(**asked)
    day = START - START.hour * 3600 * SECOND
    expected = [
        (day - DAY, "m", 0, nothing),
        (day - DAY, "n", 0, nothing),
        (day, "m", 1, 5),
        (day, "n", 1, 7),
        (day + DAY, "m", 0, nothing),
        (day + DAY, "n", 0, nothing),
        (day + 2 * DAY, "m", 1, 6),
        (day + 2 * DAY, "n", 0, nothing),
        (day + 3 * DAY, "m", 0, nothing),
        (day + 3 * DAY, "n", 0, nothing),
    ]
    found: Any
    for found in (stats, costs):
        assert expected == [
            (one.timestamp, one.group["model"], one.span_count, one.total_tokens) for one in found
        ]
        assert found[0].total_cost_usd == nothing
        # What is not known stays unknown.
        assert found[3].total_cost_usd is None
    assert (stats[0].error_rate, stats[0].trace_count, stats[0].p95_duration_us) == (0.0, 0, None)
    assert (costs[0].unpriced_span_count, costs[0].prompt_cost_usd) == (0, nothing)
    assert inner == stats[2:8]


def test_empty_buckets_are_whole_rows_of_one_group(pool: StoragePool) -> None:
    with pool.unit_of_work() as uow:
        asked: dict[str, Any] = {"bucket_size_secs": "month", "fill": "zero"}
        bounds: dict[str, Any] = {"start_time": START, "end_time": START + 62 * DAY}
        (first, *others) = uow.traces.get_stats(group_by=(), **bounds, **asked)
        assert (first.timestamp, len(others)) == (datetime(2026, 1, 1, tzinfo=UTC), 2)
        assert uow.traces.get_stats(group_by="model", **bounds, **asked) == []
        assert uow.metrics.get_cost_summary(group_by=(), **asked) == []
        calls(pool)
        (cost,) = uow.metrics.get_cost_summary(group_by=(), **asked)
    assert cost.total_cost_usd == 3


def test_the_most_expensive_groups_are_those_after_filling(pool: StoragePool) -> None:
    calls(pool)
    with pool.unit_of_work() as uow:
        found = uow.metrics.get_cost_summary(bucket_size_secs="day", fill="zero", limit=1)
    assert [one.model for one in found] == ["m", "m", "m"]
    assert [one.total_cost_usd for one in found] == [1, 0, 2]


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("fill", {"bucket_size_secs": 60, "fill": "previous"}),
        ("fill", {"bucket_size_secs": 60, "fill": ""}),
        ("fill", {"fill": "zero"}),
        ("group_by", {"bucket_size_secs": 1, "fill": "zero", "group_by": ()}),
    ],
)
def test_a_fill_of_counts_is_asked_for_in_a_way_that_makes_sense(
    shared_pool: StoragePool, field: str, given: dict[str, Any]
) -> None:
    bounds: dict[str, Any] = {"start_time": START, "end_time": START + 9 * DAY}
    with shared_pool.unit_of_work() as uow:
        for ask in (uow.traces.get_stats, uow.metrics.get_cost_summary):
            with pytest.raises(ValidationError) as refused:
                ask(**bounds, **given)
            assert refused.value.field == field
