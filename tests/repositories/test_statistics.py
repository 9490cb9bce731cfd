"""Statistics of spans by group and time: against plain Python."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from observatory_storage import CopyWriter, StoragePool, ValidationError
from observatory_storage.repositories import SpanFilters, SpanStats, TraceFilters
from tests.repositories.grouped import COLUMNS, add, by_group
from tests.repositories.samples import DAY, SECOND, START, Row, a_span, meets, nanoseconds


def percentile(values: Sequence[float], q: float) -> float:
    """Interpolated between the two nearest."""
    values = sorted(values)
    at = q * (len(values) - 1)
    low, share = int(at), at % 1
    return values[low] + (values[min(low + 1, len(values) - 1)] - values[low]) * share


def check(found: list[SpanStats], expected: dict[tuple[Any, ...], list[Row]]) -> None:
    keys = [(one.timestamp, *one.group.values()) for one in found]
    assert len(keys) == len(set(keys))
    assert set(keys) == set(expected)
    for key, one in zip(keys, found, strict=True):
        rows = expected[key]
        took = [ns / 1000 for row in rows if (ns := nanoseconds(row)) is not None]
        failed = sum(row["status"] == "error" for row in rows)
        assert one.span_count == len(rows)
        assert one.trace_count == len({row["trace_id"] for row in rows})
        assert (one.error_count, one.error_rate) == (failed, failed / len(rows))
        durations = [
            one.min_duration_us,
            one.max_duration_us,
            one.avg_duration_us,
            one.p50_duration_us,
            one.p90_duration_us,
            one.p95_duration_us,
            one.p99_duration_us,
        ]
        if took:
            shares = [percentile(took, q) for q in (0.5, 0.9, 0.95, 0.99)]
            wanted = [min(took), max(took), statistics.fmean(took), *shares]
            assert durations == pytest.approx(wanted)
        else:
            assert durations == [None] * 7
        for column in ("prompt_tokens", "completion_tokens", "total_tokens", "total_cost_usd"):
            assert getattr(one, column) == add(rows, column), column


@pytest.mark.parametrize(
    "group_by",
    [(), *((name,) for name in COLUMNS), ("provider", "model"), ("model", "kind", "status")],
    ids=str,
)
@pytest.mark.parametrize("width", [None, DAY, 2 * SECOND], ids=str)
def test_spans_are_counted_by_group_and_bucket(
    shared_pool: StoragePool,
    spans: list[Row],
    group_by: tuple[str, ...],
    width: timedelta | None,
) -> None:
    seconds = None if width is None else width.total_seconds()
    with shared_pool.unit_of_work() as uow:
        found = uow.traces.get_stats(group_by=group_by, bucket_size_secs=seconds)
    check(found, by_group(spans, group_by, width))
    assert [tuple(one.group) for one in found] == [group_by] * len(found)

    def place(one: SpanStats) -> tuple[Any, ...]:
        # Without a value comes last; names are in the order of their bytes.
        values = ((value is None, (value or "").encode()) for value in one.group.values())
        return one.timestamp or START, -one.span_count, *values

    assert found == sorted(found, key=place)


@pytest.mark.parametrize(
    "filters",
    [
        TraceFilters(),
        TraceFilters(service_name="api", status="error"),
        TraceFilters(model="large", limit=1),
        TraceFilters(start_time=START + DAY, end_time=START + 2 * DAY),
        TraceFilters(start_time=START, end_time=START),
        TraceFilters(user_id="nobody"),
        TraceFilters(attributes={"k": 1}),
        SpanFilters(kind="client", min_tokens=10),
    ],
    ids=str,
)
def test_only_spans_that_match_count(
    shared_pool: StoragePool, spans: list[Row], filters: TraceFilters | SpanFilters
) -> None:
    matching = [row for row in spans if meets(row, filters)]
    with shared_pool.unit_of_work() as uow:
        by_service = uow.traces.get_stats(filters, group_by=["service_name"])
        by_day = uow.traces.get_stats(filters, bucket_size_secs=86_400)
        in_all = uow.traces.get_stats(filters, group_by=())
    check(by_service, by_group(matching, ("service_name",), None))
    check(by_day, by_group(matching, (), DAY))
    assert sum(one.span_count for one in in_all) == len(matching)
    assert len(in_all) == bool(matching)


def test_one_unended_span_has_no_duration(pool: StoragePool) -> None:
    CopyWriter(pool).write_spans([a_span(1, 1, end_time=None)])
    with pool.unit_of_work() as uow:
        (one,) = uow.traces.get_stats(group_by=("model",), bucket_size_secs=60)
        assert uow.traces.get_stats(SpanFilters(name="x"), group_by=()) == []
    unknown = {name for name in one.__slots__ if getattr(one, name) is None}
    counts = {name for name in one.__slots__ if name.endswith("_count")}
    assert unknown == set(one.__slots__) - {"group", "timestamp"} - counts
    assert (one.group, one.timestamp, one.error_rate) == ({"model": None}, START, 0)


def test_sums_may_have_more_than_64_bits(pool: StoragePool) -> None:
    most = 2**63 - 1
    CopyWriter(pool).write_spans(
        [a_span(trace, 1, total_tokens=most, model="m") for trace in (1, 2, 3)]
    )
    with pool.unit_of_work() as uow:
        assert uow.traces.get_stats().total_tokens == 3 * most
        (one,) = uow.traces.get_stats(group_by=("model",))
        (cost,) = uow.metrics.get_cost_summary()
    assert one.total_tokens == cost.total_tokens == 3 * most


def local_midnight(moment: datetime, zone: ZoneInfo) -> datetime:
    day = moment.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    return day.astimezone(UTC)


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("Asia/Tokyo", datetime(2026, 2, 27, tzinfo=UTC)),
        ("Asia/Kathmandu", datetime(2026, 2, 27, tzinfo=UTC)),
        ("America/New_York", datetime(2026, 3, 6, tzinfo=UTC)),
        ("America/New_York", datetime(2026, 10, 30, tzinfo=UTC)),
        ("UTC", datetime(2026, 2, 27, tzinfo=UTC)),
    ],
)
def test_days_are_those_of_the_time_zone(pool: StoragePool, name: str, first: datetime) -> None:
    zone = ZoneInfo(name)
    starts = [first + timedelta(minutes=30 * at) for at in range(4 * 48)]
    CopyWriter(pool).write_spans(
        [
            a_span(at + 1, 1, start, total_tokens=1, model="m" if at % 2 else "n")
            for at, start in enumerate(starts)
        ]
    )
    CopyWriter(pool).write_logs(
        [{"timestamp": start, "service_name": "service"} for start in starts]
    )
    expected: dict[datetime, int] = {}
    for start in starts:
        day = local_midnight(start, zone)
        expected[day] = expected.get(day, 0) + 1
    with pool.unit_of_work() as uow:
        stats = uow.traces.get_stats(bucket_size_secs=86_400, time_zone=name)
        costs = uow.metrics.get_cost_summary(group_by=(), bucket_size_secs=86_400, time_zone=name)
        levels = uow.logs.count_by_level(bucket_size_secs=86_400, time_zone=name)
    assert {one.timestamp: one.span_count for one in stats} == expected
    assert {one.timestamp: one.total_tokens for one in costs} == expected
    assert {one.timestamp: one.count for one in levels} == expected
    assert [one.timestamp for one in stats] == sorted(expected)
    if name == "America/New_York":
        assert {46, 50} & set(expected.values()), "a day of 23 or of 25 hours"


def test_weeks_begin_on_mondays_in_every_time_zone(pool: StoragePool) -> None:
    zone = ZoneInfo("Asia/Tokyo")
    CopyWriter(pool).write_spans([a_span(1, 1)])
    with pool.unit_of_work() as uow:
        (utc,) = uow.traces.get_stats(bucket_size_secs=7 * 86_400)
        (tokyo,) = uow.traces.get_stats(bucket_size_secs=7 * 86_400, time_zone="Asia/Tokyo")
    assert utc.timestamp == datetime(2025, 12, 29, tzinfo=UTC)
    assert tokyo.timestamp == datetime(2025, 12, 29, tzinfo=zone)


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("group_by", {"group_by": "mode"}),
        ("group_by", {"group_by": ("name; DROP TABLE traces",)}),
        ("group_by", {"group_by": ("model", "model")}),
        ("group_by", {"group_by": (5,)}),
        ("bucket_size_secs", {"bucket_size_secs": 0}),
        ("bucket_size_secs", {"bucket_size_secs": math.nan}),
        ("bucket_size_secs", {"bucket_size_secs": 3600, "time_zone": "Asia/Tokyo"}),
        ("time_zone", {"time_zone": "Asia/Tokyo"}),
        ("time_zone", {"bucket_size_secs": 86_400, "time_zone": "Mars/Olympus"}),
        ("time_zone", {"bucket_size_secs": 86_400, "time_zone": "../../etc/passwd"}),
        ("time_zone", {"bucket_size_secs": 86_400, "time_zone": "'; DROP TABLE traces --"}),
        ("time_zone", {"bucket_size_secs": 86_400, "time_zone": "<+09>-9"}),
        ("time_zone", {"bucket_size_secs": 86_400, "time_zone": ""}),
        ("time_zone", {"bucket_size_secs": 86_400, "time_zone": 9}),
    ],
)
def test_groups_are_asked_for_in_a_way_that_makes_sense(
    shared_pool: StoragePool, field: str, given: dict[str, Any]
) -> None:
    with shared_pool.unit_of_work() as uow:
        for method in (uow.traces.get_stats, uow.metrics.get_cost_summary):
            with pytest.raises(ValidationError) as error:
                method(**given)
            assert error.value.field == field
        assert isinstance(uow.traces.get_stats().trace_count, int)


def test_whole_traces_are_asked_for_by_trace_filters(shared_pool: StoragePool) -> None:
    wrong: Any
    with shared_pool.unit_of_work() as uow:
        for wrong in (SpanFilters(), {"service_name": "x"}, 5):
            with pytest.raises(ValidationError, match="filters"):
                uow.traces.get_stats(wrong)
        with pytest.raises(ValidationError, match="filters"):
            uow.traces.get_stats({"service_name": "x"}, group_by=())  # type: ignore[call-overload]  # what is tried here
