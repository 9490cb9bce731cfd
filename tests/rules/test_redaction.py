"""Texts are redacted wherever they are, and names stay valid."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from observatory_storage import export_traces, ingest_traces
from observatory_storage.llm import LlmSpan
from observatory_storage.models import Metric, MetricDataPoint, TraceEvent, TraceSpan
from observatory_storage.writers import LogWriter, MetricWriter, TraceWriter
from tests.rules.doors import MAIL, SECRET, otlp_span, pool_with, span_request, stored_anywhere
from tests.writers.helpers import (
    a_log,
    a_metric,
    a_point,
    a_span,
    a_trace,
    an_event,
    event,
    fetch,
    trace_id,
)


def test_everything_of_a_span_is_redacted(database_url: str) -> None:
    @dataclass
    class Sender:
        mail: str

    link = {"span_id": "a" * 16, "attributes": {"m": SECRET}, "trace_state": f"a={SECRET}"}
    span = a_span(
        name=f"to {SECRET}",
        status_message=SECRET,
        scope_name=SECRET,
        service_name=SECRET,
        session_id=SECRET,
        attributes={"o": Sender(SECRET), "p": Path(SECRET), "b": {SECRET}, "n": 5},
        resource_attributes={"host": SECRET},
        scope_attributes={"x": (SECRET,)},
        links=[link],
        events=[
            event(SECRET, attributes={"exception.message": SECRET}),
            TraceEvent(**event("e", attributes={"a": [SECRET]})),
        ],
        otlp={
            "name": SECRET,
            "trace_state": SECRET,
            "attributes": [{"key": "k", "value": SECRET}],
        },
    )
    with pool_with(database_url, redact=[MAIL]) as pool:
        with TraceWriter(pool) as writer:
            writer.write_span(span)
            writer.write_trace(a_trace(2, status_message=SECRET, attributes={"a": SECRET}))
            writer.write_event(an_event(1, 1, 7, name=SECRET, attributes={"a": SECRET}))
            writer.write_span_from_llm(
                LlmSpan(model="m", prompt=SECRET, user_id=SECRET, error=SECRET)
            )
        assert not stored_anywhere(pool, SECRET)
        row = fetch(pool, TraceSpan, "span_id")[0]
        assert row["name"] == "to [redacted]"
        assert row["attributes"] == {
            "o": {"mail": "[redacted]"},
            "p": "[redacted]",
            "b": ["[redacted]"],
            "n": 5,
        }
        assert row["links"][0]["span_id"] == "a" * 16


def test_everything_of_logs_and_metrics_is_redacted(database_url: str) -> None:
    with pool_with(database_url, redact=[MAIL]) as pool:
        with LogWriter(pool) as logs, MetricWriter(pool) as metrics:
            logs.write_log(a_log(body=None, body_json=[{"a": SECRET}], event_name=SECRET))
            logs.write_log(a_log(severity_text=SECRET, resource_attributes={"a": {"b": SECRET}}))
            metric = metrics.write_metric(
                a_metric(SECRET, description=SECRET, attributes={"a": SECRET})
            )
            exemplar = {"value": 1, "attributes": {"a": SECRET}, "span_id": "a" * 16}
            metrics.write_data_point(a_point(metric, exemplars=[exemplar]))
        assert not stored_anywhere(pool, SECRET)
        # The id is that of the stored definition.
        assert (
            fetch(pool, Metric)[0]["id"] == fetch(pool, MetricDataPoint)[0]["metric_id"] == metric
        )


def test_keys_of_otlp_are_changed_in_its_notes_too(database_url: str) -> None:
    attributes = [
        {"key": "old", "value": {"bytesValue": "AAE="}},
        {"key": "gone", "value": {"bytesValue": "c2VjcmV0"}},
        {"key": "twice", "value": {"stringValue": "first"}},
        {"key": "twice", "value": {"stringValue": SECRET}},
    ]
    span = otlp_span() | {
        "attributes": attributes[:2],
        "links": [{"traceId": "a" * 32, "spanId": "b" * 16, "attributes": attributes}],
    }
    rules = {"rename_attributes": {"old": "new"}, "drop_attributes": ["gone"], "redact": [MAIL]}
    with pool_with(database_url, **rules) as pool:
        assert ingest_traces(pool, span_request(span)).accepted == 1
        assert not stored_anywhere(pool, SECRET)
        assert not stored_anywhere(pool, "c2VjcmV0")
        exported = next(iter(export_traces(pool, [trace_id(1)])))
        stored = exported["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
        new = {"key": "new", "value": {"bytesValue": "AAE="}}
        assert stored["attributes"] == [new]
        assert stored["links"][0]["attributes"] == [
            new,
            {"key": "twice", "value": {"stringValue": "first"}},
            {"key": "twice", "value": {"stringValue": "[redacted]"}},
        ]


def test_names_stay_valid(database_url: str) -> None:
    rules = {
        "redact": [
            {"pattern": "x+", "replacement": ""},
            {"pattern": "y", "replacement": "z" * 2000},
        ]
    }
    with pool_with(database_url, **rules) as pool:
        with TraceWriter(pool) as writer:
            writer.write_spans([a_span(1, 1, name="xxx"), a_span(1, 2, name="y")])
        assert [row["name"] for row in fetch(pool, TraceSpan, "span_id")] == [
            "[redacted]",
            "z" * 1024,
        ]
