"""What a row is completed with: defaults, sums, durations, the service, and events."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal, localcontext
from typing import Any
from uuid import UUID

import pytest

from observatory_storage import TraceEvent, ValidationError
from observatory_storage.models import Base
from observatory_storage.rows import UNKNOWN_SERVICE, prepare_span
from observatory_storage.tables import PAYLOAD_COLUMNS, TABLES
from tests.rows.samples import (
    FIRST,
    LAST,
    LEAST,
    MAX_INT64,
    MODELS,
    NOON,
    SPAN,
    SPANS,
    TRACE,
    prepared,
)


@pytest.mark.parametrize("table", LEAST)
def test_a_row_is_completed_with_defaults(table: str) -> None:
    row = prepared(table)
    assert tuple(row) == TABLES[table].columns
    columns = MODELS[table].__table__.columns
    assert {name for name, value in row.items() if value is None} == {
        column.name for column in columns if column.nullable and column.name in row
    }
    defaults = {
        "attributes": {},
        "resource_attributes": {},
        "scope_attributes": {},
        "links": [],
        "service_name": UNKNOWN_SERVICE,
        "status": "unset",
        "kind": "internal",
    }
    for name, value in defaults.items():
        assert row.get(name, value) == value


def test_columns_that_the_storage_fills_are_not_written() -> None:
    written = {name: set(table.columns) for name, table in TABLES.items()}
    for name, columns in written.items():
        own = set(Base.metadata.tables[name].columns.keys()) - columns
        assert own <= {
            *("created_at", "updated_at", "last_span_start", "usage_span_count", "unsettled_since"),
            *(f"lead_{fact}" for fact in ("has_parent", "start_time", "start_ns", "span_id")),
            *("sample_weight", "weighted_span_count", "weighted_error_count"),
            *("weighted_tokens", "weighted_cost_usd"),
            *PAYLOAD_COLUMNS,
        }


def test_a_duration_is_exact() -> None:
    end = NOON + timedelta(days=1, microseconds=1)
    row = prepared(SPANS, start_ns=900, end_time=end, end_ns=100)
    assert (row["duration_us"], row["duration_ns"]) == (86_400_000_000, 200)
    assert prepared("traces", end_time=end)["duration_us"] == 86_400_000_001
    row = prepared(SPANS, start_time=FIRST, end_time=LAST)
    assert row["duration_us"] == (LAST - FIRST) // timedelta(microseconds=1)
    # What the two times say stands above what the caller says.
    assert prepared(SPANS, end_time=end, duration_us=5)["duration_us"] == 86_400_000_001
    for table in ("traces", SPANS):
        row = prepared(table)
        assert row["end_time"] is None
        assert row["duration_us"] is None
        row = prepared(table, duration_us=5)
        assert row["end_time"] == NOON + timedelta(microseconds=5)
        assert row["duration_us"] == 5
    row = prepared(SPANS, start_ns=900, duration_us=5, duration_ns=200)
    assert (row["end_time"], row["end_ns"]) == (NOON + timedelta(microseconds=6), 100)
    assert (row["duration_us"], row["duration_ns"]) == (5, 200)


@pytest.mark.parametrize(
    ("given", "total"),
    [
        ({"prompt_tokens": 1, "completion_tokens": 2}, 3),
        ({"prompt_tokens": 1}, 1),
        ({"completion_tokens": 0}, 0),
        ({"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 9}, 9),
        ({"prompt_tokens": MAX_INT64, "completion_tokens": 1}, None),
        ({"prompt_tokens": 1, "attributes": {"gen_ai.usage.output_tokens": 2}}, 3),
        ({"attributes": {"gen_ai.usage.output_tokens": "many"}}, None),
        ({}, None),
    ],
)
def test_tokens_are_summed_where_the_total_is_absent(given: Any, total: int | None) -> None:
    assert prepared(SPANS, **given)["total_tokens"] == total


@pytest.mark.parametrize(
    ("prompt", "completion", "total"),
    [
        (0.1, 0.2, "0.3"),
        ("0.1", Decimal("0.20"), "0.30"),
        (1, None, "1"),
        (None, 0, "0"),
        (Decimal("1E+100"), Decimal("1E-100"), "1" + "0" * 100 + "." + "0" * 99 + "1"),
    ],
)
def test_costs_are_summed_exactly(prompt: Any, completion: Any, total: str) -> None:
    with localcontext() as context:
        context.prec = 3
        row = prepared(SPANS, prompt_cost_usd=prompt, completion_cost_usd=completion)
    assert str(row["total_cost_usd"]) == str(Decimal(total))


def test_given_columns_take_precedence_over_attributes() -> None:
    attributes = {"gen_ai.request.model": "a", "gen_ai.usage.input_tokens": 1, "user.id": "u"}
    row = prepared(SPANS, attributes=attributes, model="b", prompt_tokens=2)
    assert (row["model"], row["prompt_tokens"], row["user_id"]) == ("b", 2, "u")


def test_the_resource_names_the_service_where_the_row_does_not() -> None:
    resource = {"service.name": "chat"}
    for table in ("traces", SPANS, "metrics", "logs"):
        assert prepared(table, resource_attributes=resource)["service_name"] == "chat"
        row = prepared(table, resource_attributes=resource, service_name="other")
        assert row["service_name"] == "other"
        for unusable in ({}, {"service.name": ""}, {"service.name": 5}, {"service.name": None}):
            row = prepared(table, resource_attributes=unusable)
            assert row["service_name"] == UNKNOWN_SERVICE
    with pytest.raises(ValidationError, match="at most 1024 bytes") as caught:
        prepared("logs", resource_attributes={"service.name": "x" * 2000})
    assert caught.value.field == "service_name"


def test_events_take_the_key_of_their_span() -> None:
    event = {"name": "e", "timestamp": NOON}
    row = {
        **LEAST[SPANS],
        "start_ns": 7,
        "events": [event, TraceEvent(**event), {**event, "position": 9, "span_id": "f" * 16}],
    }
    events = prepare_span(row).as_dict()["events"]
    assert [event["position"] for event in events] == [0, 1, 9]
    for event in events:
        assert event["trace_id"] == UUID(TRACE)
        assert (event["span_id"], event["span_start_time"]) == (SPAN, NOON)
        assert event["span_start_ns"] == 7


def test_an_empty_list_of_events_differs_from_missing_events() -> None:
    assert prepare_span(LEAST[SPANS]).events is None
    assert prepare_span({**LEAST[SPANS], "events": None}).events is None
    nothing_said, none = prepare_span(LEAST[SPANS]), prepare_span({**LEAST[SPANS], "events": []})
    assert none.events == ()
    assert none.as_dict()["events"] == []
    assert "events" not in nothing_said.as_dict()
