"""Exports stored telemetry as OTLP/JSON requests: the inverse of ingestion.

The functions yield one request at a time, with a limited number of items grouped by resource and
scope, so any amount can be exported. An OTLP receiver takes `json.dumps` of a request over HTTP.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from typing import Any, Final, TypeVar

import orjson
from sqlalchemy import Engine

from observatory_storage import jsonb
from observatory_storage.errors import ValidationError
from observatory_storage.otlp import export_queries
from observatory_storage.otlp.data_points import point_of
from observatory_storage.otlp.export_queries import VALUES, Ids
from observatory_storage.otlp.logs import keep_ids, log_of
from observatory_storage.otlp.metrics import metric_of
from observatory_storage.otlp.resource_scope import resource_of, scope_of
from observatory_storage.otlp.signals import LOG_SIGNAL, METRIC_SIGNAL, TRACE_SIGNAL, Signal
from observatory_storage.otlp.traces import span_with
from observatory_storage.payloads import put_back
from observatory_storage.repositories import LogFilters, MetricFilters, TraceFilters
from observatory_storage.repositories.reading import validation
from observatory_storage.storing import Source

__all__ = ["export_logs", "export_metrics", "export_traces"]

_BATCH_SIZE: Final = 500
_SPAN_KEY: Final = itemgetter("trace_id", "span_id", "start_time", "start_ns")

Request = dict[str, Any]
F = TypeVar("F", TraceFilters, MetricFilters, LogFilters)


def export_traces(
    pool: Source,
    filters: TraceFilters | Ids | None = None,
    *,
    ids: Ids | None = None,
    batch_size: int = _BATCH_SIZE,
    read_only: bool = False,
) -> Iterator[Request]:
    """Export whole traces, with all their spans and events, as OTLP/JSON requests.

    Example::

        with open("traces.jsonl", "w") as file:
            for request in export_traces(pool, TraceFilters(service_name="chat")):
                print(json.dumps(request), file=file)

    Args:
        pool: the pool to read from.
        filters: the traces to export: filters (their ``limit`` does not apply), or one or more
            trace ids, as hex text or UUID. The default is all traces.
        ids: one or more trace ids, instead of `filters`.
        batch_size: the most spans in one request.
        read_only: whether to read from the read server, which may be behind.

    Raises:
        NotFound: there is no trace with one of the ids.
        ValidationError: an id is invalid, the batch size is not positive, or both `filters` and
            `ids` are given.
        StorageError: the database cannot be read.
    """
    wanted = _wanted(filters, ids)
    _check(batch_size)
    return _span_requests(_engine(pool, read_only), wanted, batch_size)


def _span_requests(
    engine: Engine, wanted: TraceFilters | Ids | None, size: int
) -> Iterator[Request]:
    for traces in export_queries.traces_wanted(engine, wanted):
        for spans in export_queries.span_pages(engine, traces, size):
            events = export_queries.events_of(engine, spans)
            yield _request(TRACE_SIGNAL, _exported(spans, events))


def _exported(
    spans: Iterable[Mapping[str, Any]], events: Mapping[Any, Sequence[Mapping[str, Any]]]
) -> Iterator[tuple[Mapping[str, Any], Request]]:
    """The rows of spans, each with its span."""
    for row in spans:
        of_span = events.get(_SPAN_KEY(row), ()) if events else ()
        links = row["links"]
        attributes = jsonb.loads(row["attributes"])
        if VALUES in row:
            attributes = put_back(attributes, row[VALUES])
        yield (
            row,
            span_with(
                row,
                attributes,
                () if links == "[]" else jsonb.loads(links),
                of_span,
            ),
        )


def export_metrics(
    pool: Source,
    filters: MetricFilters | Ids | None = None,
    *,
    ids: Ids | None = None,
    batch_size: int = _BATCH_SIZE,
    start_time: datetime | None = None,
    end_time: datetime | None = None,
    read_only: bool = False,
) -> Iterator[Request]:
    """Export metrics, with their data points, as OTLP/JSON requests.

    Args:
        pool: the pool to read from.
        filters: the metrics to export: filters (their ``limit`` does not apply), or one or more
            metric ids. The default is all metrics.
        ids: one or more metric ids, instead of `filters`.
        batch_size: the most data points in one request.
        start_time: only data points at this time or later, and no metric without such points.
        end_time: only data points before this time, and no metric without such points.
        read_only: whether to read from the read server, which may be behind.

    Raises:
        NotFound: there is no metric with one of the ids.
        ValidationError: an id is invalid, the batch size is not positive, or both `filters` and
            `ids` are given.
        StorageError: the database cannot be read.
    """
    wanted = _wanted(filters, ids)
    _check(batch_size)
    start_time = validation.moment("start_time", start_time)
    end_time = validation.moment("end_time", end_time)
    return _metric_requests(_engine(pool, read_only), wanted, batch_size, start_time, end_time)


def _metric_requests(
    engine: Engine,
    wanted: MetricFilters | Ids | None,
    size: int,
    start: datetime | None,
    end: datetime | None,
) -> Iterator[Request]:
    for metrics in export_queries.metric_pages(engine, wanted):
        without_points = {row["id"]: row for row in metrics}
        definitions = dict(without_points)
        for points in export_queries.point_pages(engine, metrics, size, start, end):
            entries = []
            for metric_id, some in groupby(points, key=lambda point: point["metric_id"]):
                row = definitions[metric_id]
                without_points.pop(metric_id, None)
                entries.append(
                    (row, metric_of(row, [point_of(point, row["metric_type"]) for point in some]))
                )
            yield _request(METRIC_SIGNAL, entries)
        if without_points and start is None and end is None:
            entries = [(row, metric_of(row, [])) for row in without_points.values()]
            yield _request(METRIC_SIGNAL, entries)


def export_logs(
    pool: Source,
    filters: LogFilters | Ids | None = None,
    *,
    ids: Ids | None = None,
    batch_size: int = _BATCH_SIZE,
    read_only: bool = False,
) -> Iterator[Request]:
    """Export log records as OTLP/JSON requests, oldest first.

    If `ingest_logs` would compute another id for a record, the exported record keeps its id in the
    attribute ``observatory_storage.log.id``. `ingest_logs` takes the id from there.

    Args:
        pool: the pool to read from.
        filters: the records to export: filters (their ``limit`` does not apply), or one or more
            trace ids, for the records of these traces. The default is all records.
        ids: one or more trace ids, instead of `filters`.
        batch_size: the most records in one request.
        read_only: whether to read from the read server, which may be behind.

    Raises:
        ValidationError: an id is invalid, the batch size is not positive, or both `filters` and
            `ids` are given.
        StorageError: the database cannot be read.
    """
    wanted = _wanted(filters, ids)
    _check(batch_size)
    pages = export_queries.log_pages(_engine(pool, read_only), wanted, batch_size)
    return (_log_request(page) for page in pages)


def _log_request(page: Iterable[Mapping[str, Any]]) -> Request:
    entries = [(row, log_of(row)) for row in page]
    request = _request(LOG_SIGNAL, entries)
    keep_ids(request, {id(record): row["id"] for row, record in entries})
    return request


def _engine(pool: Source, read_only: bool) -> Engine:
    return pool.read_engine if read_only else pool.engine


def _wanted(filters: F | Ids | None, ids: Ids | None) -> F | Ids | None:
    if filters is not None and ids is not None:
        raise ValidationError("ids", ids, "must not be given together with filters")
    return filters if ids is None else ids


def _check(batch_size: object) -> None:
    if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1:
        raise ValidationError("batch_size", batch_size, "must be an integer, at least 1")


def _request(signal: Signal, entries: Iterable[tuple[Mapping[str, Any], Any]]) -> Request:
    """One request of the items; each comes with the row that has its resource and scope."""
    outer, inner, items = signal.keys
    resources: dict[Any, Request] = {}
    scopes: dict[Any, list[Any]] = {}
    for row, item in entries:
        otlp = row["otlp"]
        resource = scope = None
        if otlp is not None:
            resource, scope = _compared(otlp.get("resource")), _compared(otlp.get("scope"))
        of_resource = (row["service_name"], row["resource_attributes"], resource)
        of_scope = (row["scope_name"], row["scope_version"], row["scope_attributes"], scope)
        key = of_resource + of_scope
        found = scopes.get(key)
        if found is None:
            origin = export_queries.with_origin(row)
            if of_resource not in resources:
                resources[of_resource] = resource_of(origin) | {inner: []}
            found = scopes[key] = []
            resources[of_resource][inner].append(scope_of(origin) | {items: found})
        found.append(item)
    return {outer: list(resources.values())}


def _compared(note: Any) -> bytes | None:
    """The same bytes for equal notes, in which 1 differs from 1.0."""
    if note is None:
        return None
    try:
        return orjson.dumps(note, option=orjson.OPT_SORT_KEYS)
    except TypeError:  # an integer beyond 64 bits
        return jsonb.canonical_bytes(note)
