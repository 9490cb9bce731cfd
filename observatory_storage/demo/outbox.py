"""Collects finished telemetry from the exporters of the SDK, and passes it to the storage.

The encoders are those of OpenTelemetry's OTLP exporters, so the bytes are those that a collector
would get. Here they are passed to `ingest_traces`, `ingest_logs` and `ingest_metrics` directly.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult
from opentelemetry.sdk.metrics.export import MetricsData
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from observatory_storage import StoragePool, ingest_logs, ingest_metrics, ingest_traces
from observatory_storage.demo.emitted import EmittedCounts
from observatory_storage.errors import StorageError

__all__ = ["Outbox", "otlp_json"]

_REQUEST_ITEMS = 512  # the batch size of the SDK's own exporters
_ID_FIELDS = frozenset({"traceId", "spanId", "parentSpanId"})

_Item = TypeVar("_Item")


class Outbox:
    """Buffers finished telemetry for the storage, and counts it in `emitted`."""

    def __init__(self) -> None:
        self.emitted = EmittedCounts()
        self.span_exporter = _SpanExporter(self)
        self.log_exporter = _LogExporter(self)
        self._spans: list[ReadableSpan] = []
        self._logs: list[ReadableLogRecord] = []
        self._metrics: list[MetricsData] = []
        self._requests = 0

    def take_spans(self, spans: Sequence[ReadableSpan]) -> None:
        """Add finished spans. The span exporter calls this."""
        self._spans.extend(spans)
        for span in spans:
            self.emitted.add_span(span)

    def take_logs(self, records: Sequence[ReadableLogRecord]) -> None:
        """Add log records. The log exporter calls this."""
        self._logs.extend(records)
        for record in records:
            self.emitted.add_log(record)

    def take_metrics(self, data: MetricsData) -> None:
        """Add the metrics of one collection."""
        self._metrics.append(data)
        self.emitted.add_metrics(data)

    def is_full(self) -> bool:
        """Whether there are enough spans for two requests."""
        return len(self._spans) > 2 * _REQUEST_ITEMS

    def send(self, pool: StoragePool) -> None:
        """Store all buffered telemetry.

        Raises:
            StorageError: the storage refused a part of a request.
        """
        for spans in _chunks(self._spans):
            self._send(pool, ingest_traces, encode_spans(spans))
        self._spans.clear()
        for records in _chunks(self._logs):
            self._send(pool, ingest_logs, encode_logs(records))
        self._logs.clear()
        # One request for all collections. They are merged here, since the encoder would keep only
        # one collection of each resource.
        request = ExportMetricsServiceRequest()
        for data in self._metrics:
            request.MergeFrom(encode_metrics(data))
        self._send(pool, ingest_metrics, request)
        self._metrics.clear()

    def _send(self, pool: StoragePool, ingest: Callable[..., Any], request: Message) -> None:
        # Every third request is OTLP/JSON, to show that the storage accepts both encodings.
        self._requests += 1
        payload: bytes | str = request.SerializeToString()
        if self._requests % 3 == 0:
            payload = otlp_json(request)
        result = ingest(pool, payload)
        if result.rejected:
            raise StorageError(f"the storage refused a part of a request: {result.rejected}")


def otlp_json(request: Message) -> str:
    """A request as OTLP/JSON: ProtoJSON with numbers for enums and hexadecimal ids."""
    return json.dumps(_with_hex_ids(MessageToDict(request, use_integers_for_enums=True)))


def _with_hex_ids(node: Any) -> Any:
    if isinstance(node, list):
        return [_with_hex_ids(item) for item in node]
    if isinstance(node, dict):
        return {
            key: base64.b64decode(value).hex() if key in _ID_FIELDS else _with_hex_ids(value)
            for key, value in node.items()
        }
    return node


def _chunks(items: Sequence[_Item]) -> Iterator[Sequence[_Item]]:
    for start in range(0, len(items), _REQUEST_ITEMS):
        yield items[start : start + _REQUEST_ITEMS]


class _SpanExporter(SpanExporter):
    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self._outbox.take_spans(spans)
        return SpanExportResult.SUCCESS


class _LogExporter(LogRecordExporter):
    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        self._outbox.take_logs(batch)
        return LogRecordExportResult.SUCCESS

    def shutdown(self) -> None:
        """Do nothing."""

    def force_flush(self, timeout_millis: int = 10_000) -> bool:
        """Do nothing, since nothing is buffered here."""
        return True
