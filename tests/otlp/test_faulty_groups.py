"""Resources and scopes that are not valid cost only their items."""

from __future__ import annotations

from typing import Any

import pytest

from observatory_storage import (
    StoragePool,
    export_traces,
    ingest_logs,
    ingest_metrics,
    ingest_traces,
)
from observatory_storage.otlp.message_classes import lean_class
from tests.otlp.faulty_items import FORMS, point, the_error
from tests.otlp.otlp import meaning
from tests.otlp.samples import (
    SPAN_ID,
    log_request,
    metrics_request,
    request_of,
    span,
    span_request,
    spans_request,
)

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
