"""The responses that senders get, read with the classes that senders use."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from observatory_storage import IngestResult, StoragePool, ingest_logs, ingest_metrics
from observatory_storage.errors import Rejected, ValidationError
from tests.otlp.samples import logs_request, metrics_request

RESPONSES: dict[str, Any] = {
    "traces": (ExportTraceServiceResponse, "rejected_spans"),
    "metrics": (ExportMetricsServiceResponse, "rejected_data_points"),
    "logs": (ExportLogsServiceResponse, "rejected_log_records"),
}


def read_both(result: IngestResult) -> Any:
    """The response as a message, which is the same from both encodings."""
    kind, _ = RESPONSES[result.signal]
    message = kind.FromString(result.to_otlp("protobuf"))
    assert json_format.Parse(result.to_otlp("json"), kind()) == message
    return message


def refused(count: int) -> list[Rejected]:
    return [
        Rejected(index, {}, ValidationError(f"spans[{index}]", "ü" * 50, "is bad"))
        for index in range(count)
    ]


@pytest.mark.parametrize("signal", RESPONSES)
@pytest.mark.parametrize("count", [1, 127, 128, 70_000])
def test_response_has_the_number_of_refused_items(signal: Any, count: int) -> None:
    partial = read_both(IngestResult(3, refused(count), signal=signal)).partial_success
    assert getattr(partial, RESPONSES[signal][1]) == count
    assert "spans[0]='üüü" in partial.error_message
    assert len(partial.error_message) < 1000


@pytest.mark.parametrize("signal", RESPONSES)
def test_response_to_a_request_that_is_stored_whole_has_no_fields(signal: Any) -> None:
    result = IngestResult(5, duplicates=5, signal=signal)
    assert (result.to_otlp("json"), result.to_otlp("protobuf")) == (b"{}", b"")
    assert result.to_otlp() == b"{}"


@pytest.mark.parametrize("signal", RESPONSES)
def test_response_warns_of_repairs_without_refusing_items(signal: Any) -> None:
    message = read_both(IngestResult(5, repaired=2, signal=signal))
    assert message.HasField("partial_success")
    assert getattr(message.partial_success, RESPONSES[signal][1]) == 0
    assert "2 values" in message.partial_success.error_message


def test_text_of_an_error_that_is_not_unicode_is_told_with_replacements() -> None:
    error = ValidationError("name", None, "is \ud800 bad\x00")
    message = read_both(IngestResult(0, [Rejected(0, {}, error)]))
    assert "is \ufffd bad\ufffd" in message.partial_success.error_message


def test_error_names_an_encoding_that_otlp_does_not_have() -> None:
    with pytest.raises(ValidationError, match=r"encoding='xml': must be"):
        IngestResult(1).to_otlp("xml")  # type: ignore[arg-type]  # wrong on purpose


def test_result_of_a_request_answers_for_its_signal(pool: StoragePool) -> None:
    bad = {"traceId": "1"}
    answer = json.loads(ingest_logs(pool, logs_request(bad, bad)).to_otlp())
    assert answer["partialSuccess"]["rejectedLogRecords"] == "2"
    assert "logRecords[1].traceId" in answer["partialSuccess"]["errorMessage"]
    metric = {"name": "m", "gauge": {"dataPoints": [{"timeUnixNano": -1}]}}
    message = read_both(ingest_metrics(pool, metrics_request(metric)))
    assert message.partial_success.rejected_data_points == 1
