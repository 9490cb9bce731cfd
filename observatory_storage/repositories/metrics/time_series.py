"""A metric over time: what its points say for each bucket of time and each group.

Numbers are aggregated by PostgreSQL. What was added between two points of a running total, and
what histograms and summaries hold, is computed here from a stream of points, series by series.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, and_, func, literal, not_, select, tuple_
from sqlalchemy.dialects.postgresql import aggregate_order_by

from observatory_storage.errors import ValidationError
from observatory_storage.models import Metric, MetricDataPoint
from observatory_storage.repositories.metrics.amounts import (
    Amounts,
    count_addition,
    count_observations,
)
from observatory_storage.repositories.metrics.filters import TimeSeriesQuery
from observatory_storage.repositories.metrics.gap_filling import fill_gaps
from observatory_storage.repositories.metrics.results import TimeSeriesPoint
from observatory_storage.repositories.metrics.running_totals import Point, Step, hashable, steps
from observatory_storage.repositories.metrics.selection import DISTRIBUTIONS, Selection
from observatory_storage.repositories.reading.aggregates import (
    PERCENTILES,
    as_double,
    is_huge,
    of_doubles,
    quotient,
)
from observatory_storage.repositories.reading.reader import Reader
from observatory_storage.repositories.reading.time_buckets import bucket_floor, bucket_start
from observatory_storage.repositories.reading.validation import BATCH_SIZE

__all__ = ["TimeSeries"]

_POINT: Final = MetricDataPoint
_COLUMNS: Final = tuple(
    getattr(_POINT, field.name) for field in fields(Point) if field.name != "metric_id"
)
# Those whose results are of the size of the values: PostgreSQL computes them for any value.
_CHOICES: Final = ("min", "max", "last", "count")

# How far before the range a series is looked for: as far as the range is long, and so far at least.
_LEAST_LOOK_BACK: Final = timedelta(hours=1)
_EARLIEST: Final = datetime.min.replace(tzinfo=UTC)
# So few series are looked for by their attributes; of more, all points are looked through.
_FEW_SERIES: Final = 100


class TimeSeries:
    """Answers `TimeSeriesQuery` for metrics that are aggregated together."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def points(self, metrics: Sequence[Metric], query: TimeSeriesQuery) -> list[TimeSeriesPoint]:
        """The points of the series, by time and group.

        Raises:
            ValidationError: the aggregation makes no sense for the metrics.
        """
        selection = Selection(metrics, query)
        for metric in metrics:
            _check(metric, query.aggregation)
        points = sorted(
            self._measured(selection, query), key=lambda point: (point.timestamp, repr(point.group))
        )
        return points if query.fill is None else fill_gaps(points, query)

    def _measured(self, selection: Selection, query: TimeSeriesQuery) -> list[TimeSeriesPoint]:
        metric_type, aggregation = selection.metric_type, query.aggregation
        if metric_type in DISTRIBUTIONS:
            return self._from_amounts(selection, query, count_observations)
        temporalities = selection.temporalities
        if "cumulative" in temporalities:
            if aggregation in ("rate", "increase") or (
                aggregation == "sum" and metric_type == "counter"
            ):
                return self._from_amounts(selection, query, count_addition)
            if "delta" in temporalities and metric_type != "gauge" and aggregation != "count":
                rule = f"some metrics called {query.name} are delta: use rate, increase or count"
                raise ValidationError("aggregation", aggregation, rule)
        return self._from_values(selection, query)

    def _from_values(self, selection: Selection, query: TimeSeriesQuery) -> list[TimeSeriesPoint]:
        keys = [
            selection.group_key(key).label(f"key_{number}")
            for number, key in enumerate(query.group_by)
        ]
        # A subquery: GROUP BY would not know an expression with parameters again.
        values = (
            select(
                bucket_start(query.bucket, _POINT.timestamp).label("bucket"),
                *keys,
                _POINT.timestamp,
                _POINT.id,
                _POINT.value,
            )
            .where(
                selection.points_of(selection.metrics), *_in_range(query), _POINT.value.is_not(None)
            )
            .subquery()
        )
        by = [values.c.bucket, *(values.c[key.name] for key in keys)]
        rows = self._reader.records(
            select(*by, *_aggregates(query.aggregation, values.c)).group_by(*by)
        )
        if any(row["huge_count"] for row in rows):
            # PostgreSQL may fail to add these, so they are added here.
            each = func.array_agg(values.c.value).label("values")
            rows = self._reader.records(select(*by, each).group_by(*by))
            for row in rows:
                row["value"] = of_doubles(query.aggregation, row["values"])
        points = []
        for columns in rows:
            if columns["value"] is None or math.isnan(columns["value"]):
                continue
            named = zip(query.group_by, keys, strict=True)
            group = {name: columns[key.name] for name, key in named}
            seconds = _seconds(query, columns["bucket"]) if query.aggregation == "rate" else 1
            value = float(columns["value"] / seconds)
            points.append(TimeSeriesPoint(timestamp=columns["bucket"], value=value, group=group))
        return points

    def _from_amounts(
        self,
        selection: Selection,
        query: TimeSeriesQuery,
        add: Callable[[Amounts, Step], None],
    ) -> list[TimeSeriesPoint]:
        found: dict[tuple[datetime, Any], tuple[dict[str, Any], Amounts]] = {}
        for step in self._steps(selection, query):
            bucket = bucket_floor(query.bucket, step.point.timestamp)
            group = selection.group_of(step.point)
            _, amounts = found.setdefault((bucket, hashable(group)), (group, Amounts()))
            add(amounts, step)
        result = []
        for (bucket, _), (group, amounts) in found.items():
            value = _read(amounts, query, bucket, selection.metric_type)
            if value is not None and not math.isnan(value):
                result.append(TimeSeriesPoint(bucket, value, group))
        return result

    def _steps(self, selection: Selection, query: TimeSeriesQuery) -> Iterator[Step]:
        columns = _COLUMNS if selection.is_of_one else (*_COLUMNS, _POINT.metric_id)
        if others := selection.others():
            statement = select(*columns).where(selection.points_of(others), *_in_range(query))
            for point in self._points(statement):
                yield Step(point, None, known=True)
        if totals := selection.totals():
            every = select(*columns).where(selection.points_of(totals))
            # Metric by metric, as the index has them.
            newest_first = _newest_first(_POINT.metric_id, _POINT.timestamp, _POINT.id)
            yield from steps(
                self._points(every.where(*_in_range(query)).order_by(*newest_first)),
                query.start_time,
                lambda waiting: self._before_range(selection, every, query, waiting),
                monotonic=selection.metric_type != "updowncounter",
            )

    def _points(self, statement: Select[Any]) -> Iterator[Point]:
        # The columns are selected by the names of the fields, in their order.
        return (Point(*row) for row in self._reader.stream(statement))

    def _before_range(
        self,
        selection: Selection,
        every: Select[Any],
        query: TimeSeriesQuery,
        waiting: Sequence[Point],
    ) -> Iterator[Point]:
        """The points before the range, newest first, of the series that wait, and maybe others.

        By pages: mostly the first one has them all.
        """
        start, end = query.start_time, query.end_time
        furthest = start - min(max(end - start, _LEAST_LOOK_BACK), start - _EARLIEST)
        # None of a series is from before it started.
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
            key = (last.timestamp, selection.metric_of(last), last.id)
            columns = (_POINT.timestamp, _POINT.metric_id, _POINT.id)
            place = and_(
                tuple_(*columns)
                < tuple_(*(literal(v, c.type) for v, c in zip(key, columns, strict=True))),
                _POINT.timestamp <= last.timestamp,
            )


def _check(metric: Metric, aggregation: str) -> None:
    kind = metric.metric_type
    if kind == "gauge" and aggregation in ("rate", "increase"):
        rule = "a gauge does not add up: use avg, min, max, last or a percentile"
    elif kind in DISTRIBUTIONS and aggregation == "last":
        rule = f"a {kind} has no single value: use avg, count or a percentile"
    elif (
        kind in ("histogram", "exponential_histogram")
        and metric.temporality == "cumulative"
        and aggregation in ("min", "max")
    ):
        rule = "cumulative points tell the extremes since their start, not those of a bucket"
    else:
        return
    raise ValidationError("aggregation", aggregation, rule)


def _aggregates(aggregation: str, values: Any) -> list[ColumnElement[Any]]:
    """The aggregate ``value``, and ``huge_count``: of how many values it cannot be computed so."""
    value = values.value
    huge = func.count().filter(is_huge(value)).label("huge_count")
    if aggregation in _CHOICES:
        huge = literal(0).label("huge_count")
    aggregate: ColumnElement[Any]
    if aggregation in PERCENTILES:
        aggregate = func.percentile_cont(PERCENTILES[aggregation]).within_group(value)
    elif aggregation == "last":
        newest = aggregate_order_by(value, values.timestamp.desc(), values.id.desc())
        aggregate = func.array_agg(newest)[1]
    elif aggregation in ("min", "max", "count"):
        aggregate = getattr(func, aggregation)(value)
    else:
        function = func.avg if aggregation == "avg" else func.sum
        aggregate = function(value).filter(not_(is_huge(value)))
    return [aggregate.label("value"), huge]


def _in_range(query: TimeSeriesQuery) -> list[ColumnElement[bool]]:
    return [_POINT.timestamp >= query.start_time, _POINT.timestamp < query.end_time]


def _newest_first(*columns: Any) -> list[ColumnElement[Any]]:
    return [column.desc() for column in columns]


def _read(
    amounts: Amounts, query: TimeSeriesQuery, bucket: datetime, metric_type: str
) -> float | None:
    aggregation = query.aggregation
    if aggregation in PERCENTILES:
        return amounts.quantile(PERCENTILES[aggregation])
    if aggregation in ("min", "max"):
        return amounts.min if aggregation == "min" else amounts.max
    if not amounts.points:
        return None
    total = amounts.sum
    if metric_type in DISTRIBUTIONS and aggregation not in ("sum", "avg"):
        total = float(amounts.count)
    if total is None or (aggregation == "avg" and not amounts.count):
        return None
    if aggregation == "avg":
        total = quotient(total, amounts.count)
    elif aggregation == "rate":
        total = quotient(total, _seconds(query, bucket))
    return as_double(total)


def _seconds(query: TimeSeriesQuery, bucket: datetime) -> float:
    """How much of the bucket lies within the range, in seconds."""
    start = max(bucket, query.start_time)
    # The last bucket may reach beyond the year 9999, where no datetime does.
    end = bucket + query.bucket if query.bucket < query.end_time - bucket else query.end_time
    return (end - start).total_seconds()
