"""What is stored, as OTLP/JSON requests: the inverse of ingesting.

The requests come one at a time, each with a bounded number of items grouped by resource and
scope, so that any amount can be exported. `json.dumps` of a request is what an OTLP receiver takes
over HTTP.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any, Final, TypeVar

from observatory_storage import jsonb
from observatory_storage.errors import ValidationError
from observatory_storage.otlp import reading
from observatory_storage.otlp.logs import log_of
from observatory_storage.otlp.metrics import metric_of
from observatory_storage.otlp.origins import resource_of, scope_of
from observatory_storage.otlp.points import point_of
from observatory_storage.otlp.reading import Ids
from observatory_storage.otlp.signals import LOG_SIGNAL, METRIC_SIGNAL, TRACE_SIGNAL, Signal
from observatory_storage.otlp.traces import span_of
from observatory_storage.repositories import LogFilters, MetricFilters, TraceFilters
from observatory_storage.storing import Source

__all__ = ["export_logs", "export_metrics", "export_traces"]

_BATCH_SIZE: Final = 500

Request = dict[str, Any]
F = TypeVar("F", TraceFilters, MetricFilters, LogFilters)


def export_traces(
    pool: Source,
    filters: TraceFilters | Ids | None = None,
    *,
    ids: Ids | None = None,
    batch_size: int = _BATCH_SIZE,
) -> Iterator[Request]:
    """Whole traces as OTLP/JSON requests, with all their spans and events.

    Args:
        pool: where to read.
        filters: filters (all the traces that match: their ``limit`` does not apply), a trace id or
            several (hex text or UUID); all traces by default.
        ids: ids by this name, in place of filters.
        batch_size: the most spans in a request.

    Raises:
        NotFound: there is no trace of one of the ids.
        ValidationError: an id is none, the batch size is not positive, or both filters
            and ids are given.
    """
    wanted = _wanted(filters, ids)
    _check(batch_size)
    return _span_requests(pool, wanted, batch_size)


def _span_requests(pool: Source, wanted: TraceFilters | Ids | None, size: int) -> Iterator[Request]:
    for traces in reading.traces_wanted(pool, wanted):
        for spans in reading.span_pages(pool, traces, size):
            events = reading.events_of(pool, spans)
            keys = ("trace_id", "span_id", "start_time", "start_ns")
            yield _request(
                TRACE_SIGNAL,
                (
                    (span, span_of(span, events.get(tuple(span[key] for key in keys), ())))
                    for span in spans
                ),
            )


def export_metrics(
    pool: Source,
    filters: MetricFilters | Ids | None = None,
    *,
    ids: Ids | None = None,
    batch_size: int = _BATCH_SIZE,
) -> Iterator[Request]:
    """Metrics as OTLP/JSON requests, with all their data points.

    Args:
        pool: where to read.
        filters: filters (all the metrics that match: their ``limit`` does not apply), a metric's id
            or several; all metrics by default.
        ids: ids by this name, in place of filters.
        batch_size: the most data points in a request.

    Raises:
        NotFound: there is no metric of one of the ids.
        ValidationError: an id is none, the batch size is not positive, or both filters
            and ids are given.
    """
    wanted = _wanted(filters, ids)
    _check(batch_size)
    return _metric_requests(pool, wanted, batch_size)


def _metric_requests(
    pool: Source, wanted: MetricFilters | Ids | None, size: int
) -> Iterator[Request]:
    for metrics in reading.metric_pages(pool, wanted):
        silent = {row["id"]: row for row in metrics}
        definitions = dict(silent)
        for points in reading.point_pages(pool, metrics, size):
            entries = []
            for metric_id, some in groupby(points, key=lambda point: point["metric_id"]):
                row = definitions[metric_id]
                silent.pop(metric_id, None)
                entries.append(
                    (row, metric_of(row, [point_of(point, row["metric_type"]) for point in some]))
                )
            yield _request(METRIC_SIGNAL, entries)
        if silent:
            yield _request(METRIC_SIGNAL, ((row, metric_of(row, [])) for row in silent.values()))


def export_logs(
    pool: Source,
    filters: LogFilters | Ids | None = None,
    *,
    ids: Ids | None = None,
    batch_size: int = _BATCH_SIZE,
) -> Iterator[Request]:
    """Log records as OTLP/JSON requests, oldest first.

    Args:
        pool: where to read.
        filters: filters (all the records that match: their ``limit`` does not apply), or the id of
            a trace or several, for the records of these; all records by default.
        ids: ids by this name, in place of filters.
        batch_size: the most records in a request.

    Raises:
        ValidationError: an id is none, the batch size is not positive, or both filters
            and ids are given.
    """
    wanted = _wanted(filters, ids)
    _check(batch_size)
    pages = reading.log_pages(pool, wanted, batch_size)
    return (_request(LOG_SIGNAL, ((row, log_of(row)) for row in page)) for page in pages)


def _wanted(filters: F | Ids | None, ids: Ids | None) -> F | Ids | None:
    if filters is not None and ids is not None:
        raise ValidationError("ids", ids, "must not be given together with filters")
    return filters if ids is None else ids


def _check(batch_size: int) -> None:
    if batch_size < 1:
        raise ValidationError("batch_size", batch_size, "must be at least 1")


def _request(signal: Signal, entries: Iterable[tuple[Mapping[str, Any], Any]]) -> Request:
    """One request of the items, each with the row that says where it came from."""
    outer, inner, items = signal.keys
    resources: dict[str, Request] = {}
    scopes: dict[tuple[str, str], Request] = {}
    for row, item in entries:
        otlp = row["otlp"] or {}
        resource = jsonb.canonical(
            [row["service_name"], row["resource_attributes"], otlp.get("resource")]
        )
        scope = jsonb.canonical(
            [row["scope_name"], row["scope_version"], row["scope_attributes"], otlp.get("scope")]
        )
        if resource not in resources:
            resources[resource] = resource_of(row) | {inner: []}
        if (resource, scope) not in scopes:
            scopes[resource, scope] = scope_of(row) | {items: []}
            resources[resource][inner].append(scopes[resource, scope])
        scopes[resource, scope][items].append(item)
    return {outer: list(resources.values())}
