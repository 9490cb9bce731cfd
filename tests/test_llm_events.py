"""Facts from the events of spans, and times to first tokens."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from observatory_storage import CopyWriter, SpanFilters, StoragePool, export_traces, ingest_traces
from observatory_storage.llm import Course, facts
from observatory_storage.rows import prepare, prepare_many
from observatory_storage.tables import SPANS

START = datetime(2026, 11, 23, 12, tzinfo=UTC)
MS = timedelta(milliseconds=1)


def read(attributes: dict[str, Any], **course: Any) -> dict[str, Any]:
    return facts(
        attributes,
        name="x",
        scope_name=None,
        resource_attributes={},
        course=Course(START, **course),
    )


def event(
    name: str, attributes: dict[str, Any] | None = None, *, after_ms: float = 0
) -> dict[str, Any]:
    return {"name": name, "timestamp": START + after_ms * MS, "attributes": attributes or {}}


@pytest.mark.parametrize(
    ("key", "value", "took_ms", "ttft_ms"),
    [
        ("gen_ai.response.time_to_first_chunk", 0.157, 400, 157.0),
        ("gen_ai.response.time_to_first_chunk", 0.412, 100, 412.0),  # clocks differ
        ("gen_ai.server.time_to_first_token", 157, 400, 157.0),  # milliseconds in fact
        ("gen_ai.server.time_to_first_token", 157_000, 400, 157.0),  # microseconds in fact
        ("ai.response.msToFirstChunk", 157_000, 400, 157.0),
        ("ai.response.msToFirstChunk", 157, 400, 157.0),
        ("gen_ai.server.time_to_first_token", 1_795_645_235, 400, None),  # a time of day
        ("gen_ai.server.time_to_first_token", 157, None, 157_000.0),  # it has not ended
    ],
)
def test_a_first_token_arrives_before_the_end(
    key: str, value: float, took_ms: int | None, ttft_ms: float | None
) -> None:
    found = read({key: value}, duration_us=None if took_ms is None else took_ms * 1000)
    assert found.get("ttft_ms") == ttft_ms


@pytest.mark.parametrize(
    "name", ["First Token Stream Event", "gen_ai.content.completion.chunk", "mlflow.chunk.item.0"]
)
def test_the_first_of_the_events_of_tokens_tells_when_it_arrived(name: str) -> None:
    events = [event("retry", after_ms=5), *(event(name, after_ms=ms) for ms in (200, 168, 900))]
    assert read({}, duration_us=800_000, events=events) == {"ttft_ms": 168.0}
    attribute = {"gen_ai.response.time_to_first_chunk": 0.1}
    assert read(attribute, duration_us=800_000, events=events) == {"ttft_ms": 100.0}


@pytest.mark.parametrize(
    ("text", "ttft_ms"),
    [
        ('"2026-11-23T12:00:00.129579Z"', 129.579),
        ("2026-11-23T13:00:00.129579+01:00", 129.579),
        ("2026-11-23T12:00:00.5", 500.0),
        ("2026-11-23T11:59:59Z", None),
        ("2026-11-23T12:00:02Z", None),
        ("soon", None),
        (5, None),
    ],
)
def test_langfuse_tells_when_the_completion_started(text: object, ttft_ms: float | None) -> None:
    found = read({"langfuse.observation.completion_start_time": text}, duration_us=1_000_000)
    assert found.get("ttft_ms") == ttft_ms


def test_events_tell_what_the_attributes_do_not() -> None:
    events = [
        event(
            "gen_ai.client.inference.operation.details",
            {"user.id": "ada", "gen_ai.request.model": "m", "gen_ai.usage.input_tokens": 5},
        ),
        event("gen_ai.choice", {"finish_reason": "end_turn", "message": "Hello"}),
        event("gen_ai.tool.message", {"gen_ai.tool.name": "search"}),
        event("gen_ai.evaluation.result", {"gen_ai.response.id": "of another span"}),
    ]
    assert read({}, events=events) == {
        "user_id": "ada",
        "model": "m",
        "prompt_tokens": 5,
        "total_tokens": 5,
        "finish_reason": "end_turn",
    }
    own = {"gen_ai.usage.output_tokens": 3, "user.id": "bob", "gen_ai.request.model": "n"}
    assert read(own, events=events) == {
        "user_id": "bob",
        "model": "n",
        "completion_tokens": 3,
        "total_tokens": 3,
        "finish_reason": "end_turn",
    }


def test_the_error_of_a_failed_span_is_its_exception() -> None:
    handled = event("exception", {"exception.type": "TimeoutError"})
    assert read({}, events=[handled]) == {}
    assert read({}, events=[handled], is_error=True) == {"error_type": "TimeoutError"}
    found = read({"error.type": "429"}, events=[handled], is_error=True)
    assert found == {"error_type": "429"}


def span(number: int, **more: Any) -> dict[str, Any]:
    return {
        "trace_id": f"{number:032x}",
        "span_id": f"{number:016x}",
        "name": "chat",
        "start_time": START,
        "service_name": "shop",
        **more,
    }


THROWN = event("exception", {"exception.type": "E", "exception.message": "too slow"})


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"status": "error", "events": [THROWN]}, "too slow"),
        ({"status": "error", "events": [THROWN], "status_message": "own"}, "own"),
        ({"status": "ok", "events": [THROWN]}, None),
        ({"events": [THROWN]}, None),
        ({"status": "error", "attributes": {"error.message": "refused"}}, "refused"),
        ({"status": "error", "attributes": {"error.message": 5}}, None),
        ({"status": "error", "events": [event("exception")]}, None),
    ],
)
def test_a_failed_span_without_a_message_has_that_of_its_exception(
    more: dict[str, Any], message: str | None
) -> None:
    position = SPANS.position["status_message"]
    rows = [span(number, **more) for number in range(1, 10)]
    many, _ = prepare_many(SPANS, rows)
    assert [row.values[position] for row in many] == [message] * 9
    assert [prepare(SPANS, row) for row in rows] == many


def test_a_message_of_an_exception_is_found_but_not_exported(pool: StoragePool) -> None:
    nanoseconds = str(int(START.timestamp()) * 10**9)
    trace_id = "5b8efff798038103d269b633813fc60c"
    sent: dict[str, Any] = {
        "traceId": trace_id,
        "spanId": "eee19b7ec3c1b174",
        "name": "chat",
        "kind": 3,
        "startTimeUnixNano": nanoseconds,
        "endTimeUnixNano": nanoseconds,
        "events": [
            {
                "timeUnixNano": nanoseconds,
                "name": "exception",
                "attributes": [{"key": "exception.message", "value": {"stringValue": "too slow"}}],
            }
        ],
        "status": {"code": 2},
    }
    request = {"resourceSpans": [{"scopeSpans": [{"spans": [sent]}]}]}
    assert ingest_traces(pool, request).accepted == 1
    with pool.unit_of_work() as uow:
        (stored,) = uow.traces.list_spans(SpanFilters(status="error"))
    assert stored.status_message == "too slow"
    (exported,) = export_traces(pool, [trace_id])
    (again,) = exported["resourceSpans"][0]["scopeSpans"][0]["spans"]
    assert again["status"] == {"code": 2}


def test_token_details_are_stored_by_every_way(pool: StoragePool) -> None:
    attributes = {"gen_ai.usage.cache_read.input_tokens": 64, "gen_ai.usage.input_tokens": 100}
    CopyWriter(pool).write_spans([span(number, attributes=attributes) for number in range(1, 10)])
    CopyWriter(pool).write_spans([span(20, attributes=attributes)])
    with pool.unit_of_work() as uow:
        stored = list(uow.traces.list_spans(SpanFilters(limit=20)))
    assert len(stored) == 10
    assert {str(each.token_details) for each in stored} == {"{'prompt_cache_read': 64}"}
