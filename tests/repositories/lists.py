"""The lists that come in pages, for tests that hold for each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from observatory_storage import CopyWriter, StoragePool, UnitOfWork
from observatory_storage.models import LogRecord, Metric, MetricDataPoint, Trace, TraceSpan
from observatory_storage.repositories import (
    LogFilters,
    MetricFilters,
    Page,
    SpanFilters,
    TraceFilters,
)
from tests.repositories.samples import START, Row, a_log, a_span

METRIC: Row = {
    "name": "m",
    "metric_type": "gauge",
    "service_name": "service",
    "temporality": "unspecified",
}
MILLISECOND = timedelta(milliseconds=1)


@dataclass(frozen=True)
class Listing:
    """A list: how a page of it is asked for, how all of it is walked, and how rows come to it.

    Attributes:
        page: a page; ``limit``, cursors and ``total`` by keyword.
        walk: all rows, so many at a time in memory.
        write: rows at these places of the list, which are whole numbers.
        place: the place of a row.
    """

    name: str
    page: Callable[..., Page[Any]]
    walk: Callable[[UnitOfWork, int], Iterator[Any]]
    write: Callable[[StoragePool, list[int]], object]
    place: Callable[[Any], int]
    newest_first: bool = True

    def __str__(self) -> str:
        return self.name

    def ordered(self, places: list[int]) -> list[int]:
        """The places as the list has them."""
        return sorted(places, reverse=self.newest_first)


def _moment(place: int) -> datetime:
    return START + place * MILLISECOND


def _place_of(moment: datetime) -> int:
    return (moment - START) // MILLISECOND


def _span(place: int) -> Row:
    return a_span(place + 1_000_000, place + 1_000_000, _moment(place))


def _write_points(pool: StoragePool, places: list[int]) -> None:
    metric_id = metric_of(pool)
    rows: list[Row] = [
        {"metric_id": metric_id, "timestamp": _moment(place), "value": place} for place in places
    ]
    CopyWriter(pool).write_data_points(rows)


def metric_of(pool: StoragePool) -> UUID:
    """The id of the metric whose points are listed; it is written where it is missing."""
    CopyWriter(pool).write_metrics([METRIC])
    with pool.unit_of_work() as uow:
        (metric,) = uow.metrics.get_by_name("m", service_name="service")
        return metric.id


def _points(uow: UnitOfWork, **asked: Any) -> Page[MetricDataPoint]:
    (metric,) = uow.metrics.get_by_name("m", service_name="service")
    return uow.metrics.get_data_points(metric.id, **asked)


def _all_points(uow: UnitOfWork, size: int) -> Iterator[MetricDataPoint]:
    (metric,) = uow.metrics.get_by_name("m", service_name="service")
    return uow.metrics.iterate_data_points(metric.id, batch_size=size)


def _traces(uow: UnitOfWork, limit: int, **asked: Any) -> Page[Trace]:
    return uow.traces.list(TraceFilters(limit=limit), **asked)


def _failed_traces(uow: UnitOfWork, limit: int, **asked: Any) -> Page[Trace]:
    return uow.traces.list(TraceFilters(status="unset", limit=limit), **asked)


def _spans(uow: UnitOfWork, limit: int, **asked: Any) -> Page[TraceSpan]:
    return uow.traces.list_spans(SpanFilters(limit=limit), **asked)


def _logs(uow: UnitOfWork, limit: int, **asked: Any) -> Page[LogRecord]:
    return uow.logs.list(LogFilters(limit=limit), **asked)


def _found_logs(uow: UnitOfWork, limit: int, **asked: Any) -> Page[LogRecord]:
    return uow.logs.search_text("word", LogFilters(limit=limit), **asked)


def _metrics(uow: UnitOfWork, limit: int, **asked: Any) -> Page[Metric]:
    return uow.metrics.list(MetricFilters(limit=limit), **asked)


LISTS = (
    Listing(
        "traces",
        _traces,
        lambda uow, size: uow.traces.iterate(batch_size=size),
        lambda pool, places: CopyWriter(pool).write_spans([_span(place) for place in places]),
        lambda row: _place_of(row.start_time),
    ),
    Listing(
        "filtered traces",
        _failed_traces,
        lambda uow, size: uow.traces.iterate(TraceFilters(status="unset"), size),
        lambda pool, places: CopyWriter(pool).write_spans([_span(place) for place in places]),
        lambda row: _place_of(row.start_time),
    ),
    Listing(
        "spans",
        _spans,
        lambda uow, size: uow.traces.iterate_spans(batch_size=size),
        lambda pool, places: CopyWriter(pool).write_spans([_span(place) for place in places]),
        lambda row: _place_of(row.start_time),
    ),
    Listing(
        "logs",
        _logs,
        lambda uow, size: uow.logs.iterate(batch_size=size),
        lambda pool, places: CopyWriter(pool).write_logs(
            [a_log(place + 1_000_000, _moment(place), body="a word") for place in places]
        ),
        lambda row: _place_of(row.timestamp),
    ),
    Listing(
        "found logs",
        _found_logs,
        lambda uow, size: uow.logs.iterate(LogFilters(text="word"), size),
        lambda pool, places: CopyWriter(pool).write_logs(
            [a_log(place + 1_000_000, _moment(place), body="a word") for place in places]
        ),
        lambda row: _place_of(row.timestamp),
    ),
    Listing(
        "points",
        _points,
        _all_points,
        _write_points,
        lambda row: _place_of(row.timestamp),
        newest_first=False,
    ),
    Listing(
        "metrics",
        _metrics,
        lambda uow, size: uow.metrics.iterate(batch_size=size),
        lambda pool, places: CopyWriter(pool).write_metrics(
            [{**METRIC, "name": f"{place + 1_000_000:08d}"} for place in places]
        ),
        lambda row: int(row.name) - 1_000_000,
        newest_first=False,
    ),
)
