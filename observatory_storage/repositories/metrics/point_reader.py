"""Reads the points of a time series: those in the range, and the earlier points it needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, and_, any_, func, literal, select, true, tuple_
from sqlalchemy.dialects.postgresql import ARRAY

from observatory_storage.models import Metric, MetricDataPoint
from observatory_storage.repositories.metrics.filters import TimeSeriesQuery
from observatory_storage.repositories.metrics.running_totals import Point, Step, steps
from observatory_storage.repositories.metrics.selection import DISTRIBUTIONS, Selection
from observatory_storage.repositories.reading.reader import Reader
from observatory_storage.repositories.reading.validation import BATCH_SIZE

__all__ = ["PointReader", "in_range"]

_POINT: Final = MetricDataPoint
_COLUMNS: Final = tuple(
    getattr(_POINT, field.name) for field in fields(Point) if field.name != "metric_id"
)

# The earlier point of a cumulative series is searched as far back as the range is long, but at
# least this far.
_LEAST_LOOK_BACK: Final = timedelta(hours=1)
_EARLIEST: Final = datetime.min.replace(tzinfo=UTC)
# Up to this many series are searched by their attributes. For more, all points are read.
_FEW_SERIES: Final = 100


class PointReader:
    """Reads the points of the metrics of a selection."""

    def __init__(self, reader: Reader, selection: Selection) -> None:
        self._reader = reader
        self._selection = selection

    def steps(self, query: TimeSeriesQuery) -> Iterator[Step]:
        """The points in the range, each with the earlier one from which its total continued."""
        selection = self._selection
        columns = _COLUMNS if selection.is_of_one else (*_COLUMNS, _POINT.metric_id)
        if others := selection.others():
            statement = select(*columns).where(selection.points_of(others), *in_range(query))
            for point in self._points(statement):
                yield Step(point, None, known=True)
        if totals := selection.totals():
            every = select(*columns).where(selection.points_of(totals))
            # The points are read metric by metric, in the order of the index.
            newest_first = _newest_first(_POINT.metric_id, _POINT.timestamp, _POINT.id)
            yield from steps(
                self._points(every.where(*in_range(query)).order_by(*newest_first)),
                query.start_time,
                lambda waiting: self._before_range(every, query, waiting),
                monotonic=selection.metric_type != "updowncounter",
            )

    def look_back_start(self, query: TimeSeriesQuery) -> datetime | None:
        """The time from which earlier buckets are read for ``fill="previous"``.

        It is the start of the bucket that contains the metrics' latest point before the range, or
        None if there is no such point. The primary key finds the latest point of each metric. No
        index contains the attributes of points, so a query by attributes looks back as far as the
        range is long.
        """
        if query.group_by or query.attributes:
            return _furthest(query)
        metrics = self._selection.metrics
        before = [_POINT.timestamp < query.start_time]
        if self._selection.metric_type not in DISTRIBUTIONS:
            before.append(_POINT.value.is_not(None))
        ids = literal([metric.id for metric in metrics], ARRAY(Metric.id.type))
        if self._reader.is_sharded:
            of_shards = select(func.max(_POINT.timestamp)).where(_POINT.metric_id == any_(ids))
            found = self._reader.scalar(of_shards.where(*before))
            return None if found is None else query.buckets.floor(found)
        of_metric = select(_POINT.timestamp).where(_POINT.metric_id == Metric.id, *before)
        newest = of_metric.order_by(_POINT.timestamp.desc()).limit(1).lateral("newest")
        latest = self._reader.scalar(
            select(func.max(newest.c.timestamp))
            .select_from(Metric)
            .join(newest, true())
            .where(Metric.id == any_(ids))
        )
        return None if latest is None else query.buckets.floor(latest)

    def _points(self, statement: Select[Any]) -> Iterator[Point]:
        # The columns are the fields of `Point`, in their order.
        return (Point(*row) for row in self._reader.stream(statement))

    def _before_range(
        self, every: Select[Any], query: TimeSeriesQuery, waiting: Sequence[Point]
    ) -> Iterator[Point]:
        """The points of the waiting series before the range, newest first.

        Points of other series may be among them. They are read page by page, because the first page
        usually contains all points that are needed.
        """
        start, furthest = query.start_time, _furthest(query)
        # A series has no points before its start.
        starts = [point.start_timestamp or furthest for point in waiting]
        statement = every.where(_POINT.timestamp >= max(furthest, min(starts)))
        if len(waiting) <= _FEW_SERIES:
            statement = statement.where(_POINT.attributes.in_([p.attributes for p in waiting]))
        place: ColumnElement[bool] = _POINT.timestamp < start
        size = max(BATCH_SIZE, 2 * len(waiting))
        newest_first = _newest_first(_POINT.timestamp, _POINT.metric_id, _POINT.id)
        while True:
            page = statement.where(place).order_by(*newest_first).limit(size)
            rows = [Point(*row) for row in self._reader.rows(page)]
            yield from rows
            if len(rows) < size:
                return
            last = rows[-1]
            key = (last.timestamp, self._selection.metric_of(last), last.id)
            columns = (_POINT.timestamp, _POINT.metric_id, _POINT.id)
            place = and_(
                tuple_(*columns)
                < tuple_(*(literal(v, c.type) for v, c in zip(key, columns, strict=True))),
                _POINT.timestamp <= last.timestamp,
            )


def in_range(query: TimeSeriesQuery) -> list[ColumnElement[bool]]:
    """The conditions for points in the range of the query."""
    return [_POINT.timestamp >= query.start_time, _POINT.timestamp < query.end_time]


def _furthest(query: TimeSeriesQuery) -> datetime:
    """The earliest time at which points before the range are searched."""
    start, end = query.start_time, query.end_time
    return start - min(max(end - start, _LEAST_LOOK_BACK), start - _EARLIEST)


def _newest_first(*columns: Any) -> list[ColumnElement[Any]]:
    return [column.desc() for column in columns]
