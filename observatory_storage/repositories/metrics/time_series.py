"""Time series: aggregates the points of a metric by bucket of time and by group.

PostgreSQL aggregates numbers. The increases of cumulative totals, and the contents of histograms
and summaries, are computed here from a stream of points, series by series.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, and_, func, literal, literal_column, select, tuple_
from sqlalchemy.dialects.postgresql import JSONB, aggregate_order_by

from observatory_storage.errors import ValidationError
from observatory_storage.models import Metric, MetricDataPoint
from observatory_storage.repositories.metrics.distributions import Amounts, cells_of
from observatory_storage.repositories.metrics.filters import TimeSeriesQuery
from observatory_storage.repositories.metrics.gap_filling import fill_gaps
from observatory_storage.repositories.metrics.results import TimeSeriesPoint
from observatory_storage.repositories.metrics.running_totals import Point, Step, hashable, steps
from observatory_storage.repositories.reading.aggregates import PERCENTILES
from observatory_storage.repositories.reading.reader import Reader
from observatory_storage.repositories.reading.validation import BATCH_SIZE

__all__ = ["TimeSeries"]

_DISTRIBUTIONS: Final = ("histogram", "exponential_histogram", "summary")
_POINT: Final = MetricDataPoint
_COLUMNS: Final = tuple(getattr(_POINT, field.name) for field in fields(Point))
_NEWEST_FIRST: Final = (_POINT.timestamp.desc(), _POINT.id.desc())

# The earlier point of a cumulative series is searched before the range, as far back as the range is
# long, but at least this far.
_LEAST_LOOK_BACK: Final = timedelta(hours=1)
_EARLIEST: Final = datetime.min.replace(tzinfo=UTC)
# Up to this many series are searched by their attributes. For more, all points are read.
_FEW_SERIES: Final = 100


class TimeSeries:
    """Answers `TimeSeriesQuery` for one metric."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def points(self, metric: Metric, query: TimeSeriesQuery) -> list[TimeSeriesPoint]:
        """The points of the series, by time and group.

        Raises:
            ValidationError: the aggregation makes no sense for the metric's type.
        """
        _check(metric, query.aggregation)
        points = sorted(
            self._measured(metric, query), key=lambda point: (point.timestamp, repr(point.group))
        )
        if query.fill is None:
            return points
        return fill_gaps(points, query, lambda: self._before(metric, query))

    def _measured(self, metric: Metric, query: TimeSeriesQuery) -> list[TimeSeriesPoint]:
        if metric.metric_type in _DISTRIBUTIONS:
            return self._from_amounts(metric, query, _observed)
        added = query.aggregation in ("rate", "increase")
        cumulative = metric.temporality == "cumulative"
        if cumulative and (
            added or (query.aggregation == "sum" and metric.metric_type == "counter")
        ):
            return self._from_amounts(metric, query, _added)
        return self._from_values(query)

    def _before(self, metric: Metric, query: TimeSeriesQuery) -> list[TimeSeriesPoint]:
        """The points of the series before the range, for `fill_gaps`.

        Without groups from the bucket of the metric's latest point on, which the index finds. No
        index has the points of a group, so with groups it looks back as far as the range is long.
        """
        start = _furthest(query)
        if not query.group_by:
            before = [_POINT.metric_id == query.metric_id, _POINT.timestamp < query.start_time]
            if metric.metric_type not in _DISTRIBUTIONS:
                before.append(_POINT.value.is_not(None))
            newest = select(_POINT.timestamp).where(*before).order_by(*_NEWEST_FIRST).limit(1)
            latest = self._reader.scalar(newest)
            if latest is None:
                return []
            start = query.buckets.floor(latest)
        earlier = replace(query, start_time=start, end_time=query.start_time, fill=None)
        return sorted(self._measured(metric, earlier), key=lambda point: point.timestamp)

    def _from_values(self, query: TimeSeriesQuery) -> list[TimeSeriesPoint]:
        # An attribute that is null belongs to the same group as a missing one.
        null = literal_column("'null'::jsonb", JSONB())
        keys = [
            func.nullif(_POINT.attributes[key], null, type_=JSONB()).label(f"key_{number}")
            for number, key in enumerate(query.group_by)
        ]
        # A subquery, because GROUP BY does not recognise an expression with parameters.
        values = (
            select(
                query.buckets.column(_POINT.timestamp, query.start_time, query.end_time),
                *keys,
                _POINT.timestamp,
                _POINT.id,
                _POINT.value,
            )
            .where(*_in_range(query), _POINT.value.is_not(None))
            .subquery()
        )
        by = [values.c.bucket, *(values.c[key.name] for key in keys)]
        aggregate = _aggregate(query.aggregation, values.c).label("value")
        points = []
        for columns in self._reader.records(select(*by, aggregate).group_by(*by)):
            named = zip(query.group_by, keys, strict=True)
            group = {name: columns[key.name] for name, key in named}
            bucket = query.buckets.read(columns["bucket"])
            seconds = _seconds(query, bucket) if query.aggregation == "rate" else 1
            value = float(columns["value"] / seconds)
            points.append(TimeSeriesPoint(timestamp=bucket, value=value, group=group))
        return points

    def _from_amounts(
        self,
        metric: Metric,
        query: TimeSeriesQuery,
        add: Callable[[Amounts, Step], None],
    ) -> list[TimeSeriesPoint]:
        buckets = query.buckets
        found: dict[tuple[datetime, Any], tuple[dict[str, Any], Amounts]] = {}
        for step in self._steps(metric, query):
            bucket = buckets.floor(step.point.timestamp)
            group = {key: step.point.attributes.get(key) for key in query.group_by}
            _, amounts = found.setdefault((bucket, hashable(group)), (group, Amounts()))
            add(amounts, step)
        result = []
        for (bucket, _), (group, amounts) in found.items():
            value = _read(amounts, query, bucket, metric.metric_type)
            if value is not None:
                result.append(TimeSeriesPoint(bucket, float(value), group))
        return result

    def _steps(self, metric: Metric, query: TimeSeriesQuery) -> Iterator[Step]:
        in_range = select(*_COLUMNS).where(*_in_range(query))
        if metric.temporality != "cumulative" and metric.metric_type != "summary":
            return (Step(point, None, known=True) for point in self._points(in_range))
        return steps(
            self._points(in_range.order_by(*_NEWEST_FIRST)),
            query.start_time,
            lambda waiting: self._before_range(query, waiting),
            monotonic=metric.metric_type != "updowncounter",
        )

    def _points(self, statement: Select[Any]) -> Iterator[Point]:
        # `_COLUMNS` are the fields of `Point`, in their order.
        return (Point(*row) for row in self._reader.stream(statement))

    def _before_range(self, query: TimeSeriesQuery, waiting: Sequence[Point]) -> Iterator[Point]:
        """The points before the range, newest first, of the waiting series, and maybe of others.

        They are read page by page, because the first page mostly has all that are needed.
        """
        start, furthest = query.start_time, _furthest(query)
        # A series has no points before its start.
        starts = [point.start_timestamp or furthest for point in waiting]
        statement = select(*_COLUMNS).where(
            _POINT.metric_id == query.metric_id, _POINT.timestamp >= max(furthest, min(starts))
        )
        if len(waiting) <= _FEW_SERIES:
            statement = statement.where(_POINT.attributes.in_([p.attributes for p in waiting]))
        place: ColumnElement[bool] = _POINT.timestamp < start
        while True:
            page = statement.where(place).order_by(*_NEWEST_FIRST).limit(BATCH_SIZE)
            rows = [Point(*row) for row in self._reader.rows(page)]
            yield from rows
            if len(rows) < BATCH_SIZE:
                return
            last = rows[-1]
            key = (literal(last.timestamp, _POINT.timestamp.type), literal(last.id))
            place = and_(
                tuple_(_POINT.timestamp, _POINT.id) < tuple_(*key),
                _POINT.timestamp <= last.timestamp,
            )


def _check(metric: Metric, aggregation: str) -> None:
    kind = metric.metric_type
    if kind == "gauge" and aggregation in ("rate", "increase"):
        rule = "a gauge does not add up: use avg, min, max, last or a percentile"
    elif kind in _DISTRIBUTIONS and aggregation == "last":
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


def _aggregate(aggregation: str, values: Any) -> ColumnElement[Any]:
    value = values.value
    if aggregation in PERCENTILES:
        return func.percentile_cont(PERCENTILES[aggregation]).within_group(value)
    if aggregation == "last":
        newest = aggregate_order_by(value, values.timestamp.desc(), values.id.desc())
        return func.array_agg(newest)[1]
    if aggregation in ("rate", "increase"):
        return func.sum(value)
    aggregate: ColumnElement[Any] = getattr(func, aggregation)(value)
    return aggregate


def _furthest(query: TimeSeriesQuery) -> datetime:
    """How far before the range anything is looked for."""
    start, end = query.start_time, query.end_time
    return start - min(max(end - start, _LEAST_LOOK_BACK), start - _EARLIEST)


def _in_range(query: TimeSeriesQuery) -> list[ColumnElement[bool]]:
    return [
        _POINT.metric_id == query.metric_id,
        _POINT.timestamp >= query.start_time,
        _POINT.timestamp < query.end_time,
    ]


def _added(amounts: Amounts, step: Step) -> None:
    """Count what was added to a number."""
    point, earlier, known = step
    if known and point.value is not None and amounts.sum is not None:
        before = earlier.value if earlier is not None and earlier.value is not None else 0.0
        amounts.points += 1
        amounts.sum += point.value - before


def _observed(amounts: Amounts, step: Step) -> None:
    """Count the observations of a histogram or summary."""
    point, earlier, known = step
    amounts.widen(point.min, point.max)
    new = (point.count or 0) - ((earlier.count or 0) if earlier is not None else 0)
    for quantile in point.quantiles or ():
        q, value = quantile["quantile"], quantile["value"]
        amounts.widen(value if q == 0 else None, value if q == 1 else None)
        weight = new if known else max(point.count or 0, 1)
        amounts.quantiles.setdefault(q, []).append((value, weight))
    if not known or point.count is None:
        return
    amounts.points += 1
    amounts.count += new
    before = earlier.sum if earlier is not None else 0.0
    if point.sum is None or before is None:
        amounts.sum = None
    elif amounts.sum is not None:
        amounts.sum += point.sum - before
    cells = cells_of(point.buckets, earlier.buckets if earlier is not None else None)
    for cell, count in cells.items():
        amounts.cells[cell] = amounts.cells.get(cell, 0) + count


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
    if aggregation == "sum":
        return amounts.sum
    if aggregation == "avg":
        return amounts.sum / amounts.count if amounts.count and amounts.sum is not None else None
    added = amounts.count if metric_type in _DISTRIBUTIONS else amounts.sum
    if added is None or aggregation != "rate":
        return added
    return added / _seconds(query, bucket)


def _seconds(query: TimeSeriesQuery, bucket: datetime) -> float:
    """The part of the bucket that lies within the range, in seconds."""
    start, end = max(bucket, query.start_time), min(query.buckets.end(bucket), query.end_time)
    return (end - start).total_seconds()
