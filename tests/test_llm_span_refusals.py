"""`LlmSpan` refuses values when it is made, and names the field."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from observatory_storage.errors import ValidationError
from observatory_storage.llm import LlmSpan

INT64 = 2**63 - 1
START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", None),
        ("model", ""),
        ("top_p", -(10**400)),
        ("events", np.array([1])),
        ("model", 4),
        ("model", "m" * 1025),
        ("model", "a\0b"),
        ("provider", "\ud800"),
        ("operation", None),
        ("operation", ""),
        ("name", ""),
        ("service_name", ""),
        ("trace_id", ""),
        ("trace_id", "0" * 32),
        ("trace_id", 5),
        ("span_id", "xyz"),
        ("parent_span_id", "0" * 16),
        ("start_time", START.replace(tzinfo=None)),
        ("start_time", "2026-03-01"),
        ("start_time", datetime.min.replace(tzinfo=ZoneInfo("Asia/Tokyo"))),
        ("duration_ms", -1),
        ("duration_ms", float("nan")),
        ("duration_ms", "12"),
        ("duration_ms", 1e17),
        ("status", "fine"),
        ("status_message", 5),
        ("error", 5),
        ("prompt", ["a"]),
        ("completion", b"a"),
        ("input_messages", 5),
        ("output_messages", b"a"),
        ("system_instructions", 5),
        ("temperature", "hot"),
        ("top_p", float("nan")),
        ("max_tokens", 1.5),
        ("response_id", 7),
        ("finish_reasons", "stop"),
        ("prompt_tokens", -1),
        ("prompt_tokens", True),
        ("prompt_tokens", "12"),
        ("completion_tokens", 12.0),
        ("total_tokens", INT64 + 1),
        ("prompt_cost_usd", -0.01),
        ("completion_cost_usd", float("nan")),
        ("total_cost_usd", Decimal("NaN")),
        ("total_cost_usd", Decimal("1e-101")),
        ("total_cost_usd", "free"),
        ("ttft_ms", float("inf")),
        ("ttft_ms", "1"),
        ("user_id", 42),
        ("session_id", ""),
        ("environment", "\0"),
        ("attributes", [("a", 1)]),
        ("resource_attributes", None),
        ("events", {"name": "e"}),
    ],
)
def test_a_wrong_value_is_refused_at_construction(field: str, value: Any) -> None:
    with pytest.raises(ValidationError) as raised:
        LlmSpan(**({"model": "m"} | {field: value}))
    assert raised.value.field == field
    assert raised.value.value is value
    assert raised.value.rule in str(raised.value)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"prompt": "a", "input_messages": ["a"]}, "prompt"),
        ({"completion": "a", "output_messages": ["a"]}, "completion"),
        ({"start_time": START, "end_time": START - timedelta(seconds=1)}, "end_time"),
        ({"start_time": START, "end_time": START, "duration_ms": 1}, "duration_ms"),
        ({"end_time": START}, "start_time"),
        ({"status": "ok", "error": "x"}, "status"),
        ({"input_messages": ["a", 5]}, "input_messages[1]"),
        ({"input_messages": [{"role": 5}]}, "input_messages[0].role"),
        ({"finish_reasons": ["stop", 5]}, "finish_reasons[1]"),
        ({"events": [5]}, "events[0]"),
        ({"events": [{"name": "e"}, {"name": "e", "at": 1}]}, "events[1].at"),
        ({"events": [{}]}, "events[0].name"),
        ({"events": [{"name": 5}]}, "events[0].name"),
        ({"events": [{"name": "e", "timestamp": 5}]}, "events[0].timestamp"),
    ],
)
def test_values_that_contradict_each_other_are_refused(given: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as raised:
        LlmSpan(model="m", **given)
    assert raised.value.field == field
