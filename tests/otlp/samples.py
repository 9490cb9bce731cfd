"""Small hand-written requests: one item in one scope of one resource."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message

from tests.otlp.otlp import as_message

TRACE_ID = "5B8EFFF798038103D269B633813FC60C"
SPAN_ID = "EEE19B7EC3C1B174"
RESOURCE = {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]}
SCOPE = {"name": "tests", "version": "1.0"}


def span_request(**fields: Any) -> dict[str, Any]:
    return spans_request({**span(), **fields})


def spans_request(*spans: Any) -> dict[str, Any]:
    return {
        "resourceSpans": [
            {"resource": RESOURCE, "scopeSpans": [{"scope": SCOPE, "spans": list(spans)}]}
        ]
    }


def span(**fields: Any) -> dict[str, Any]:
    return {
        "traceId": TRACE_ID,
        "spanId": SPAN_ID,
        "name": "chat",
        "kind": 3,
        "startTimeUnixNano": "1544712660000000123",
        "endTimeUnixNano": "1544712661000000456",
        "status": {},
        **fields,
    }


def log_request(**fields: Any) -> dict[str, Any]:
    return logs_request(
        {
            "timeUnixNano": "1544712660300000001",
            "observedTimeUnixNano": "1544712660300000002",
            "severityNumber": 9,
            "body": {"stringValue": "hello"},
            **fields,
        }
    )


def logs_request(*records: Any) -> dict[str, Any]:
    return {
        "resourceLogs": [
            {"resource": RESOURCE, "scopeLogs": [{"scope": SCOPE, "logRecords": list(records)}]}
        ]
    }


def metric_request(**fields: Any) -> dict[str, Any]:
    point = {"timeUnixNano": "1544712660300000001", "asInt": "5"}
    return metrics_request({"name": "calls", "gauge": {"dataPoints": [point]}, **fields})


def metrics_request(*metrics: Any) -> dict[str, Any]:
    return {
        "resourceMetrics": [
            {"resource": RESOURCE, "scopeMetrics": [{"scope": SCOPE, "metrics": list(metrics)}]}
        ]
    }


def request_of(signal: str, request: dict[str, Any]) -> Message:
    """The request as a message. Unknown fields are an error."""
    return as_message(signal, request)
