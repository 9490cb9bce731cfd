"""Requests are mapped to rows and back without a database. test_database uses one.

`stored` changes a row as PostgreSQL does: jsonb stores numbers as decimals without exponents.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from observatory_storage import rows
from observatory_storage.otlp.data_points import point_of
from observatory_storage.otlp.decode import decode
from observatory_storage.otlp.logs import log_of, log_rows
from observatory_storage.otlp.metrics import metric_of, metric_rows
from observatory_storage.otlp.resource_scope import Item, resource_of, scope_of
from observatory_storage.otlp.signals import LOG_SIGNAL, METRIC_SIGNAL, TRACE_SIGNAL
from observatory_storage.otlp.traces import span_of, span_rows
from observatory_storage.tables import TABLES
from tests.otlp.generated import all_fields, requests, used_fields
from tests.otlp.otlp import REQUESTS, as_json, meaning

QUICK = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
JSON = frozenset(
    {"attributes", "resource_attributes", "scope_attributes", "otlp", "links", "body_json"}
    | {"buckets", "quantiles", "exemplars"}
)


def number(text: str) -> int | float:
    written_out = format(Decimal(text), "f")
    if "." in written_out:
        return float(written_out) or 0.0
    return int(written_out)


def stored(table: str, values: tuple[Any, ...]) -> dict[str, Any]:
    row = dict(zip(TABLES[table].columns, values, strict=True))
    for column in JSON & row.keys():
        if row[column] is not None:
            row[column] = json.loads(row[column][1:], parse_float=number)
    return row


def exported(signal: str, payload: Any) -> Iterator[Mapping[str, Any]]:
    """Each item after a round trip through its row, as a request of its own."""
    for row, item in {"traces": spans, "metrics": metrics, "logs": logs}[signal](payload):
        outer, inner, items = {
            "traces": TRACE_SIGNAL,
            "metrics": METRIC_SIGNAL,
            "logs": LOG_SIGNAL,
        }[signal].keys
        scoped = scope_of(row) | {items: [item]}
        yield {outer: [resource_of(row) | {inner: [scoped]}]}


def row_of(item: Item) -> dict[str, Any]:
    assert item.error is None, item.error
    assert type(item.row) is dict
    return item.row


def spans(payload: Any) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    request = decode(payload, TRACE_SIGNAL)
    mappings = list(span_rows(request, as_mappings=True))
    for item, mapped in zip(span_rows(request), mappings, strict=True):
        prepared = rows.prepare_span(row_of(mapped))
        if isinstance(item.row, rows.Row):
            assert item.row == prepared
        row = stored("trace_spans", prepared.values)
        events = [stored("trace_events", event) for event in prepared.events or ()]
        yield row, span_of(row, events)


def logs(payload: Any) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    for item in log_rows(decode(payload, LOG_SIGNAL)):
        row = stored("logs", rows.prepare_log(row_of(item)).values)
        yield row, log_of(row)


def metrics(payload: Any) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    for metric in metric_rows(decode(payload, METRIC_SIGNAL)):
        row = stored("metrics", rows.prepare_metric(row_of(metric.definition)).values)
        points = []
        for point in metric.points:
            prepared = rows.prepare_data_point(row_of(point) | {"metric_id": row["id"]})
            written = stored("metric_data_points", prepared.values)
            points.append(point_of(written, row["metric_type"]))
        yield row, metric_of(row, points)


@pytest.mark.parametrize("signal", REQUESTS)
@QUICK
@given(data=st.data())
def test_random_requests_survive_a_round_trip(signal: str, data: st.DataObject) -> None:
    message = data.draw(requests(signal))
    assert meaning(signal, exported(signal, message)) == meaning(signal, [message])


@pytest.mark.parametrize("signal", REQUESTS)
def test_requests_with_every_field_survive_a_round_trip(signal: str) -> None:
    used: set[str] = set()

    @settings(QUICK, max_examples=30)
    @given(requests(signal, every_field=True))
    def check(message: Message) -> None:
        used.update(used_fields(message))
        assert meaning(signal, exported(signal, message)) == meaning(signal, [message])

    expected = all_fields(REQUESTS[signal].DESCRIPTOR)
    for _ in range(10):  # of thirty requests, none may have a field with a value
        check()
        if used == expected:
            break
    assert used == expected


@pytest.mark.parametrize("signal", REQUESTS)
@settings(QUICK, max_examples=15)
@given(data=st.data())
def test_all_encodings_of_a_request_decode_to_the_same(signal: str, data: st.DataObject) -> None:
    message = data.draw(requests(signal, every_field=True))
    as_dict = as_json(message)
    forms = [
        message.SerializeToString(),
        as_dict,
        json.dumps(as_dict),
        json.dumps(as_dict).encode(),
    ]
    expected = list(exported(signal, message))
    for form in forms:
        assert list(exported(signal, form)) == expected


@pytest.mark.parametrize("signal", REQUESTS)
@settings(QUICK, max_examples=6)
@given(data=st.data())
def test_items_that_need_a_closer_look_are_read_the_same(signal: str, data: st.DataObject) -> None:
    message = data.draw(requests(signal, every_field=True))
    # Unknown fields are ignored, but not by the fast reader.
    newer = json.loads(json.dumps(as_json(message)), object_hook=lambda found: {**found, "new": 1})
    assert list(exported(signal, newer)) == list(exported(signal, message))
    assert list(exported(signal, json.dumps(newer))) == list(exported(signal, message))
