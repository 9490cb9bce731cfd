"""Rows prepared column by column equal rows prepared one by one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from observatory_storage import jsonb
from observatory_storage.errors import Rejected, ValidationError
from observatory_storage.llm.aliases import NESTED, PLAIN
from observatory_storage.llm.first_token import COMPLETION_START
from observatory_storage.models import TraceSpan
from observatory_storage.rows import (
    PART,
    columnar,
    prepare,
    prepare_all,
    prepare_many,
    prepare_span,
)
from observatory_storage.tables import DATA_POINTS, EVENTS, LOGS, SPANS, TableDefinition
from tests.soak.scale import examples

START: Final = datetime(2026, 11, 23, 12, tzinfo=UTC)
TRACE: Final = "5b8efff798038103d269b633813fc60c"
TRACES: Final = [TRACE, "a run", UUID(int=7), TRACE.upper()]
ABSENT: Final = object()

Strategy = st.SearchStrategy[Any]


def rows_like(required: Mapping[str, Strategy], optional: Mapping[str, Strategy]) -> Strategy:
    """Batches of rows that mostly agree on which columns they give, as those of one program do."""
    columns = {**required, **{name: st.just(ABSENT) | values for name, values in optional.items()}}

    def without_absent(row: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in row.items() if value is not ABSENT}

    return st.lists(st.fixed_dictionaries(columns).map(without_absent), min_size=8, max_size=12)


NUMBERS: Final = st.sampled_from(
    [0, 1, 12, 2**62, 2**63, -1, 1.0, 0.1, 12.5, float("nan"), "12", "x", "", True, Decimal("0.01")]
)
TEXTS: Final = st.sampled_from(["gpt-4o", "openai", "", "x" * 1025, "a\x00b", "\ud800", 5, None])
USAGE: Final = st.dictionaries(
    st.sampled_from(
        [
            *("input", "output", "total", "input_cached_tokens", "output_reasoning_tokens"),
            *("input_tokens", "output_tokens", "total_tokens", "cache_read_input_tokens"),
        ]
    ),
    st.sampled_from([0, 3, 12, 15, "7", -1, 0.5, 2**63]),
)
STRUCTURES: Final = (
    USAGE
    | USAGE.map(json.dumps)
    | st.sampled_from([["stop"], [], [5, "length"], '["stop"]', "{", '{"a": ', "[" * 2000])
)
ATTRIBUTES: Final = st.dictionaries(
    st.sampled_from([*PLAIN, *NESTED, COMPLETION_START, "model", "any"]),
    NUMBERS
    | TEXTS
    | STRUCTURES
    | st.sampled_from(["2026-11-23T12:00:00.001Z", '"quoted"', "openai/gpt-4o", "LLM", "tool"]),
    max_size=6,
)
OBJECTS: Final[Strategy] = (
    ATTRIBUTES | st.just({}) | st.none() | st.just({"n": None, "deep": [{"a": 1e400}]})
)
RESOURCE: Final = {"service.name": "shop", "deployment.environment": "test"}
RESOURCES: Final = st.just(RESOURCE) | st.just({"service.name": 5}) | OBJECTS
TIMES: Final = st.integers(0, 3).map(lambda ms: START + timedelta(milliseconds=ms))
ANY_TIMES: Final = TIMES | TIMES.map(lambda t: t.astimezone(timezone(timedelta(hours=2))))
FRACTIONS: Final = st.sampled_from([0, 1, 999, None])
SPAN_IDS: Final = st.integers(1, 2**64 - 1).map(lambda number: f"{number:016x}")
SOMETIMES_WRONG: Final = st.sampled_from(["A" * 16, "0" * 16, "short", 5])
COUNTS: Final = st.sampled_from([0, 3, 12, 2**63 - 1, None])
COSTS: Final = st.sampled_from([0, 0.1, "0.00001", Decimal(12), "1e-90", None])
NAMES: Final = st.sampled_from(["chat", "invoke_agent planner", "n" * 400])

EVENTS_OF_SPANS: Final = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["e", "exception", "first_token", "gen_ai.choice"]),
        "timestamp": ANY_TIMES,
    },
    optional={
        "attributes": st.sampled_from(
            [
                {"exception.type": "TimeoutError", "exception.message": "too slow"},
                {"user.id": "u", "gen_ai.usage.input_tokens": 7, "finish_reason": "stop"},
                {},
            ]
        )
    },
)

SPAN_BATCHES: Final = rows_like(
    {
        "trace_id": st.sampled_from(TRACES),
        "span_id": SPAN_IDS,
        "name": NAMES,
        "start_time": ANY_TIMES,
    },
    {
        "parent_span_id": SPAN_IDS | st.none() | st.just("A" * 16),
        "end_time": ANY_TIMES.map(lambda time: time + timedelta(milliseconds=3)) | st.none(),
        "start_ns": FRACTIONS,
        "end_ns": FRACTIONS,
        "duration_us": st.sampled_from([0, 5, 10**6, 2**62, -1, None]),
        "duration_ns": FRACTIONS,
        **dict.fromkeys(("prompt_tokens", "completion_tokens"), COUNTS),
        "total_tokens": COUNTS,
        **dict.fromkeys(("prompt_cost_usd", "completion_cost_usd", "total_cost_usd"), COSTS),
        "kind": st.sampled_from(["client", "internal", None]),
        "status": st.sampled_from(["ok", "error", "unset"]),
        "service_name": st.sampled_from(["shop", None]),
        "attributes": OBJECTS,
        "resource_attributes": RESOURCES,
        "scope_name": st.sampled_from(
            ["pydantic-ai", "http", "litellm", "com.anthropic.claude_code.tracing", None]
        ),
        "model": st.just("its own") | st.none(),
        "links": st.just([{"trace_id": "a" * 32, "span_id": "b" * 16}]) | st.none(),
        "status_message": st.sampled_from(["its own", None]),
        "events": st.lists(EVENTS_OF_SPANS, max_size=2) | st.none(),
    },
)
LOG_BATCHES: Final = rows_like(
    {"timestamp": ANY_TIMES, "id": st.uuids()},
    {
        "timestamp_ns": FRACTIONS,
        "body": TEXTS.filter(lambda value: value != 5),
        "body_json": st.just({"a": 1}) | st.just(5) | st.just([1, None]),
        "severity_number": st.integers(1, 24),
        "service_name": st.sampled_from(["shop", None]),
        "trace_id": st.sampled_from(TRACES),
        "attributes": OBJECTS,
        "resource_attributes": RESOURCES,
    },
)
POINT_BATCHES: Final = rows_like(
    {"metric_id": st.uuids() | st.just(str(UUID(int=9))), "timestamp": ANY_TIMES},
    {
        "start_timestamp": st.just(START) | st.none(),
        "value": st.sampled_from([1, 2.5, Decimal("0.1"), None]),
        "count": st.integers(0, 5),
        "min": st.sampled_from([1.0, 2]),
        "max": st.sampled_from([2.0, 3]),
        "attributes": OBJECTS,
    },
)
EVENT_BATCHES: Final = rows_like(
    {
        "trace_id": st.sampled_from(TRACES),
        "span_id": SPAN_IDS,
        "span_start_time": ANY_TIMES,
        "position": st.integers(0, 9),
        "name": NAMES,
        "timestamp": ANY_TIMES,
    },
    {"timestamp_ns": FRACTIONS, "attributes": OBJECTS},
)
KINDS: Final[dict[str, tuple[TableDefinition, Strategy]]] = {
    "spans": (SPANS, SPAN_BATCHES),
    "logs": (LOGS, LOG_BATCHES),
    "points": (DATA_POINTS, POINT_BATCHES),
    "events": (EVENTS, EVENT_BATCHES),
}
# One of these makes a row that is refused of one that is not.
WRONG: Final = st.dictionaries(
    st.sampled_from(["span_id", "trace_id", "timestamp", "start_time", "min", "kind", "unknown"]),
    SOMETIMES_WRONG,
    min_size=1,
    max_size=1,
)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_prepared_column_by_column_equal_rows_prepared_one_by_one(kind: str) -> None:
    table, batches = KINDS[kind]

    @examples(60, 1500)
    @given(batches, st.dictionaries(st.integers(0, 11), WRONG, max_size=1))
    def check(rows: list[dict[str, Any]], wrong: dict[int, dict[str, Any]]) -> None:
        for index, values in wrong.items():
            if index < len(rows):
                rows[index].update(values)
        alone, refused = [], []
        for index, row in enumerate(rows):
            try:
                alone.append(prepare(table, row))
            except ValidationError as wrong_value:
                refused.append((index, row, wrong_value.field, wrong_value.rule))
        prepared, error = prepare_many(table, rows)
        assert prepared == alone
        assert [type(value) for row in prepared for value in row.values] == [
            type(value) for row in alone for value in row.values
        ]
        assert [told(each) for each in (error.rejected if error else [])] == refused

    check()


def told(rejected: Rejected) -> tuple[Any, ...]:
    assert isinstance(rejected.error, ValidationError)
    return rejected.index, rejected.row, rejected.error.field, rejected.error.rule


def plain(count: int, **given: Any) -> list[dict[str, Any]]:
    return [
        {
            "trace_id": TRACE,
            "span_id": f"{at + 1:016x}",
            "name": "chat",
            "start_time": START,
            "attributes": {"gen_ai.usage.input_tokens": at, "gen_ai.request.model": "gpt-4o"},
            **given,
        }
        for at in range(count)
    ]


def test_valid_rows_are_not_prepared_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = plain(PART + 8, end_time=START, resource_attributes=RESOURCE)
    rows += plain(PART, duration_us=5, duration_ns=1, prompt_tokens=3, total_cost_usd="0.1")
    expected = [prepare_span(row) for row in rows]

    def alone(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(columnar, "prepare", alone)
    assert prepare_all(SPANS, rows) == expected


def test_the_first_invalid_row_is_named_by_its_index() -> None:
    rows = plain(PART + 20)
    rows[PART + 5]["span_id"] = rows[PART + 9]["span_id"] = "short"
    with pytest.raises(ValidationError) as caught:
        prepare_all(SPANS, rows)
    assert (caught.value.index, caught.value.field) == (PART + 5, "span_id")


def test_instances_are_prepared_column_by_column_too() -> None:
    rows = plain(10)
    assert prepare_all(SPANS, [TraceSpan(**row) for row in rows]) == prepare_all(SPANS, rows)


def test_one_object_given_many_times_is_encoded_once() -> None:
    spans = prepare_all(SPANS, plain(10, resource_attributes=RESOURCE))
    assert len({id(value) for row in spans for value in row.values if value == RESOURCE_JSON}) == 1


RESOURCE_JSON: Final = jsonb.encode(RESOURCE)[0]


def test_repairs_are_counted_by_row() -> None:
    rows = plain(12, resource_attributes={"bad": float("nan")})
    rows[3]["attributes"] = {"a": "x\x00", "b": [float("inf")]}
    rows[5]["events"] = [{"name": "e", "timestamp": START, "attributes": {"n": "\x00"}}]
    prepared = prepare_all(SPANS, rows)
    assert [row.repairs for row in prepared] == [1, 1, 1, 3, 1, 2, *[1] * 6]


def test_points_have_the_ids_of_their_series_however_many_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(columnar, "_MOST_SERIES", 20)
    monkeypatch.setattr(columnar, "_KNOWN_SERIES", {})
    rows: list[dict[str, Any]] = [
        {
            "metric_id": UUID(int=1),
            "timestamp": START,
            "start_timestamp": START - timedelta(seconds=index % 3),
            "attributes": {"queue": f"queue-{index % 70}", "text": "x" * (index % 5) * 200},
        }
        for index in range(4 * PART)
    ]
    alone = [prepare(DATA_POINTS, row) for row in rows]
    assert prepare_all(DATA_POINTS, rows) == alone
    assert prepare_all(DATA_POINTS, rows[::-1]) == alone[::-1]
    assert 0 < len(columnar._KNOWN_SERIES) <= 20 + PART
