"""Requests with more items than are prepared or written at once."""

from __future__ import annotations

import json
from typing import Any

import pytest

from observatory_storage import (
    StoragePool,
    export_logs,
    export_traces,
    ingest_logs,
    ingest_traces,
)
from observatory_storage.errors import ValidationError
from observatory_storage.otlp import item_store
from observatory_storage.rows import PART
from tests.otlp.samples import logs_request, request_of, span, spans_request


@pytest.mark.parametrize("encode", [json.dumps, lambda request: request_of("traces", request)])
def test_many_spans_cost_no_more_than_the_bad_ones(pool: StoragePool, encode: Any) -> None:
    spans = [span(spanId=f"{number:016x}") for number in range(1, 2 * PART)]
    assert ingest_traces(pool, encode(spans_request(*spans))).accepted == len(spans)
    spans[PART + 5]["endTimeUnixNano"] = "1"
    again = ingest_traces(pool, encode(spans_request(*spans, span(spanId="f" * 16))))
    assert again.accepted == len(spans)
    (refused,) = again.rejected
    assert refused.index == PART + 5
    assert "end_time" in str(refused.error)
    assert refused.row["spanId"] == f"{PART + 6:016x}"
    (request,) = export_traces(pool)
    assert len(request["resourceSpans"][0]["scopeSpans"][0]["spans"]) == len(spans) + 1


def test_log_records_have_the_same_ids_in_both_encodings(pool: StoragePool) -> None:
    records = [{"timeUnixNano": "5", "body": {"stringValue": f"{n % 7}"}} for n in range(PART + 9)]
    for form in (logs_request(*records), request_of("logs", logs_request(*records))):
        assert ingest_logs(pool, form).accepted == len(records)
    (request,) = export_logs(pool)
    assert len(request["resourceLogs"][0]["scopeLogs"][0]["logRecords"]) == len(records)


@pytest.mark.parametrize("size", [10_000, PART + 30])
def test_large_requests_are_written_in_several_transactions(
    pool: StoragePool, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(item_store, "_ROWS_A_TRANSACTION", size)
    bad = [span(spanId="12") for _ in range(2 * PART)]
    assert ingest_traces(pool, spans_request(*bad)).accepted == 0
    good = [span(spanId=f"{number:016x}") for number in range(1, 3 * PART)]
    result = ingest_traces(pool, json.dumps(spans_request(*bad, *good)))
    assert result.accepted == len(good)
    assert [one.index for one in result.rejected] == list(range(len(bad)))
    found = [
        request["resourceSpans"][0]["scopeSpans"][0]["spans"] for request in export_traces(pool)
    ]
    assert sum(map(len, found)) == len(good)


def test_request_with_an_invalid_list_stores_nothing(pool: StoragePool) -> None:
    request = spans_request(*(span(spanId=f"{number:016x}") for number in range(1, 2 * PART)))
    request["resourceSpans"].append({"scopeSpans": [{"spans": 5}]})
    for form in (request, json.dumps(request)):
        with pytest.raises(ValidationError, match=r"resourceSpans\[1\].scopeSpans\[0\].spans"):
            ingest_traces(pool, form)
    assert not list(export_traces(pool))
