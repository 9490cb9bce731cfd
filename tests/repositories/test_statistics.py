"""Statistics of spans by group and time, and their cost: against plain Python."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from observatory_storage import CopyWriter, StoragePool, ValidationError
from observatory_storage.repositories import CostSummary, SpanFilters, SpanStats, TraceFilters
from tests.repositories.samples import DAY, SECOND, START, Row, a_span, meets, nanoseconds

MIDNIGHT = START - timedelta(hours=12)
COLUMNS = {
    "service_name": "service_name",
    "operation": "name",
    "kind": "kind",
    "status": "status",
    "provider": "provider",
    "model": "model",
    "environment": "environment",
    "user_id": "user_id",
    "session_id": "session_id",
    "gen_ai_operation": "operation",
    "response_model": "response_model",
    "agent_name": "agent_name",
    "tool_name": "tool_name",
    "finish_reason": "finish_reason",
    "error_type": "error_type",
    "prompt_name": "prompt_name",
}


def percentile(values: Sequence[float], q: float) -> float:
    """Interpolated between the two nearest."""
    values = sorted(values)
    at = q * (len(values) - 1)
    low, share = int(at), at % 1
    return values[low] + (values[min(low + 1, len(values) - 1)] - values[low]) * share


def add(rows: Iterable[Row], column: str) -> Any:
    values = [row[column] for row in rows if row.get(column) is not None]
    return sum(values, Decimal()) if "cost" in column and values else sum(values) or _zero(values)


def _zero(values: list[Any]) -> int | None:
    return 0 if values else None


def by_group(
    rows: Iterable[Row], group_by: Sequence[str], width: timedelta | None
) -> dict[tuple[Any, ...], list[Row]]:
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        bucket = None
        if width is not None:
            bucket = row["start_time"] - (row["start_time"] - MIDNIGHT) % width
        found.setdefault((bucket, *(row[COLUMNS[name]] for name in group_by)), []).append(row)
    return found


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


def dearest(rows: Iterable[Row], group_by: Sequence[str]) -> list[tuple[Any, ...]]:
    """The groups, dearest first, with what was spent."""
    reporting = [
        row
        for row in rows
        if row.get("total_tokens") is not None or row.get("total_cost_usd") is not None
    ]
    found = []
    for (_, *group), members in by_group(reporting, group_by, None).items():
        cost, tokens = add(members, "total_cost_usd"), add(members, "total_tokens")
        unpriced = sum(row.get("total_cost_usd") is None for row in members)
        found.append((tuple(group), len(members), unpriced, tokens, cost))

    def place(one: tuple[Any, ...]) -> tuple[Any, ...]:
        group, _, _, tokens, cost = one
        names = ((value is None, (value or "").encode()) for value in group)
        return cost is None, -(cost or 0), tokens is None, -(tokens or 0), *names

    return sorted(found, key=place)


def facts(summary: CostSummary) -> tuple[Any, ...]:
    return (
        tuple(summary.group.values()),
        summary.span_count,
        summary.unpriced_span_count,
        summary.total_tokens,
        summary.total_cost_usd,
    )


@pytest.mark.parametrize(
    "conditions",
    [
        {},
        {"service_name": "api"},
        {"operation": "chat", "provider": "openai"},
        {"model": "large"},
        {"user_id": "ann", "environment": "test"},
        {"session_id": "s1"},
        {"gen_ai_operation": "chat", "agent_name": "planner"},
        {"user_id": "a%"},
        {"start_time": START + DAY},
        {"end_time": START + DAY, "model": "small"},
        {"start_time": START, "end_time": START},
    ],
    ids=str,
)
@pytest.mark.parametrize("group_by", [("user_id",), ("model", "session_id"), ()], ids=str)
def test_costs_are_those_of_the_spans_that_match(
    shared_pool: StoragePool,
    spans: list[Row],
    conditions: dict[str, Any],
    group_by: tuple[str, ...],
) -> None:
    filters = SpanFilters(**conditions)
    expected = dearest((row for row in spans if meets(row, filters)), group_by)
    with shared_pool.unit_of_work() as uow:
        found = uow.metrics.get_cost_summary(group_by=group_by, **conditions)
        few = uow.metrics.get_cost_summary(group_by=group_by, limit=2, **conditions)
    assert [facts(one) for one in found] == expected
    assert few == found[:2]


def test_equal_and_unknown_costs_are_ordered_by_tokens_then_name(pool: StoragePool) -> None:
    spent: list[tuple[str | None, int | None, str | None]] = [
        ("b", 5, None),
        ("a", 5, None),
        ("c", 9, None),
        ("dear", 1, "0.3"),
        ("zero", 1, "0"),
        ("tie", 3, "0.1"),
        ("tie", None, "0.2"),
        (None, 5, None),
        ("silent", None, None),
    ]
    rows = [
        a_span(
            at + 1,
            1,
            START + at * DAY,
            user_id=user,
            total_tokens=tokens,
            total_cost_usd=None if cost is None else Decimal(cost),
        )
        for at, (user, tokens, cost) in enumerate(spent)
    ]
    CopyWriter(pool).write_spans(rows)
    with pool.unit_of_work() as uow:
        found = uow.metrics.get_cost_summary(group_by=("user_id",))
        first = uow.metrics.get_cost_summary(group_by=("user_id",), limit=1)
        by_half = uow.metrics.get_cost_summary(
            group_by=("user_id",), bucket_size_secs=7 * 86_400, limit=1
        )
        with pytest.raises(ValidationError, match="limit"):
            uow.metrics.get_cost_summary(limit=-1)
        with pytest.raises(ValidationError, match="user_id"):
            uow.metrics.get_cost_summary(user_id=5)  # type: ignore[arg-type]  # what is tried here
    assert [one.group["user_id"] for one in found] == ["tie", "dear", "zero", "c", "a", "b", None]
    assert [facts(one) for one in found] == dearest(rows, ("user_id",))
    assert first == found[:1]
    assert [(one.timestamp, one.group["user_id"]) for one in by_half] == [
        (datetime(2025, 12, 29, tzinfo=UTC), "dear"),
        (datetime(2026, 1, 5, tzinfo=UTC), "tie"),
    ]
