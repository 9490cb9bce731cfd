"""`LlmSpan`: what a call written by hand becomes."""

from __future__ import annotations

import copy
import json
import pickle
import re
from dataclasses import FrozenInstanceError, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from observatory_storage.ids import trace_uuid
from observatory_storage.llm import LlmSpan, facts
from observatory_storage.llm.dialects import ALIASES
from observatory_storage.models import TraceEvent, TraceSpan
from observatory_storage.rows import prepare_span
from observatory_storage.tables import TABLES

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def test_a_call_with_everything_becomes_a_genai_span() -> None:
    call = LlmSpan(
        model="gpt-4o-mini",
        provider="openai",
        trace_id="5B8EFFF798038103D269B633813FC60C",
        span_id="EEE19B7EC3C1B174",
        parent_span_id="eee19b7ec3c1b173",
        service_name="chat",
        start_time=START,
        duration_ms=412.5,
        status="ok",
        prompt="Which river runs through Paris?",
        completion="The Seine.",
        system_instructions="Be brief.",
        temperature=0,
        top_p=0.9,
        max_tokens=100,
        response_model="gpt-4o-mini-2024-07-18",
        response_id="chatcmpl-1",
        finish_reasons=["stop"],
        prompt_tokens=14,
        completion_tokens=4,
        prompt_cost_usd=Decimal("0.0000021"),
        completion_cost_usd=0.0000024,
        ttft_ms=123,
        user_id="u-1",
        session_id="chat-17",
        environment="production",
        attributes={"app.feature": "geography"},
        resource_attributes={"host.name": "h1"},
        events=[{"name": "retry", "timestamp": START, "attributes": {"attempt": 2}}],
    )
    span = call.to_span()
    assert isinstance(span, TraceSpan)
    columns = {
        column.name: getattr(span, column.name)
        for column in TraceSpan.__table__.columns
        if getattr(span, column.name) is not None  # a column that is not listed below has no value
    }
    assert columns == {
        "trace_id": trace_uuid("5b8efff798038103d269b633813fc60c"),
        "span_id": "eee19b7ec3c1b174",
        "parent_span_id": "eee19b7ec3c1b173",
        "name": "chat gpt-4o-mini",
        "kind": "client",
        "service_name": "chat",
        "start_time": START,
        "start_ns": 0,
        "end_time": START + timedelta(microseconds=412_500),
        "end_ns": 0,
        "duration_us": 412_500,
        "duration_ns": 0,
        "status": "ok",
        "attributes": {
            "app.feature": "geography",
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "gpt-4o-mini",
            "gen_ai.request.temperature": 0,
            "gen_ai.request.top_p": 0.9,
            "gen_ai.request.max_tokens": 100,
            "gen_ai.response.model": "gpt-4o-mini-2024-07-18",
            "gen_ai.response.id": "chatcmpl-1",
            "gen_ai.response.finish_reasons": ["stop"],
            "gen_ai.response.time_to_first_chunk": 0.123,
            "gen_ai.usage.input_tokens": 14,
            "gen_ai.usage.output_tokens": 4,
            "llm.cost.prompt": 0.0000021,
            "llm.cost.completion": 0.0000024,
            "user.id": "u-1",
            "session.id": "chat-17",
            "gen_ai.system_instructions": [{"type": "text", "content": "Be brief."}],
            "gen_ai.input.messages": [
                {
                    "role": "user",
                    "parts": [{"type": "text", "content": "Which river runs through Paris?"}],
                }
            ],
            "gen_ai.output.messages": [
                {
                    "role": "assistant",
                    "parts": [{"type": "text", "content": "The Seine."}],
                    "finish_reason": "stop",
                }
            ],
        },
        "links": [],
        "resource_attributes": {
            "host.name": "h1",
            "service.name": "chat",
            "deployment.environment.name": "production",
        },
        "scope_attributes": {},
        "provider": "openai",
        "model": "gpt-4o-mini",
        "operation": "chat",
        "response_model": "gpt-4o-mini-2024-07-18",
        "response_id": "chatcmpl-1",
        "finish_reason": "stop",
        "prompt_tokens": 14,
        "completion_tokens": 4,
        "total_tokens": 18,
        "prompt_cost_usd": Decimal("0.0000021"),
        "completion_cost_usd": Decimal("0.0000024"),
        "total_cost_usd": Decimal("0.0000045"),
        "ttft_ms": 123.0,
        "user_id": "u-1",
        "session_id": "chat-17",
        "environment": "production",
    }
    (event,) = span.events
    assert (event.trace_id, event.span_id) == (span.trace_id, span.span_id)
    assert (event.span_start_time, event.span_start_ns, event.position) == (START, 0, 0)
    assert (event.name, event.timestamp, event.attributes) == ("retry", START, {"attempt": 2})


def test_what_a_call_stores_reads_back_from_its_attributes_alone() -> None:
    call = LlmSpan(
        model="m",
        provider="p",
        prompt_tokens=1,
        completion_tokens=2,
        total_tokens=10,
        prompt_cost_usd="0.1",
        total_cost_usd="0.12345678901234567890123456789",
        ttft_ms=0.1,
        user_id="u",
        session_id="s",
        environment="e",
    )
    span = call.to_span()
    written = {column: getattr(span, column) for column in ALIASES}
    json.dumps(span.attributes, allow_nan=False)
    assert written["completion_cost_usd"] is None
    assert {column: value for column, value in written.items() if value is not None} == facts(
        span.attributes,
        name=span.name,
        scope_name=span.scope_name,
        resource_attributes=span.resource_attributes,
    )
    assert written["total_cost_usd"] == Decimal("0.12345678901234567890123456789")


def test_a_call_needs_only_its_model() -> None:
    before = datetime.now(UTC)
    call = LlmSpan(model="m")
    span = call.to_span()
    assert before <= span.start_time <= datetime.now(UTC)
    assert (span.end_time, span.duration_us) == (None, None)
    assert (span.name, span.kind, span.status) == ("chat m", "client", "unset")
    assert span.service_name == "unknown_service"
    assert span.resource_attributes == {}
    assert span.attributes == {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m"}
    assert re.fullmatch(r"[0-9a-f]{16}", span.span_id)
    assert span.events == []
    prepare_span(span)


def test_ids_are_drawn_once_a_call() -> None:
    call, other = LlmSpan(model="m"), LlmSpan(model="m")
    assert call.to_span().trace_id == call.to_span().trace_id
    assert call.to_span().span_id == call.to_span().span_id
    assert call.to_span().start_time == call.to_span().start_time
    assert call.trace_id != other.trace_id
    assert call.span_id != other.span_id


def test_a_call_is_frozen() -> None:
    call = LlmSpan(model="m")
    with pytest.raises(FrozenInstanceError):
        call.model = "n"  # type: ignore[misc]  # what the test is about


def test_the_contents_are_not_shown() -> None:
    call = LlmSpan(model="m", prompt="secret", completion="secret", system_instructions="secret")
    assert "secret" not in repr(call)


@pytest.mark.parametrize(
    ("times", "start", "end"),
    [
        ({"start_time": START}, START, None),
        (
            {"start_time": START, "end_time": START + timedelta(seconds=1)},
            START,
            START + timedelta(seconds=1),
        ),
        (
            {"start_time": START, "duration_ms": 0.25},
            START,
            START + timedelta(microseconds=250),
        ),
        ({"end_time": START, "duration_ms": 2000}, START - timedelta(seconds=2), START),
        (
            {"start_time": START - timedelta(seconds=2), "end_time": START, "duration_ms": 2000},
            START - timedelta(seconds=2),
            START,
        ),
        ({"start_time": START, "duration_ms": 0}, START, START),
    ],
)
def test_the_missing_time_is_computed_from_the_given_ones(
    times: dict[str, Any], start: datetime, end: datetime | None
) -> None:
    call = LlmSpan(model="m", **times)
    # A changed copy is the same call: its times still agree.
    for span in (call.to_span(), replace(call, user_id="u").to_span()):
        assert (span.start_time, span.end_time) == (start, end)
        assert span.duration_us == (None if end is None else (end - start).total_seconds() * 1e6)


def test_a_call_with_only_a_duration_ends_now() -> None:
    before = datetime.now(UTC)
    span = LlmSpan(model="m", duration_ms=1500).to_span()
    assert span.end_time is not None
    assert before <= span.end_time <= datetime.now(UTC)
    assert span.end_time - span.start_time == timedelta(milliseconds=1500)


def test_times_across_a_change_of_the_clock_differ_by_what_passed() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    start = datetime(2026, 10, 25, 2, 30, tzinfo=berlin, fold=0)
    end = datetime(2026, 10, 25, 2, 31, tzinfo=berlin, fold=1)
    assert LlmSpan(model="m", start_time=start, end_time=end).to_span().duration_us == 3_660_000_000


def test_an_exception_is_the_outcome() -> None:
    class Overloaded(Exception):
        pass

    span = LlmSpan(model="m", error=Overloaded("try later")).to_span()
    assert (span.status, span.status_message) == ("error", "try later")
    assert span.attributes["error.type"] == f"{Overloaded.__module__}.{Overloaded.__qualname__}"
    span = LlmSpan(model="m", error=TimeoutError()).to_span()
    assert (span.status_message, span.attributes["error.type"]) == ("TimeoutError", "TimeoutError")
    span = LlmSpan(model="m", error="rate limit", status_message="429").to_span()
    assert (span.status, span.status_message) == ("error", "429")
    assert span.attributes["error.type"] == "_OTHER"


def test_the_callers_own_objects_stay_as_they_were() -> None:
    attributes = {"a": 1}
    message = {"role": "user", "content": "x"}
    event = TraceEvent(name="e", timestamp=START)
    call = LlmSpan(model="m", attributes=attributes, input_messages=[message], events=[event])
    assert call.to_span().events == [event]
    assert attributes == {"a": 1}
    assert message == {"role": "user", "content": "x"}
    assert event.span_id is None


def test_a_copy_of_a_call_makes_the_same_span() -> None:
    call = LlmSpan(model="m", input_messages=["Hello"], completion="Hi", system_instructions="Be.")
    span = call.to_span()
    for same in (copy.copy(call), copy.deepcopy(call), pickle.loads(pickle.dumps(call))):
        assert same.to_span().to_dict() == span.to_dict()


def test_spans_of_one_call_have_attributes_of_their_own() -> None:
    call = LlmSpan(model="m", prompt="Hello")
    call.to_span().attributes["gen_ai.input.messages"].clear()
    assert len(call.to_span().attributes["gen_ai.input.messages"]) == 1


def test_named_fields_win_over_attributes_and_the_others_are_read() -> None:
    span = LlmSpan(
        model="m", attributes={"gen_ai.request.model": "other", "user.id": "u", "llm.cost.total": 2}
    ).to_span()
    assert span.attributes["gen_ai.request.model"] == "m"
    assert (span.model, span.user_id, span.total_cost_usd) == ("m", "u", Decimal(2))


def test_usage_given_by_hand_is_kept_for_an_agent_too() -> None:
    span = LlmSpan(model="m", operation="invoke_agent", prompt_tokens=0, completion_tokens=5)
    columns = dict(
        zip(TABLES["trace_spans"].columns, prepare_span(span.to_span()).values, strict=True)
    )
    assert (columns["prompt_tokens"], columns["total_tokens"]) == (0, 5)


def test_the_service_comes_from_the_resource() -> None:
    span = LlmSpan(model="m", resource_attributes={"service.name": "chat"}).to_span()
    assert (span.service_name, span.resource_attributes) == ("chat", {"service.name": "chat"})


def test_a_default_name_has_the_value_of_an_enum() -> None:
    class Model(str, Enum):  # noqa: UP042 - as applications have it
        SMALL = "gpt-4o-mini"

    assert LlmSpan(model=Model.SMALL).name == "chat gpt-4o-mini"


def test_a_default_name_that_is_too_long_is_the_operation() -> None:
    assert LlmSpan(model="m" * 1024).to_span().name == "chat"
