"""Parts of an item that are not valid cost only themselves, and are told."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from observatory_storage import (
    StoragePool,
    export_metrics,
    export_traces,
    ingest_metrics,
    ingest_traces,
)
from tests.otlp.faulty_items import FORMS, gauge, histogram, point, stored_point, the_error
from tests.otlp.otlp import meaning
from tests.otlp.samples import (
    SPAN_ID,
    TRACE_ID,
    metrics_request,
    span_request,
)

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
