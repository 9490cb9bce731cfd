"""What senders leave out or get wrong costs only what is at fault, and is told by name."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from observatory_storage import MetricDataPoint, StoragePool, TraceSpan
from observatory_storage.otlp import (
    IngestResult,
    export_metrics,
    export_traces,
    ingest_logs,
    ingest_metrics,
    ingest_traces,
    item_store,
)
from observatory_storage.otlp.logs import ID_ATTRIBUTE
from observatory_storage.otlp.message_classes import lean_class
from observatory_storage.rows import PART
from observatory_storage.times import UNIX_EPOCH
from tests.otlp.otlp import meaning
from tests.otlp.samples import (
    SPAN_ID,
    TRACE_ID,
    log_request,
    logs_request,
    metrics_request,
    request_of,
    span,
    span_request,
    spans_request,
)

FORMS: tuple[Callable[[Any], Any], ...] = (
    lambda request: request,
    lambda request: json.dumps(request).encode(),
)
END = "1544712661000000456"


def without(item: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in item.items() if name not in names}


def the_error(result: IngestResult) -> str:
    assert result.accepted == 0
    (refused,) = result.rejected
    return str(refused.error)


def gauge(**fields: Any) -> dict[str, Any]:
    return metrics_request({"name": "calls", "gauge": {"dataPoints": [point(**fields)]}})


def histogram(**fields: Any) -> dict[str, Any]:
    data = {"aggregationTemporality": 2, "dataPoints": [point(**fields)]}
    return metrics_request({"name": "took", "histogram": data})


def point(**fields: Any) -> dict[str, Any]:
    return {"timeUnixNano": "1544712660300000001", **fields}


def stored_span(pool: StoragePool) -> TraceSpan:
    with pool.unit_of_work() as uow:
        (stored,) = uow.traces.get_spans(TRACE_ID, with_events=True)
    return stored


def stored_point(pool: StoragePool) -> MetricDataPoint:
    with pool.unit_of_work() as uow:
        (metric,) = uow.metrics.list()
        (stored,) = uow.metrics.get_data_points(metric.id)
    return stored


# Times that are missing.


@pytest.mark.parametrize("form", [*FORMS, lambda request: request_of("traces", request)])
def test_span_without_a_start_starts_at_its_end(pool: StoragePool, form: Any) -> None:
    request = spans_request(without(span(events=[{"name": "e"}]), "startTimeUnixNano"))
    assert ingest_traces(pool, form(request)).accepted == 1
    stored = stored_span(pool)
    assert stored.start_time == stored.end_time == UNIX_EPOCH + timedelta(seconds=1544712661)
    assert (stored.start_ns, stored.duration_us, stored.duration_ns) == (456, 0, 0)
    assert stored.events[0].timestamp == stored.start_time
    with pool.unit_of_work() as uow:
        assert uow.traces.get_by_trace_id(TRACE_ID).duration_us == 0
    assert meaning("traces", export_traces(pool)) == meaning("traces", [request])
    for exported in list(export_traces(pool)):
        assert ingest_traces(pool, exported).accepted == 1
    assert stored_span(pool).to_dict() == stored.to_dict()


@pytest.mark.parametrize("zero", [None, 0, "0"])
@pytest.mark.parametrize("form", FORMS)
def test_span_without_start_and_end_is_refused_by_name(
    pool: StoragePool, form: Any, zero: Any
) -> None:
    bad = span(startTimeUnixNano=zero, endTimeUnixNano=zero)
    error = the_error(ingest_traces(pool, form(spans_request(bad))))
    assert "scopeSpans[0].spans[0].startTimeUnixNano=" in error
    assert "is required, or at least endTimeUnixNano" in error


def test_event_without_a_time_has_the_start_of_its_span(pool: StoragePool) -> None:
    request = span_request(events=[{"name": "a"}, {"name": "b", "timeUnixNano": END}])
    ingest_traces(pool, request)
    stored = stored_span(pool)
    first, second = stored.events
    assert (first.timestamp, first.timestamp_ns) == (stored.start_time, stored.start_ns)
    assert second.timestamp == stored.end_time
    assert meaning("traces", export_traces(pool)) == meaning("traces", [request])


@pytest.mark.parametrize("form", [*FORMS, lambda request: request_of("metrics", request)])
def test_data_point_without_a_time_is_refused_by_name(pool: StoragePool, form: Any) -> None:
    request = gauge(asInt="1", timeUnixNano=0)
    request["resourceMetrics"][0]["scopeMetrics"][0]["metrics"][0]["gauge"]["dataPoints"].append(
        point(asInt="2")
    )
    result = ingest_metrics(pool, form(request))
    assert (result.accepted, [one.index for one in result.rejected]) == (1, [0])
    error = str(result.rejected[0].error)
    assert "metrics[0].gauge.dataPoints[0].timeUnixNano=0: is required" in error


# Fields that are misspelt.

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


# Links and exemplars that are not valid.

BAD_LINKS: list[tuple[Any, str]] = [
    ({"traceId": "no hex", "spanId": SPAN_ID}, "links[1].traceId='no hex'"),
    ({"trace_id": TRACE_ID, "spanId": SPAN_ID}, "must be named traceId"),
    ({"traceId": TRACE_ID, "spanId": 5}, "links[1].spanId=5"),
    (5, "links[1]=5: must be an object"),
    ({"attributes": {"a": 1}}, "links[1].attributes={'a': 1}: must be an array"),
    (
        {"traceId": base64.b64encode(bytes(range(16))).decode()},
        "(OTLP/JSON has ids in hex, not in base64)",
    ),
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("bad", "told"), BAD_LINKS)
def test_bad_link_costs_only_itself(pool: StoragePool, form: Any, bad: Any, told: str) -> None:
    good = [
        {"traceId": TRACE_ID, "spanId": SPAN_ID},
        {"traceId": TRACE_ID, "attributes": [{"key": "b", "value": {"bytesValue": "AQ=="}}]},
    ]
    result = ingest_traces(pool, form(span_request(links=[good[0], bad, good[1]])))
    assert (result.accepted, result.rejected, result.repaired) == (1, [], 1)
    (dropped,) = result.dropped
    assert dropped.index == 0
    assert dropped.row["spanId"] == SPAN_ID
    assert "resourceSpans[0].scopeSpans[0].spans[0].links[1]" in str(dropped.error)
    assert told in str(dropped.error)
    assert told in json.loads(result.to_otlp())["partialSuccess"]["errorMessage"]
    expected = meaning("traces", [span_request(links=good)])
    assert meaning("traces", export_traces(pool)) == expected


@pytest.mark.parametrize("form", FORMS)
def test_bad_exemplar_costs_only_itself(pool: StoragePool, form: Any) -> None:
    good = {"timeUnixNano": "7", "asDouble": 1e20, "traceId": TRACE_ID, "spanId": SPAN_ID}
    bad = [
        {**good, "spanId": "x"},
        {**good, "asInt": "1"},
        {**good, "filtered_attributes": []},
        {"asInt": "many"},
    ]
    result = ingest_metrics(pool, form(gauge(asInt="1", exemplars=[*bad, good])))
    assert (result.accepted, result.rejected, result.repaired) == (1, [], 4)
    errors = [str(one.error) for one in result.dropped]
    for index, (error, told) in enumerate(
        zip(errors, ("spanId", "one member", "filteredAttributes", "asInt"), strict=True)
    ):
        assert f"gauge.dataPoints[0].exemplars[{index}]" in error
        assert told in error
    expected = meaning("metrics", [gauge(asInt="1", exemplars=[good])])
    assert meaning("metrics", export_metrics(pool)) == expected


def test_bad_link_of_a_refused_span_is_not_told_twice(pool: StoragePool) -> None:
    request = span_request(links=[{"spanId": "x"}], endTimeUnixNano="1")
    result = ingest_traces(pool, request)
    assert (result.accepted, len(result.rejected), result.dropped) == (0, 1, [])


# The least and the greatest of no values.


@pytest.mark.parametrize("kind", ["histogram", "exponentialHistogram"])
@pytest.mark.parametrize(
    ("least", "greatest"),
    [
        (1.7976931348623157e308, -1.7976931348623157e308),
        (1.7976931348623157e308, None),
        ("Infinity", "-Infinity"),
        (9.2e18, -9.2e18),
        (0.0, -0.0),
        (5.5, 1.25),
    ],
)
def test_least_and_greatest_of_no_values_are_kept_beside_the_columns(
    pool: StoragePool, kind: str, least: Any, greatest: Any
) -> None:
    fields = {"count": "0", "sum": 0.0, "min": least, "max": greatest}
    data = {"aggregationTemporality": 2, "dataPoints": [point(**fields)]}
    request = metrics_request({"name": "took", kind: data})
    assert ingest_metrics(pool, request).accepted == 1
    stored = stored_point(pool)
    assert (stored.min, stored.max, stored.sum) == (None, None, 0.0)
    assert meaning("metrics", export_metrics(pool)) == meaning("metrics", [request])


def test_least_value_above_the_greatest_is_refused(pool: StoragePool) -> None:
    assert "min=5.0" in the_error(ingest_metrics(pool, histogram(count="1", min=5, max=1)))


# Two items of one key.


def test_second_data_point_of_a_key_is_refused_by_name(pool: StoragePool) -> None:
    points = [point(asInt=str(value)) for value in (3, 4)]
    metric = {"name": "calls", "gauge": {"dataPoints": points}}
    # The same metric may be stated again, with other points.
    other = {"name": "calls", "gauge": {"dataPoints": [{"timeUnixNano": "9", "asInt": "5"}]}}
    result = ingest_metrics(pool, metrics_request(metric, other))
    assert (result.accepted, result.duplicates) == (2, 0)
    (refused,) = result.rejected
    assert (refused.index, refused.row) == (1, points[1])
    assert "gauge.dataPoints[1].timeUnixNano=" in str(refused.error)
    assert "of resourceMetrics[0].scopeMetrics[0].metrics[0].gauge.dataPoints[0]" in str(
        refused.error
    )
    again = ingest_metrics(pool, metrics_request(metric, other))
    assert (again.accepted, again.duplicates, len(again.rejected)) == (2, 2, 1)
    exported = meaning("metrics", export_metrics(pool))
    kept = {"name": "calls", "gauge": {"dataPoints": points[:1]}}
    assert exported == meaning("metrics", [metrics_request(kept, other)])


@pytest.mark.parametrize("count", [2, PART + 10])
def test_second_span_of_a_key_is_refused_by_name(pool: StoragePool, count: int) -> None:
    spans = [span(spanId=f"{number:016x}") for number in range(1, count)]
    result = ingest_traces(pool, spans_request(*spans, {**spans[0], "name": "second"}))
    assert (result.accepted, result.duplicates) == (len(spans), 0)
    (refused,) = result.rejected
    assert (refused.index, refused.row["name"]) == (len(spans), "second")
    assert f"spans[{len(spans)}].spanId='0000000000000001': must not have" in str(refused.error)
    assert meaning("traces", export_traces(pool)) == meaning("traces", [spans_request(*spans)])
    again = ingest_traces(pool, spans_request(*spans))
    assert (again.accepted, again.duplicates) == (len(spans), len(spans))


@pytest.mark.parametrize("size", [1, 10_000])
def test_of_two_versions_of_a_span_the_one_that_has_ended_is_stored(
    pool: StoragePool, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(item_store, "_ROWS_A_TRANSACTION", size)
    running = without(span(name="running"), "endTimeUnixNano")
    result = ingest_traces(pool, spans_request(running, span(), span(name="third"), running))
    assert result.accepted == 1
    assert [one.index for one in result.rejected] == [0, 2, 3]
    assert "of resourceSpans[0].scopeSpans[0].spans[1]: one" in str(result.rejected[0].error)
    assert meaning("traces", export_traces(pool)) == meaning("traces", [span_request()])


def test_second_log_record_of_an_id_is_refused_by_name(pool: StoragePool) -> None:
    own_id = {"key": ID_ATTRIBUTE, "value": {"stringValue": str(UUID(int=5))}}
    request = log_request(attributes=[own_id])
    records = request["resourceLogs"][0]["scopeLogs"][0]["logRecords"]
    records.append({**records[0], "severityNumber": 5})
    result = ingest_logs(pool, request)
    assert (result.accepted, [one.index for one in result.rejected]) == (1, [1])
    assert "logRecords[1].attributes=UUID(" in str(result.rejected[0].error)
    assert "the id and time of resourceLogs[0].scopeLogs[0].logRecords[0]" in str(
        result.rejected[0].error
    )


@pytest.mark.parametrize("repeated_at", [0, 2 * PART])
def test_second_item_of_a_key_is_refused_in_another_transaction_too(
    pool: StoragePool, monkeypatch: pytest.MonkeyPatch, repeated_at: int
) -> None:
    monkeypatch.setattr(item_store, "_ROWS_A_TRANSACTION", PART + 30)
    spans = [span(spanId=f"{number:016x}") for number in range(1, 3 * PART)]
    result = ingest_traces(pool, json.dumps(spans_request(*spans, spans[repeated_at])))
    assert (result.accepted, result.duplicates) == (len(spans), 0)
    assert [one.index for one in result.rejected] == [len(spans)]
    assert f".spans[{repeated_at}]: one" in str(result.rejected[0].error)


def test_items_that_were_stored_before_are_counted(pool: StoragePool) -> None:
    numbers = range(1, PART + 20)
    spans = [span(spanId=f"{number:016x}") for number in numbers]
    logs = [{"timeUnixNano": str(number), "severityNumber": 9} for number in numbers]
    for store, request, fewer in (
        (ingest_traces, spans_request(*spans), spans_request(*spans[:7])),
        (ingest_logs, logs_request(*logs), logs_request(*logs[:7])),
    ):
        assert store(pool, fewer).duplicates == 0
        whole = store(pool, request)
        assert (whole.accepted, whole.duplicates, whole.repaired) == (len(spans), 7, 0)
        again = store(pool, request)
        assert (again.accepted, again.duplicates) == (len(spans), len(spans))
        assert again.to_otlp() == b"{}"
    changed = ingest_traces(pool, span_request(spanId=f"{1:016x}", name="new"))
    assert (changed.accepted, changed.duplicates) == (1, 1)


# Resources and scopes that are not valid.

BAD_RESOURCES: list[tuple[dict[str, Any], str]] = [
    ({"resource": {"attributes": {"service.name": "x"}}}, "resource.attributes={"),
    ({"resource": {"attributes": [{"key": "k", "value": 5}]}}, "resource.attributes.k=5"),
    ({"resource": {"Attributes": []}}, "resource.Attributes=[]: must be named attributes"),
    ({"resource": {"attributes": [{"key": "k", "string_value": "x"}]}}, "must stand in the value"),
    ({"resource": 5}, "resource=5: must be an object"),
    ({"resource": {}, "schemaUrl": 5}, "schemaUrl=5: must be text"),
]
BAD_SCOPES: list[tuple[dict[str, Any], str]] = [
    ({"scope": {"name": 5}}, "scope.name=5: must be text"),
    ({"scope": {"Version": "1"}}, "scope.Version='1': must be named version"),
    ({"scope": [], "schemaUrl": "x"}, "scope=[]: must be an object"),
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("bad", "told"), BAD_RESOURCES)
def test_bad_resource_costs_only_its_items(
    pool: StoragePool, form: Any, bad: dict[str, Any], told: str
) -> None:
    good = spans_request(span(spanId="1" * 16))
    request = spans_request(span(spanId="1" * 16))
    lost = [span(spanId="2" * 16), span(spanId="3" * 16)]
    request["resourceSpans"].insert(0, {**bad, "scopeSpans": [{"spans": [one]} for one in lost]})
    result = ingest_traces(pool, form(request))
    assert (result.accepted, [one.index for one in result.rejected]) == (1, [0, 1])
    assert [one.row for one in result.rejected] == lost
    for refused in result.rejected:
        assert str(refused.error).startswith("resourceSpans[0].")
        assert told in str(refused.error)
    assert meaning("traces", export_traces(pool)) == meaning("traces", [good])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("bad", "told"), BAD_SCOPES)
def test_bad_scope_costs_only_its_items(
    pool: StoragePool, form: Any, bad: dict[str, Any], told: str
) -> None:
    request: Any = metrics_request({"name": "good", "gauge": {"dataPoints": [point(asInt="1")]}})
    points = [point(asInt="1"), point(asInt="2")]
    lost = {"name": "bad", "gauge": {"dataPoints": points}}
    scopes = request["resourceMetrics"][0]["scopeMetrics"]
    scopes.append({**bad, "metrics": [lost]})
    result = ingest_metrics(pool, form(request))
    assert (result.accepted, [one.index for one in result.rejected]) == (1, [1, 2])
    assert [one.row for one in result.rejected] == points
    assert f"resourceMetrics[0].scopeMetrics[1].{told}" in str(result.rejected[0].error)

    logged: Any = log_request()
    logged["resourceLogs"][0]["scopeLogs"].append({**bad, "logRecords": [{"severityNumber": 9}]})
    result = ingest_logs(pool, form(logged))
    assert (result.accepted, [one.index for one in result.rejected]) == (1, [1])
    assert f"resourceLogs[0].scopeLogs[1].{told}" in str(result.rejected[0].error)


@pytest.mark.parametrize("form", FORMS)
def test_bad_resource_or_scope_without_items_is_told_as_one(pool: StoragePool, form: Any) -> None:
    request = span_request()
    bad: list[Any] = [
        {"resource": 5},
        {"resource": 5, "scopeSpans": [{"schemaUrl": "x"}]},
        {"scopeSpans": [{"scope": {"name": 7}}]},
    ]
    request["resourceSpans"] += bad
    result = ingest_traces(pool, form(request))
    assert (result.accepted, [one.index for one in result.rejected]) == (1, [1, 2, 3])
    expected = [bad[0], bad[1]["scopeSpans"][0], bad[2]["scopeSpans"][0]]
    assert [one.row for one in result.rejected] == expected
    assert "resourceSpans[3].scopeSpans[0].scope.name=7" in str(result.rejected[2].error)


def test_resource_of_protobuf_with_wrong_attributes_costs_only_its_items(
    pool: StoragePool,
) -> None:
    request = spans_request(span(spanId="1" * 16))
    request["resourceSpans"].append({"scopeSpans": [{"spans": [span()]}]})
    whole = request_of("traces", request)
    message = lean_class(type(whole)).FromString(whole.SerializeToString())
    message.resource_spans[1].resource.attributes.append(b"\x0a\x05k")
    result = ingest_traces(pool, message.SerializeToString())
    assert (result.accepted, [one.index for one in result.rejected]) == (1, [1])
    assert "resourceSpans[1].resource.attributes=" in str(result.rejected[0].error)
    assert result.rejected[0].row["spanId"].upper() == SPAN_ID


def test_error_of_a_row_names_its_item(pool: StoragePool) -> None:
    bad = span(endTimeUnixNano="1")
    error = the_error(ingest_traces(pool, spans_request(bad)))
    assert error.startswith("resourceSpans[0].scopeSpans[0].spans[0].end_time=")
