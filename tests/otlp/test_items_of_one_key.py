"""Of two items of one key one is stored, and the other is refused by name."""

from __future__ import annotations

import json
from uuid import UUID

import pytest

from observatory_storage import (
    StoragePool,
    export_metrics,
    export_traces,
    ingest_logs,
    ingest_metrics,
    ingest_traces,
)
from observatory_storage.otlp import item_store
from observatory_storage.otlp.logs import ID_ATTRIBUTE
from observatory_storage.rows import PART
from tests.otlp.faulty_items import point, without
from tests.otlp.otlp import meaning
from tests.otlp.samples import (
    log_request,
    logs_request,
    metrics_request,
    span,
    span_request,
    spans_request,
)


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
