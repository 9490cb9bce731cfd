"""OTLP requests into the storage: decoded, mapped to rows, checked, committed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from observatory_storage.errors import Rejected, StorageError, ValidationError
from observatory_storage.otlp.decode import decode
from observatory_storage.otlp.logs import log_rows
from observatory_storage.otlp.metrics import MetricItems, metric_rows
from observatory_storage.otlp.origins import Item
from observatory_storage.otlp.signals import LOGS, METRICS, TRACES
from observatory_storage.otlp.traces import span_rows
from observatory_storage.rows import (
    COLUMNS,
    Row,
    prepare_data_point,
    prepare_log,
    prepare_metric,
    prepare_span,
)
from observatory_storage.serialization import Result
from observatory_storage.writers import Source, store

__all__ = ["IngestResult", "ingest_logs", "ingest_metrics", "ingest_traces"]

# One transaction holds a whole request, unless it is so large that it would hold up others.
_ROWS_A_TRANSACTION: Final = 10_000
_METRIC_ID: Final = COLUMNS["metrics"].index("id")


@dataclass(frozen=True, slots=True)
class IngestResult(Result):
    """What became of a request.

    Attributes:
        accepted: how many spans, data points or log records are stored.
        rejected: the others: each one's place in the request, itself as OTLP has it, and why.
            A metric that is refused without having data points counts as one.
    """

    accepted: int
    rejected: list[Rejected] = field(default_factory=list)


def ingest_traces(pool: Source, payload: Any) -> IngestResult:
    """Store the spans of an OTLP request, and what they say of their traces.

    Args:
        pool: where to store.
        payload: OTLP/JSON as text, bytes or parsed; OTLP in protobuf as bytes or as a message.

    Raises:
        ValidationError: the payload is no OTLP request of traces; nothing of it is stored.
        ConfigError: the payload is protobuf and the ``otel`` extra is not installed.
        StorageError: the database could not be written to; ingesting again is safe.
    """
    return _ingest(pool, span_rows(decode(payload, TRACES)), prepare_span)


def ingest_logs(pool: Source, payload: Any) -> IngestResult:
    """Store the log records of an OTLP request.

    Arguments and errors are those of `ingest_traces`.
    """
    return _ingest(pool, log_rows(decode(payload, LOGS)), prepare_log)


def ingest_metrics(pool: Source, payload: Any) -> IngestResult:
    """Store the metrics of an OTLP request with their data points.

    Arguments and errors are those of `ingest_traces`.
    """
    # All is read before anything is stored: a request that is no OTLP stores nothing.
    metrics = list(metric_rows(decode(payload, METRICS)))
    # Definitions first: a point is never there without its metric.
    definitions = _stored(pool, [metric.definition for metric in metrics], prepare_metric)
    points: list[Item] = []
    rejected: list[Rejected] = []
    for metric, definition in zip(metrics, definitions, strict=True):
        if isinstance(definition, StorageError) and not metric.points:
            rejected.append(Rejected(len(points), metric.definition.source, definition))
        points += _points_of(metric, definition)
    result = _result(points, _stored(pool, points, prepare_data_point))
    return IngestResult(result.accepted, rejected + result.rejected)


def _points_of(metric: MetricItems, definition: Row | StorageError) -> list[Item]:
    if isinstance(definition, StorageError):
        return [Item(point.source, None, definition) for point in metric.points]
    for point in metric.points:
        if point.row is not None:
            point.row["metric_id"] = definition.values[_METRIC_ID]
    return metric.points


def _ingest(
    pool: Source, mapped: Iterable[Item], prepare: Callable[[Mapping[str, Any]], Row]
) -> IngestResult:
    items = list(mapped)
    return _result(items, _stored(pool, items, prepare))


def _stored(
    pool: Source, items: Sequence[Item], prepare: Callable[[Mapping[str, Any]], Row]
) -> list[Row | StorageError]:
    """For each item the row that is stored, or why none is."""
    outcomes = [_prepared(item, prepare) for item in items]
    good = [(at, row) for at, row in enumerate(outcomes) if isinstance(row, Row)]
    for start in range(0, len(good), _ROWS_A_TRANSACTION):
        part = good[start : start + _ROWS_A_TRANSACTION]
        for refused in store(pool, [row for _, row in part]).rejected:
            outcomes[part[refused.index][0]] = refused.error
    return outcomes


def _prepared(item: Item, prepare: Callable[[Mapping[str, Any]], Row]) -> Row | StorageError:
    if item.row is None:
        return item.error or ValidationError("item", item.source)
    try:
        return prepare(item.row)
    except ValidationError as error:
        return error


def _result(items: Sequence[Item], outcomes: Sequence[Row | StorageError]) -> IngestResult:
    rejected = [
        Rejected(index, item.source, outcome)
        for index, (item, outcome) in enumerate(zip(items, outcomes, strict=True))
        if isinstance(outcome, StorageError)
    ]
    return IngestResult(len(items) - len(rejected), rejected)
