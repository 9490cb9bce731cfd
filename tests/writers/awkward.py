"""Rows of the six tables with whatever is awkward to write."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from observatory_storage.models import (
    KINDS,
    METRIC_TYPES,
    STATUSES,
    TEMPORALITIES,
    Base,
    LogRecord,
    Metric,
    MetricDataPoint,
    Trace,
    TraceEvent,
    TraceSpan,
)
from observatory_storage.rows import (
    Row,
    prepare_data_point,
    prepare_event,
    prepare_log,
    prepare_metric,
    prepare_span,
    prepare_trace,
)
from tests.writers.helpers import (
    START,
    a_log,
    a_metric,
    a_point,
    a_span,
    a_trace,
    an_event,
)

METRIC = UUID("00000000-0000-4000-8000-00000000abcd")
BERLIN = ZoneInfo("Europe/Berlin")

TEXTS = (
    "naïve café Ω≈ç√ 日本語 עברית",
    "🧪👩‍👩‍👧‍👦",
    "a\x00b",
    "lone \ud83d surrogate",
    "pair \ud83d\ude00 of surrogates",
    "quote ' double \" back\\slash \t tab \r\n line \x07 bell",
    '{NULL,"x"} \\N \\. %s %(a)s :name',
    " ",
)
JSON_VALUES: tuple[Any, ...] = (
    {},
    {"empty": [{}, [], "", None, {"": {}}]},
    {"nan": math.nan, "inf": math.inf, "-inf": -math.inf, "in": [{"list": math.nan}]},
    {"big": 2**64, "bigger": -(10**300), "edge": [2**63 - 1, -(2**63), 2**63]},
    {"int": 1, "float": 1.0, "true": True, "false": False, "small": 5e-324, "e": 1e15},
    {"\x00key": "\x00", "\ud800": "\udfff", 'k"ey': "null \\u0000 literally"},
    {"text": "x" * 300_000},
    {1: "number", 2.5: "float", False: "flag"},
    {"time": START, "id": METRIC, "exact": Decimal("0.1"), "tuple": (1, (2, 3))},
)


def deep(depth: int) -> Any:
    value: Any = "bottom"
    for _ in range(depth):
        value = {"down": [value]}
    return value


TIMES = (
    datetime(1, 1, 1, tzinfo=UTC),
    datetime(1, 1, 1, 12, tzinfo=timezone(timedelta(hours=5))),
    datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    datetime(1970, 1, 1, tzinfo=UTC),
    datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN, fold=0),
    datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN, fold=1),
    datetime(2026, 3, 29, 2, 30, tzinfo=BERLIN),
    datetime(2026, 6, 1, 12, 0, 0, 1, tzinfo=timezone(timedelta(hours=-11, minutes=-59))),
    datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    datetime(9999, 12, 31, 23, 59, 59, tzinfo=timezone(timedelta(hours=3))),
)
COSTS = (
    Decimal(0),
    Decimal("0.10"),
    Decimal("123456789012345678901234567890.123456789012345678901234567890123456789"),
    Decimal("1E-90"),
    Decimal("9E+90"),
    0.1,
    "0.000000000000000000000000000000001",
    7,
)
FLOATS = (0.0, -0.0, 5e-324, 1.7976931348623157e308, 0.1, -1.5, 3, 2**60, Decimal("0.25"))


def json_rows(base: Callable[..., Any], column: str, values: Iterable[Any]) -> list[Any]:
    return [base(**{column: value}) for value in values]


def traces() -> list[Any]:
    numbers = iter(range(1, 10_000))

    def row(**columns: Any) -> Any:
        return a_trace(next(numbers), **columns)

    everything = row(
        end_time=START + timedelta(days=400_000),
        status_message="it broke",
        root_span_name="root",
        attributes={"a": 1},
        resource_attributes={"b": [2]},
        span_count=3,
        error_count=2,
        total_tokens=2**63 - 1,
        total_cost_usd=COSTS[2],
    )
    return [
        row(),
        everything,
        row(service_name=None, resource_attributes={"service.name": "of the resource"}),
        *(row(status=status) for status in STATUSES),
        *(row(status_message=text, root_span_name=text) for text in TEXTS),
        *({**row(), "trace_id": text} for text in (*TEXTS, "0x1", "{abc}", "Ω")),
        *json_rows(row, "attributes", (*JSON_VALUES, deep(200))),
        *json_rows(row, "resource_attributes", JSON_VALUES),
        *(row(start_time=time) for time in TIMES),
        *(row(total_cost_usd=cost) for cost in COSTS),
    ]


def spans() -> list[Any]:
    numbers = iter(range(1, 10_000))

    def row(**columns: Any) -> Any:
        return a_span(7, next(numbers), **columns)

    everything = row(
        parent_span_id="00000000000000ff",
        kind="server",
        start_ns=999,
        end_ns=1,
        status_message="why",
        attributes={"a": 1},
        links=[{"trace_id": "0" * 31 + "1", "span_id": "0" * 15 + "1", "attributes": {}}],
        resource_attributes={"b": 1},
        scope_name="scope",
        scope_version="1.0",
        scope_attributes={"c": None},
        otlp={"state": "x"},
        provider="openai",
        model="gpt",
        prompt_tokens=1,
        completion_tokens=2,
        total_tokens=4,
        prompt_cost_usd=Decimal("0.1"),
        completion_cost_usd=Decimal("0.2"),
        total_cost_usd=Decimal("0.4"),
        ttft_ms=12.75,
        user_id="u",
        session_id="s",
        environment="test",
        operation="chat",
        response_model="gpt-1",
        response_id="r",
        agent_name="planner",
        tool_name="search",
        finish_reason="stop",
        error_type="timeout",
        prompt_name="greeting",
        token_details={"prompt_cache_read": 1},
        sample_weight=10,
        events=[{"name": "e", "timestamp": START}],
    )
    return [
        row(end_time=None),
        everything,
        *(row(status=status) for status in STATUSES),
        *(row(kind=kind) for kind in KINDS),
        *(row(name=text, status_message=text, scope_name=text, user_id=text) for text in TEXTS),
        *json_rows(row, "attributes", (*JSON_VALUES, deep(200))),
        *json_rows(row, "otlp", JSON_VALUES),
        *json_rows(row, "links", ([], [*JSON_VALUES])),
        *(row(start_time=time, end_time=None) for time in TIMES),
        *(row(total_cost_usd=cost, prompt_cost_usd=cost) for cost in COSTS),
        *(row(ttft_ms=abs(value)) for value in FLOATS),
        *(
            row(events=[{"name": text, "timestamp": START, "attributes": {"t": text}}])
            for text in TEXTS
        ),
    ]


def events() -> list[Any]:
    numbers = iter(range(1, 10_000))

    def row(**columns: Any) -> Any:
        return an_event(8, 1, next(numbers), **columns)

    return [
        row(),
        row(span_start_ns=999, timestamp_ns=1, otlp={"dropped": 1}),
        {**row(), "position": 2**31 - 1},
        *(row(name=text) for text in TEXTS),
        *json_rows(row, "attributes", (*JSON_VALUES, deep(200))),
        *json_rows(row, "otlp", JSON_VALUES),
        *(row(span_start_time=time, timestamp=time) for time in TIMES),
    ]


def metrics() -> list[Any]:
    numbers = iter(range(1, 10_000))

    def row(**columns: Any) -> Any:
        return a_metric(f"metric {next(numbers)}", **columns)

    everything = row(
        description="what it is",
        unit="{request}",
        temporality="delta",
        attributes={"a": 1},
        resource_attributes={"b": 1},
        scope_name="scope",
        scope_version="1",
        scope_attributes={"c": 1},
        otlp={"resource": {"schema_url": "x"}},
    )
    return [
        row(),
        everything,
        *(row(metric_type=kind) for kind in METRIC_TYPES),
        *(row(temporality=temporality) for temporality in TEMPORALITIES),
        *(row(description=text, unit=text, scope_version=text) for text in TEXTS),
        *({**row(), "name": text} for text in TEXTS),
        *json_rows(row, "attributes", (*JSON_VALUES, deep(200))),
        *json_rows(row, "resource_attributes", JSON_VALUES),
        *json_rows(row, "otlp", JSON_VALUES),
    ]


def points() -> list[Any]:
    numbers = iter(range(1, 10_000))

    def row(**columns: Any) -> Any:
        return a_point(METRIC, next(numbers), **columns)

    everything = row(
        start_timestamp=START,
        count=2**63 - 1,
        sum=-0.5,
        min=-1e300,
        max=1e300,
        buckets={"bounds": [0.5, 1], "counts": [1, 2, 3]},
        quantiles=[{"quantile": 0, "value": 1}, {"quantile": 1, "value": 2.5}],
        exemplars=[{"value": 1}],
        attributes={"a": 1},
        otlp={"flags": 1},
    )
    return [
        row(value=None),
        everything,
        *(row(value=value, sum=value, min=value, max=value) for value in FLOATS),
        *json_rows(row, "attributes", (*JSON_VALUES, deep(200))),
        *json_rows(row, "buckets", JSON_VALUES),
        *json_rows(row, "exemplars", ([], [*JSON_VALUES])),
        *json_rows(row, "otlp", JSON_VALUES),
        *(row(timestamp=time) for time in TIMES),
    ]


def logs() -> list[Any]:
    numbers = iter(range(1, 10_000))

    def row(**columns: Any) -> Any:
        number = next(numbers)
        return a_log(number, id=UUID(int=number), **columns)

    everything = row(
        timestamp_ns=999,
        observed_timestamp=START,
        severity_number=24,
        severity_text="FATAL4",
        body_json={"a": [1, 1.0]},
        event_name="event",
        trace_id="any text",
        span_id="00000000000000ff",
        trace_flags=2**32 - 1,
        attributes={"a": 1},
        resource_attributes={"b": 1},
        scope_name="scope",
        scope_version="1",
        scope_attributes={"c": 1},
        otlp={"x": 1},
    )
    return [
        row(body=None),
        everything,
        row(body="word " * 400_000),
        row(body=""),
        *(row(severity_number=number) for number in range(1, 25)),
        *(row(body=text, severity_text=text, event_name=text) for text in TEXTS),
        *json_rows(row, "body_json", (*JSON_VALUES, deep(200), *TEXTS, 1, 1.5, True, [], 2**70)),
        *json_rows(row, "attributes", JSON_VALUES),
        *(row(timestamp=time, observed_timestamp=time) for time in TIMES),
    ]


CASES: dict[str, tuple[type[Base], Callable[[], list[Any]], str, Callable[[Any], Row]]] = {
    "traces": (Trace, traces, "write_traces", prepare_trace),
    "trace_spans": (TraceSpan, spans, "write_spans", prepare_span),
    "trace_events": (TraceEvent, events, "write_events", prepare_event),
    "metrics": (Metric, metrics, "write_metrics", prepare_metric),
    "metric_data_points": (MetricDataPoint, points, "write_data_points", prepare_data_point),
    "logs": (LogRecord, logs, "write_logs", prepare_log),
}
