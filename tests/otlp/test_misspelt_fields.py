"""Known fields that are misspelt are refused by name; unknown ones are ignored."""

from __future__ import annotations

from typing import Any

import pytest

from observatory_storage import (
    StoragePool,
    ingest_logs,
    ingest_metrics,
    ingest_traces,
)
from tests.otlp.faulty_items import END, FORMS, gauge, histogram, point, stored_span, the_error
from tests.otlp.samples import (
    SPAN_ID,
    TRACE_ID,
    log_request,
    metrics_request,
    span,
    span_request,
    spans_request,
)

TEXT = {"stringValue": "x"}
MISSPELT_SPANS: list[tuple[dict[str, Any], str]] = [
    ({"attributes": [{"key": "k", "value": {"string_value": "x"}}]}, "attributes.k.string_value"),
    ({"attributes": [{"key": "k", "value": {"stringvalue": "x"}}]}, "be named stringValue"),
    ({"attributes": [{"key": "k", "value": {"StringValue": "x"}}]}, "be named stringValue"),
    ({"attributes": [{"key": "k", "value": {"string": "x"}}]}, "be named stringValue"),
    ({"attributes": [{"key": "k", "value": {"int_value": 1}}]}, "be named intValue"),
    ({"attributes": [{"key": "k", "value": {"value": TEXT}}]}, "must be one of arrayValue,"),
    ({"attributes": [{"key": "k", "stringValue": "x"}]}, "attributes[0].stringValue='x'"),
    ({"attributes": [{"key": "k", "string_value": "x"}]}, 'in the value: "value": {"stringValue"'),
    ({"attributes": [{"Key": "k", "value": TEXT}]}, "attributes[0].Key='k': must be named key"),
    ({"attributes": [{"key": "k", "Value": TEXT}]}, "must be named value"),
    (
        {"attributes": [{"key": "k", "value": {"arrayValue": {"value": [TEXT]}}}]},
        "attributes.k.value=[{'stringValue': 'x'}]: must be named values",
    ),
    (
        {"attributes": [{"key": "k", "value": {"arrayValue": {"values": [{"bool_value": 1}]}}}]},
        "attributes.k[0].bool_value=1: must be named boolValue",
    ),
    (
        {
            "attributes": [
                {
                    "key": "k",
                    "value": {"kvlistValue": {"values": [{"key": "in", "intValue": 1}]}},
                }
            ]
        },
        "attributes.k[0].intValue=1: must stand in the value",
    ),
    ({"attribute": [{"key": "k", "value": TEXT}]}, "must be named attributes"),
    ({"parent_span_id": SPAN_ID}, "parent_span_id='EEE19B7EC3C1B174': must be named parentSpanId"),
    ({"parentSpanID": SPAN_ID}, "must be named parentSpanId"),
    ({"trace_state": "a=b"}, "must be named traceState"),
    ({"status": {"Code": 2}}, "status.Code=2: must be named code"),
    ({"events": [{"name": "e", "time_unix_nano": "5"}]}, "events[0].time_unix_nano='5': must be"),
    ({"events": [{"name": "e", "Attributes": []}]}, "events[0].Attributes=[]: must be named"),
]


@pytest.mark.parametrize(("fields", "told"), MISSPELT_SPANS)
@pytest.mark.parametrize("form", FORMS)
def test_misspelt_field_of_a_span_is_refused_by_name(
    pool: StoragePool, form: Any, fields: dict[str, Any], told: str
) -> None:
    error = the_error(ingest_traces(pool, form(span_request(**fields))))
    assert "resourceSpans[0].scopeSpans[0].spans[0]." in error
    assert told in error


def test_required_field_that_is_misspelt_is_refused_by_its_name(pool: StoragePool) -> None:
    for name, wrong in (
        ("traceId", "trace_id"),
        ("spanId", "SpanId"),
        ("startTimeUnixNano", "start_time_unix_nano"),
    ):
        given = span()
        given[wrong] = given.pop(name)
        error = the_error(ingest_traces(pool, spans_request(given)))
        assert f"spans[0].{wrong}=" in error
        assert f"must be named {name}" in error


@pytest.mark.parametrize("form", FORMS)
def test_misspelt_fields_of_logs_and_metrics_are_refused_by_name(
    pool: StoragePool, form: Any
) -> None:
    for fields, told in (
        ({"severity_text": "WARN"}, "logRecords[0].severity_text='WARN'"),
        ({"body": {"string_value": "x"}}, "logRecords[0].body.string_value='x'"),
        ({"traceid": TRACE_ID}, "must be named traceId"),
    ):
        assert told in the_error(ingest_logs(pool, form(log_request(**fields))))
    for request, told in (
        (gauge(as_int="5"), "dataPoints[0].as_int='5': must be named asInt"),
        (gauge(asInt="5", start_time_unix_nano=5), "must be named startTimeUnixNano"),
        (histogram(count=1, bucket_counts=["1"]), "must be named bucketCounts"),
        (metrics_request({"name": "m", "Unit": "s"}), "metrics[0].Unit='s': must be named unit"),
        (
            metrics_request({"name": "m", "gauge": {"data_points": [point(asInt=1)]}}),
            "metrics[0].gauge.data_points=",
        ),
        (
            metrics_request({"name": "m", "exponential_histogram": {"dataPoints": []}}),
            "must be named exponentialHistogram",
        ),
    ):
        assert told in the_error(ingest_metrics(pool, form(request)))


@pytest.mark.parametrize("form", FORMS)
def test_unknown_fields_are_ignored_at_every_level(pool: StoragePool, form: Any) -> None:
    new = {"profileId": "x", "priority": 3, "time": 5}
    value = {"stringValue": "x", "newerValue": 1}
    request = span_request(
        attributes=[{"key": "k", "value": value, **new}],
        events=[{"name": "e", "timeUnixNano": END, **new}],
        links=[{"traceId": TRACE_ID, "spanId": SPAN_ID, **new}],
        status={"code": 1, **new},
        **new,
    )
    result = ingest_traces(pool, form(request))
    assert (result.accepted, result.rejected, result.repaired) == (1, [], 0)
    stored = stored_span(pool)
    assert (stored.attributes, stored.status, len(stored.links)) == ({"k": "x"}, "ok", 1)


@pytest.mark.parametrize("form", FORMS)
def test_second_spelling_beside_the_right_one_is_ignored(pool: StoragePool, form: Any) -> None:
    request = span_request(trace_id="no id", span_id=None, events=[{"name": "e", "Name": "f"}])
    assert ingest_traces(pool, form(request)).accepted == 1
    assert stored_span(pool).events[0].name == "e"


def test_error_names_the_path_within_attributes(pool: StoragePool) -> None:
    bad = {"arrayValue": {"values": [TEXT, {"intValue": "many"}]}}
    request = span_request(attributes=[{"key": "safety_settings", "value": bad}])
    error = the_error(ingest_traces(pool, request))
    assert ".spans[0].attributes.safety_settings[1]='many'" in error
