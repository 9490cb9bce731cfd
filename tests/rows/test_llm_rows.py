"""The row of an LLM call is the row that its span gives, checked like any other."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any

import pytest

from observatory_storage import LlmSpan, ValidationError
from observatory_storage.rows import prepare_llm_span, prepare_span
from observatory_storage.tables import SPANS

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Model(StrEnum):
    SMALL = "small"


class Time(datetime):
    pass


CALLS: dict[str, dict[str, Any]] = {
    "least": {},
    "usual": {
        "provider": "openai",
        "prompt": "Why?",
        "completion": "So.",
        "finish_reasons": ["stop"],
        "prompt_tokens": 3,
        "completion_tokens": 4,
        "temperature": 0.5,
        "user_id": "u",
        "duration_ms": 12.5,
        "ttft_ms": 3,
        "environment": "test",
        "resource_attributes": {"host.name": "h"},
    },
    "costs": {"prompt_cost_usd": Decimal("0.10"), "completion_cost_usd": 0.2},
    "details": {
        "prompt_tokens": 9,
        "attributes": {"gen_ai.usage.cache_read.input_tokens": 5, "user.id": "own"},
    },
    "error": {"error": ValueError("bad")},
    "error without a message": {"status": "error"},
    "error with its message in an attribute": {
        "status": "error",
        "attributes": {"exception.message": "bad"},
    },
    "error with its message in an event": {
        "status": "error",
        "events": [{"name": "exception", "attributes": {"exception.message": "bad"}}],
    },
    "events": {"events": [{"name": "retry", "timestamp": START, "attributes": {"n": 1}}]},
    "text of an enumeration": {"model": Model.SMALL, "name": Model.SMALL, "status": "ok"},
    "time of a subclass": {"start_time": Time(2026, 3, 1, tzinfo=UTC), "duration_ms": 1},
    "JSON that is repaired": {"attributes": {"a": float("nan"), "b": "\0"}},
    "values that JSON lacks": {"attributes": {"a": START, "b": {1, 2}, "model": object}},
    "empty JSON": {"attributes": {}, "resource_attributes": {}},
}


@pytest.mark.parametrize("given", CALLS.values(), ids=CALLS)
def test_the_row_of_a_call_is_that_of_its_span(given: dict[str, Any]) -> None:
    span = LlmSpan(**{"model": "m", "start_time": START, **given}).to_span()
    row = prepare_llm_span(span, "as given")
    assert row == prepare_span(span, has_facts=True, trace_text="as given")
    expected = [type(value) for value in prepare_span(span, has_facts=True).values]
    assert [type(value) for value in row.values] == expected


def test_a_cost_that_its_column_does_not_take_is_refused() -> None:
    call = LlmSpan(model="m", start_time=START, total_cost_usd="0." + "0" * 29 + "1e-99")
    with pytest.raises(ValidationError, match="total_cost_usd"):
        prepare_llm_span(call.to_span(), "t")


def test_a_span_is_prepared_as_it_is_now() -> None:
    span = LlmSpan(model="m", start_time=START, end_time=START + timedelta(seconds=1)).to_span()
    before = prepare_llm_span(span, "t")
    span.attributes["later"] = True
    assert prepare_llm_span(span, "t").as_dict()["attributes"]["later"] is True
    assert "later" not in before.as_dict()["attributes"]
    assert before.values[SPANS.position["duration_us"]] == 1_000_000
