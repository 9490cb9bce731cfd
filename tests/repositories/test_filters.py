"""The filters refuse what makes no sense, naming the field, and keep the rest as it was meant."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from observatory_storage.errors import ValidationError
from observatory_storage.repositories import (
    Exists,
    LogFilters,
    MetricFilters,
    Not,
    OneOf,
    Prefix,
    SessionFilters,
    SpanFilters,
    TimeSeriesQuery,
    TraceFilters,
)

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
NAIVE = datetime(2026, 1, 1)  # noqa: DTZ001 - what is refused
METRIC = UUID(int=1)

SHARED: list[tuple[str, Any]] = [
    ("limit", 0),
    ("limit", -1),
    ("limit", True),
    ("limit", 1.5),
    ("limit", 2**31),
    ("limit", None),
    ("service_name", 1),
]
TIMES: list[tuple[str, Any]] = [
    ("start_time", NAIVE),
    ("end_time", NAIVE),
    ("start_time", "2026-01-01"),
    ("end_time", datetime.max.replace(tzinfo=timezone(-timedelta(hours=1)))),
]
ATTRIBUTES: list[tuple[str, Any]] = [
    ("attributes", [("a", 1)]),
    ("attributes", {1: "a"}),
    ("attributes", {"a": None}),
    ("attributes", {"a": {"b": 1}}),
    ("attributes", {"a": [1, [math.nan]]}),
    ("attributes", {"a": [b"x"]}),
    ("attributes", {"a": math.nan}),
    ("attributes", {"a": math.inf}),
    ("attributes", {"a": 10**400}),
]
SPANS: list[tuple[str, Any]] = [
    *SHARED,
    *TIMES,
    *ATTRIBUTES,
    ("operation", b"chat"),
    ("status", "ERROR"),
    ("status", 2),
    ("min_duration_us", -1),
    ("max_duration_us", math.nan),
    ("min_duration_us", math.inf),
    ("min_duration_us", "1"),
    ("max_duration_us", True),
    ("max_duration_us", 2**63),
    ("model", 4),
    ("user_id", 4),
    ("min_tokens", -1),
    ("max_tokens", 1.0),
    ("min_cost_usd", -0.1),
    ("max_cost_usd", Decimal("NaN")),
    ("text", " "),
    ("text", "a" * 10_001),
    ("text", 4),
    ("contains", ""),
    ("contains", 5),
]
OPERATORS: list[tuple[str, Any]] = [
    ("service_name", []),
    ("service_name", OneOf()),
    ("service_name", Not()),
    ("service_name", Not(None)),
    ("service_name", Not(Not("a"))),
    ("service_name", ["a", None]),
    ("service_name", ["a", 1]),
    ("service_name", OneOf("a", Exists())),
    ("service_name", OneOf("a", Not("b"))),
    ("service_name", Prefix("")),
    ("service_name", Not(Prefix(""))),
    ("service_name", Prefix(1)),  # type: ignore[arg-type]  # what is tried here
    ("service_name", {"a": 1}),
    ("trace_id", Prefix("a")),
    ("attributes", {"a": OneOf()}),
    ("attributes", {"a": OneOf("b", None)}),
    ("attributes", {"a": Not([1])}),
    ("attributes", {"a": OneOf([1], 2)}),
    ("attributes", {"a": Not(math.nan)}),
    ("attributes", {"a": Prefix(1)}),  # type: ignore[arg-type]  # what is tried here
]
REFUSED: list[tuple[type, str, Any]] = [
    *((TraceFilters, field, value) for field, value in SPANS),
    *((SpanFilters, field, value) for field, value in SPANS),
    *((LogFilters, field, value) for field, value in [*SHARED, *TIMES, *ATTRIBUTES]),
    *((MetricFilters, field, value) for field, value in SHARED),
    *((SpanFilters, field, value) for field, value in OPERATORS),
    *((LogFilters, field, value) for field, value in OPERATORS),
    (SpanFilters, "status", ["ok", "ERROR"]),
    (SpanFilters, "status", Prefix("err")),
    (SpanFilters, "min_tokens", [1, 2]),
    (SpanFilters, "text", Not("a")),
    (SpanFilters, "root", 1),
    (SpanFilters, "root", Exists()),
    (SessionFilters, "user_id", Not("ada")),
    (SpanFilters, "trace_id", ""),
    (SpanFilters, "trace_id", 7),
    (SpanFilters, "kind", "SERVER"),
    (SpanFilters, "name", 7),
    (LogFilters, "min_severity", 0),
    (LogFilters, "min_severity", 25),
    (LogFilters, "min_severity", "LOUD"),
    (LogFilters, "min_severity", True),
    (LogFilters, "trace_id", ""),
    (LogFilters, "span_id", "abc"),
    (LogFilters, "text", " "),
    (LogFilters, "text", "a" * 10_001),
    (MetricFilters, "metric_type", "sum"),
    (MetricFilters, "name", 1),
]


@pytest.mark.parametrize(("filters", "field", "value"), REFUSED)
def test_a_value_that_makes_no_sense_is_refused(filters: Any, field: str, value: Any) -> None:
    with pytest.raises(ValidationError) as refused:
        filters(**{field: value})
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("filters", "given", "field"),
    [
        (TraceFilters, {"start_time": MOMENT, "end_time": MOMENT - timedelta(1)}, "end_time"),
        (LogFilters, {"start_time": MOMENT, "end_time": MOMENT - timedelta(1)}, "end_time"),
        (TraceFilters, {"min_duration_us": 2, "max_duration_us": 1.9}, "max_duration_us"),
        (SpanFilters, {"min_tokens": 2, "max_tokens": 1}, "max_tokens"),
        (
            SpanFilters,
            {"ended_after": MOMENT, "ended_before": MOMENT - timedelta(1)},
            "ended_before",
        ),
        (SpanFilters, {"min_cost_usd": 2, "max_cost_usd": 1}, "max_cost_usd"),
    ],
)
def test_an_end_before_its_start_is_refused(filters: Any, given: Any, field: str) -> None:
    with pytest.raises(ValidationError) as refused:
        filters(**given)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"metric_id": "requests"}, "metric_id"),
        ({"metric_id": None}, "metric_id"),
        ({"start_time": None}, "start_time"),
        ({"end_time": None}, "end_time"),
        ({"start_time": NAIVE}, "start_time"),
        ({"end_time": MOMENT - timedelta(1)}, "end_time"),
        ({"aggregation": "median"}, "aggregation"),
        ({"aggregation": None}, "aggregation"),
        ({"bucket_size_secs": 0}, "bucket_size_secs"),
        ({"bucket_size_secs": -5}, "bucket_size_secs"),
        ({"bucket_size_secs": True}, "bucket_size_secs"),
        ({"bucket_size_secs": 1e-9}, "bucket_size_secs"),
        ({"bucket_size_secs": math.nan}, "bucket_size_secs"),
        ({"bucket_size_secs": 1e300}, "bucket_size_secs"),
        ({"group_by": 5}, "group_by"),
        ({"group_by": (1,)}, "group_by"),
        ({"group_by": ("a", "a")}, "group_by"),
    ],
)
def test_a_time_series_that_makes_no_sense_is_refused(changed: dict[str, Any], field: str) -> None:
    given: dict[str, Any] = {"metric_id": METRIC, "start_time": MOMENT, "end_time": MOMENT}
    TimeSeriesQuery(**given)
    with pytest.raises(ValidationError) as refused:
        TimeSeriesQuery(**{**given, **changed})
    assert refused.value.field == field


def test_filters_are_frozen_and_keep_their_own_attributes() -> None:
    wanted: dict[str, Any] = {"k": 1}
    filters = TraceFilters(attributes=wanted)
    wanted["k"] = 2
    assert filters.attributes == {"k": 1}
    with pytest.raises(AttributeError):
        filters.limit = 3  # type: ignore[misc]  # what is tried here


def test_ids_and_times_are_normalized() -> None:
    moment = datetime(2026, 1, 1, 3, tzinfo=timezone(timedelta(hours=3)))
    filters = SpanFilters(trace_id="AB" * 16, start_time=moment, min_duration_us=0.1)
    assert filters.trace_id == UUID("ab" * 16)
    assert filters.start_time == MOMENT
    assert filters.start_time.tzinfo is UTC
    assert filters.min_duration_us == Decimal("0.1")
    assert LogFilters(min_severity="warn").min_severity == 13
    assert LogFilters(span_id="AB" * 8).span_id == "ab" * 8


def test_filter_values_are_repaired_as_the_writers_repair_them() -> None:
    filters = TraceFilters(service_name="a\0b", attributes={"k\0": "\ud800"})
    assert filters.service_name == "a\ufffdb"
    assert filters.attributes == {"k\ufffd": "\ufffd"}


def test_an_empty_time_range_is_allowed() -> None:
    assert TraceFilters(start_time=MOMENT, end_time=MOMENT).end_time == MOMENT
