"""Requests are ingested into PostgreSQL, exported, and ingested again."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import given, settings

from observatory_storage import (
    LogWriter,
    StoragePool,
    detect_signal,
    export_logs,
    export_traces,
    ingest_logs,
    ingest_metrics,
    ingest_traces,
)
from observatory_storage.errors import ValidationError
from observatory_storage.otlp.logs import ID_ATTRIBUTE
from observatory_storage.repositories import LogFilters
from observatory_storage.times import UNIX_EPOCH
from tests.otlp.generated import requests
from tests.otlp.otlp import REQUESTS, meaning
from tests.otlp.samples import (
    TRACE_ID,
    log_request,
    logs_request,
    metrics_request,
    span,
    span_request,
    spans_request,
)
from tests.otlp.stored import all_rows, clear, comes_back
from tests.otlp.test_round_trip import QUICK
from tests.repositories.samples import START, a_log

# Published with the protocol, not part of this repository.
PUBLISHED = sorted((Path(__file__).parents[3] / "shared" / "otlp").glob("*.json"))
ABSENT = pytest.param(
    Path(), id="none", marks=pytest.mark.skip(reason="the published examples are not beside us")
)


@pytest.mark.parametrize("signal", REQUESTS)
def test_requests_with_every_field_are_exported_unchanged_and_are_idempotent(
    pool: StoragePool, signal: str
) -> None:
    @settings(QUICK, max_examples=12)
    @given(requests(signal, every_field=True))
    def check(message: Message) -> None:
        comes_back(pool, signal, message)

    check()


@pytest.mark.parametrize("signal", REQUESTS)
def test_random_requests_are_exported_unchanged_and_are_idempotent(
    pool: StoragePool, signal: str
) -> None:
    @settings(QUICK, max_examples=12)
    @given(requests(signal))
    def check(message: Message) -> None:
        comes_back(pool, signal, message)

    check()


@pytest.mark.parametrize("path", PUBLISHED or [ABSENT], ids=lambda path: path.stem)
def test_published_examples_are_exported_unchanged(pool: StoragePool, path: Path) -> None:
    comes_back(pool, detect_signal(path.read_bytes()), json.loads(path.read_bytes()))


def test_one_bad_item_does_not_affect_the_others(pool: StoragePool) -> None:
    good = span(spanId="0000000000000001")
    bad = [
        span(traceId=""),
        span(traceId="0" * 32),
        span(traceId="0x" + TRACE_ID[2:]),
        span(spanId="12"),
        span(attributes=[{"key": "k", "value": {"intValue": "many"}}]),
        span(endTimeUnixNano="1"),
        span(startTimeUnixNano=-1),
        span(kind="SPAN_KIND_STRANGE"),
        "no span",
    ]
    result = ingest_traces(pool, spans_request(*bad, good))
    assert result.accepted == 1
    assert [refused.index for refused in result.rejected] == list(range(len(bad)))
    assert [refused.row for refused in result.rejected] == bad
    assert all(isinstance(refused.error, ValidationError) for refused in result.rejected)
    assert "resourceSpans[0].scopeSpans[0].spans[3].spanId='12'" in str(result.rejected[3].error)
    assert meaning("traces", export_traces(pool)) == meaning("traces", [spans_request(good)])

    records = [{"timeUnixNano": "1"}, {"traceId": "1234"}, {"severityNumber": "LOUD"}]
    logged = ingest_logs(pool, logs_request(*records))
    assert (logged.accepted, [refused.index for refused in logged.rejected]) == (1, [1, 2])

    point = {"asInt": "1", "timeUnixNano": "5"}
    measured = ingest_metrics(
        pool,
        metrics_request(
            {"name": "bad", "sum": {"isMonotonic": "yes", "dataPoints": [point, point]}},
            {"name": "empty and bad", "gauge": 5},
            {"name": "good", "gauge": {"dataPoints": [point, {"asInt": "1.5"}]}},
        ),
    )
    assert measured.accepted == 1
    assert [refused.index for refused in measured.rejected] == [2, 0, 1, 3]


def test_refused_request_stores_nothing(pool: StoragePool) -> None:
    request = span_request()
    request["resourceSpans"].append({"scopeSpans": 5})
    with pytest.raises(ValidationError, match=r"resourceSpans\[1\].scopeSpans"):
        ingest_traces(pool, request)
    with pytest.raises(ValidationError, match="must be a request of traces, and is one of logs"):
        ingest_traces(pool, log_request())
    assert list(export_traces(pool)) == []


def test_equal_log_records_are_all_stored(pool: StoragePool) -> None:
    record = {"timeUnixNano": "5", "body": {"stringValue": "again"}}
    request = logs_request(record, record, {**record, "severityNumber": 9}, record)
    comes_back(pool, "logs", request)
    assert ingest_logs(pool, request).accepted == 4


def test_exported_logs_keep_their_ids(pool: StoragePool) -> None:
    """Equal records of a writer and of a request, which exports of two records tear apart."""
    equal = [a_log(number, body="x", attributes={"a": 1}) for number in (1, 2, 3)]
    with LogWriter(pool) as writer:
        for row in [*equal, {key: equal[0][key] for key in equal[0].keys() - {"id"}}]:
            writer.write_log(row)
    record = {"timeUnixNano": "5", "body": {"stringValue": "again"}}
    ingest_logs(pool, logs_request(*[record] * 5))
    before = all_rows(pool)["logs"]
    assert len(before) == 9
    exported = list(export_logs(pool, batch_size=2))
    for request in exported * 2:
        assert ingest_logs(pool, request).rejected == []
    assert all_rows(pool)["logs"] == before
    assert list(export_logs(pool, batch_size=2)) == exported
    clear(pool)
    for request in exported:
        ingest_logs(pool, request)
    assert list(export_logs(pool, batch_size=2)) == exported
    # In one request, these have no equals elsewhere.
    assert ID_ATTRIBUTE not in str(list(export_logs(pool, LogFilters(end_time=START))))


@pytest.mark.parametrize("value", [{"stringValue": "5"}, {"intValue": "5"}, {}, None, 5])
def test_an_attribute_that_has_no_log_id_is_an_attribute(pool: StoragePool, value: Any) -> None:
    attribute = {"key": ID_ATTRIBUTE, "value": value}
    accepted = ingest_logs(pool, log_request(attributes=[attribute])).accepted
    assert accepted == (0 if value == 5 else 1)
    if accepted:
        comes_back(pool, "logs", log_request(attributes=[attribute]))


def test_log_record_without_a_time_gets_its_observed_time(pool: StoragePool) -> None:
    comes_back(pool, "logs", logs_request({"observedTimeUnixNano": "1000000000"}))
    with pool.unit_of_work() as uow:
        (record,) = uow.logs.list(LogFilters())
    assert record.timestamp == UNIX_EPOCH + timedelta(seconds=1)


def test_log_record_without_any_time_gets_the_time_of_ingest(pool: StoragePool) -> None:
    record: dict[str, Any] = {"body": {"stringValue": "b"}}
    request = logs_request(record, record)
    before = datetime.now(UTC)
    assert ingest_logs(pool, request).accepted == 2
    with pool.unit_of_work() as uow:
        first, second = uow.logs.list(LogFilters())
    assert before <= first.timestamp == second.timestamp <= datetime.now(UTC)
    assert first.id != second.id
    assert first.observed_timestamp is None
    assert meaning("logs", export_logs(pool)) == meaning("logs", [request])


def test_ordinary_items_have_no_notes(pool: StoragePool) -> None:
    pairs = [
        {"key": "s", "value": {"stringValue": "x"}},
        {"key": "i", "value": {"intValue": "5"}},
        {"key": "d", "value": {"doubleValue": 1}},
        {"key": "b", "value": {"boolValue": True}},
        {"key": "l", "value": {"arrayValue": {"values": [{"doubleValue": 0.5}]}}},
    ]
    event = {"timeUnixNano": "7", "name": "e", "attributes": pairs}
    comes_back(
        pool, "traces", span_request(attributes=pairs, events=[event], parentSpanId="a" * 16)
    )
    with pool.unit_of_work() as uow:
        (stored,) = uow.traces.get_spans(TRACE_ID, with_events=True)
    assert stored.otlp is None
    assert stored.events[0].otlp is None
    assert stored.attributes == {"s": "x", "i": 5, "d": 1.0, "b": True, "l": [0.5]}
    assert (stored.start_ns, stored.end_ns) == (123, 456)
    assert (stored.duration_us, stored.duration_ns) == (1_000_000, 333)
    assert (stored.service_name, stored.kind, stored.status) == ("shop", "client", "unset")


def test_text_that_postgresql_cannot_store_is_repaired(pool: StoragePool) -> None:
    pairs = [{"key": "k\x00", "value": {"stringValue": "a\x00b\ud800"}}]
    text = json.dumps(span_request(name="n\x00", attributes=pairs, traceState="s\x00"))
    assert ingest_traces(pool, text).accepted == 1
    (request,) = export_traces(pool)
    exported = request["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
    assert exported["name"] == "n\ufffd"
    assert exported["traceState"] == "s\ufffd"
    assert exported["attributes"] == [
        {"key": "k\ufffd", "value": {"stringValue": "a\ufffdb\ufffd"}}
    ]
    assert ingest_logs(pool, log_request(body={"stringValue": "\x00"})).accepted == 1
    before = all_rows(pool)
    ingest_traces(pool, text)
    ingest_logs(pool, log_request(body={"stringValue": "\x00"}))
    assert all_rows(pool) == before


def test_metrics_that_differ_only_in_their_notes_are_two_metrics(pool: StoragePool) -> None:
    point = {"asInt": "1", "timeUnixNano": "5"}
    long, sums = "x" * 1024, {"dataPoints": [point]}
    request = metrics_request(
        *({"name": long + end, "gauge": {"dataPoints": [point]}} for end in ("", "a", "b")),
        {"name": "s", "sum": sums},
        {"name": "s", "sum": {**sums, "aggregationTemporality": 77}},
        {"name": "s", "sum": {**sums, "aggregationTemporality": 78}},
        {"name": "s", "gauge": {}},
        {"name": "s"},
        {"name": ""},
        {"name": "unnamed"},
    )
    (described,) = request["resourceMetrics"]
    unknown = {"attributes": [{"key": "service.name", "value": {"stringValue": "unknown_service"}}]}
    resources: list[dict[str, Any]] = [{"resource": unknown}, {"resource": {}}, {}]
    for resource in resources:
        bare = {key: value for key, value in described.items() if key != "resource"}
        request["resourceMetrics"].append(bare | resource)
    comes_back(pool, "metrics", request)
