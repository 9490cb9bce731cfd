"""Ingests OTLP requests: decodes them, maps them to rows, checks the rows and commits them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from observatory_storage.errors import Rejected, StorageError
from observatory_storage.otlp.decode import decode
from observatory_storage.otlp.ingest_result import IngestResult
from observatory_storage.otlp.item_store import ItemStore
from observatory_storage.otlp.json_reader import as_json
from observatory_storage.otlp.logs import log_rows
from observatory_storage.otlp.metrics import MetricItems, metric_rows
from observatory_storage.otlp.resource_scope import Item
from observatory_storage.otlp.signals import LOG_SIGNAL, METRIC_SIGNAL, TRACE_SIGNAL, Signal
from observatory_storage.otlp.traces import span_rows
from observatory_storage.storing import Source
from observatory_storage.tables import DATA_POINTS, LOGS, METRICS, SPANS

__all__ = ["ingest_logs", "ingest_metrics", "ingest_traces"]

_METRIC_ID: Final = METRICS.position["id"]


def ingest_traces(pool: Source, payload: Any) -> IngestResult:
    """Store the spans of an OTLP request, and update their traces.

    The rows are committed when the function returns. Ingesting a request again changes nothing.

    Example, as a Flask view that receives OTLP over HTTP::

        @app.post("/v1/traces")
        def traces():
            result = ingest_traces(pool, request.get_data())
            encoding = "json" if request.is_json else "protobuf"
            return Response(result.to_otlp(encoding), content_type=request.content_type)

    Args:
        pool: the pool to write to.
        payload: OTLP/JSON as text, bytes or parsed; OTLP in protobuf as bytes or as a message.
            Bytes in gzip, zstd or zlib are decompressed, to 64 MiB at most (see `decompress`).

    Raises:
        ValidationError: the payload is not an OTLP request of traces. Nothing of it is stored.
        ConfigError: the payload needs an extra that is not installed: ``otel`` for protobuf,
            ``zstd`` for zstd.
        StorageError: the database could not be written to. Ingesting again is safe.
    """
    spans = span_rows(decode(payload, TRACE_SIGNAL), as_mappings=pool.rules is not None)
    return _result(ItemStore(pool, SPANS).add(spans), TRACE_SIGNAL)


def ingest_logs(pool: Source, payload: Any) -> IngestResult:
    """Store the log records of an OTLP request.

    See `ingest_traces` for the arguments and the errors.
    """
    return _result(ItemStore(pool, LOGS).add(log_rows(decode(payload, LOG_SIGNAL))), LOG_SIGNAL)


def ingest_metrics(pool: Source, payload: Any) -> IngestResult:
    """Store the metrics of an OTLP request with their data points.

    See `ingest_traces` for the arguments and the errors.
    """
    # The whole request is read before anything is stored: an invalid request stores nothing.
    metrics = list(metric_rows(decode(payload, METRIC_SIGNAL)))
    # Metrics are stored first, so that no data point is ever without its metric.
    definitions = ItemStore(pool, METRICS).add(metric.definition for metric in metrics)
    points: list[Item] = []
    rejected: list[Rejected] = []
    for metric, definition in zip(metrics, definitions.outcomes, strict=True):
        if isinstance(definition, StorageError) and not metric.points:
            source = as_json(metric.definition.source)
            rejected.append(Rejected(len(points), source, definition))
        points += _points_of(metric, definition)
    result = _result(ItemStore(pool, DATA_POINTS).add(points), METRIC_SIGNAL)
    repaired = definitions.repaired + result.repaired
    return replace(result, rejected=rejected + result.rejected, repaired=repaired)


def _points_of(metric: MetricItems, definition: Any) -> list[Item]:
    if definition is None or isinstance(definition, StorageError):  # None: a rule drops it
        return [point._replace(row=None, error=definition) for point in metric.points]
    for point in metric.points:
        if point.row is not None:
            point.row["metric_id"] = definition.values[_METRIC_ID]
    return metric.points


def _result(stored: ItemStore, signal: Signal) -> IngestResult:
    rejected: list[Rejected] = []
    dropped: list[Rejected] = []
    dropped_by_rules = 0
    for index, (item, outcome) in enumerate(zip(stored.items, stored.outcomes, strict=True)):
        if isinstance(outcome, StorageError):
            rejected.append(Rejected(index, as_json(item.source), outcome))
        elif item.row is None:
            dropped_by_rules += 1
        elif item.dropped:
            source = as_json(item.source)
            dropped += [Rejected(index, source, error) for error in item.dropped]
    return IngestResult(
        accepted=len(stored.items) - len(rejected) - dropped_by_rules,
        rejected=rejected,
        repaired=stored.repaired + len(dropped),
        duplicates=stored.duplicates,
        signal=signal.name,
        dropped=dropped,
        dropped_by_rules=dropped_by_rules,
    )
