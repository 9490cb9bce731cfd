"""Telemetry for views, commands and admin pages to show."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from observatory_storage import LogWriter, StoragePool, TraceWriter

TRACE = "5b8efff798038103d269b633813fc60c"
ROOT, CALL = "00000000000000a1", "00000000000000a2"


def span(minutes_ago: float = 1, **values: Any) -> dict[str, Any]:
    start = datetime.now(UTC) - timedelta(minutes=minutes_ago)
    return {
        "trace_id": TRACE,
        "span_id": ROOT,
        "name": "POST /answer",
        "kind": "server",
        "service_name": "assistant",
        "start_time": start,
        "end_time": start + timedelta(milliseconds=250),
        **values,
    }


def write_conversation(pool: StoragePool) -> None:
    """A trace of two spans, one of them a failed call, and a log record."""
    call = span(
        span_id=CALL,
        parent_span_id=ROOT,
        name="chat large",
        kind="client",
        status="error",
        status_message="no answer",
        attributes={
            "gen_ai.request.model": "large",
            "gen_ai.usage.input_tokens": 1200,
            "gen_ai.prompt": "why is the sky <b>blue</b>",
        },
    )
    with TraceWriter(pool) as writer:
        writer.write_spans([span(), call])
    with LogWriter(pool) as logs:
        logs.write_log(
            {
                "timestamp": datetime.now(UTC),
                "service_name": "assistant",
                "severity_number": 17,
                "body": "the model gave up",
                "trace_id": TRACE,
                "span_id": CALL,
            }
        )


def write_traces(pool: StoragePool, number: int) -> None:
    """That many traces of one span."""
    with TraceWriter(pool) as writer:
        writer.write_spans(
            span(index, trace_id=f"{index + 1:032x}", name=f"step {index}")
            for index in range(number)
        )
