"""How exported traces are divided into requests, and what each request costs."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from observatory_storage import CopyWriter, StoragePool, TraceFilters, export_traces
from tests.repositories.samples import START, statements, trace_key

SPANS_OF_TRACES = (5, 1, 17)


@pytest.fixture
def stored(pool: StoragePool) -> StoragePool:
    """Three traces; each span has as many events as its number says, up to 2, or links."""
    CopyWriter(pool).write_spans(
        {
            "trace_id": trace_key(trace),
            "span_id": f"{place:016x}",
            "name": "op",
            "service_name": "chat",
            "start_time": START + timedelta(seconds=place),
            "attributes": {"place": place, "nested": {"list": [1, "a", {"b": [None, []]}]}},
            "links": [] if place % 4 else [{"trace_id": trace_key(9), "span_id": "0a" * 8}],
            "events": [
                {"name": f"e{number}", "timestamp": START, "attributes": {"place": place}}
                for number in range(place % 3)
            ],
        }
        for trace, count in enumerate(SPANS_OF_TRACES, 1)
        for place in range(1, count + 1)
    )
    return pool


def spans_of(requests: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The spans of each request."""
    return [
        [
            span
            for resource in request["resourceSpans"]
            for scope in resource["scopeSpans"]
            for span in scope["spans"]
        ]
        for request in requests
    ]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 11, 12, 22, 23, 500])
def test_requests_of_any_size_have_the_same_spans_in_order(stored: StoragePool, size: int) -> None:
    total = sum(SPANS_OF_TRACES)
    requests = spans_of(list(export_traces(stored, batch_size=size)))
    assert [len(spans) for spans in requests] == [
        min(size, total - start) for start in range(0, total, size)
    ]
    spans = [span for request in requests for span in request]
    keys = [(span["traceId"], span["spanId"]) for span in spans]
    assert keys == sorted(keys)
    for span in spans:
        place = int(span["spanId"], 16)
        assert span["attributes"][0]["value"] == {"intValue": str(place)}
        assert [event["name"] for event in span.get("events", [])] == ["e0", "e1"][: place % 3]
        assert all(
            event["attributes"] == span["attributes"][:1] for event in span.get("events", [])
        )
        assert len(span.get("links", [])) == (place % 4 == 0)
    (whole,) = spans_of(list(export_traces(stored)))
    assert json.dumps(spans) == json.dumps(whole)


def test_one_statement_reads_the_spans_of_two_requests(stored: StoragePool) -> None:
    with statements(stored.engine) as seen:
        requests = list(export_traces(stored, batch_size=6))
    assert len(requests) == 4
    assert sum("trace_spans" in statement for statement in seen) == 2
    assert sum("trace_events" in statement for statement in seen) == len(requests)


def test_traces_of_several_lists_are_all_exported(pool: StoragePool) -> None:
    count = 1203  # more than two lists of traces
    CopyWriter(pool).write_spans(
        {
            "trace_id": trace_key(trace),
            "span_id": "0b" * 8,
            "name": "op",
            "service_name": "chat",
            "start_time": START + timedelta(seconds=trace),
        }
        for trace in range(1, count + 1)
    )
    for filters in (None, TraceFilters(service_name="chat", limit=7)):
        requests = spans_of(list(export_traces(pool, filters)))
        exported = [span["traceId"] for spans in requests for span in spans]
        assert len(exported) == len(set(exported)) == count
        # The newest traces come first, a hundred at a time.
        assert exported[:100] == [trace_key(trace) for trace in range(count - 99, count + 1)]
