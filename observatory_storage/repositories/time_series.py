"""A metric over time: what its points say for each bucket of time and each group.

Numbers are aggregated by PostgreSQL. What was added between two points of a running total, and
what histograms and summaries hold, is worked out here from a stream of points, series by series.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, func, literal, or_, select, true, union_all
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.orm import aliased
from sqlalchemy.types import Interval

from observatory_storage.errors import ValidationError
from observatory_storage.models import Metric, MetricDataPoint
from observatory_storage.repositories.base import Repository
from observatory_storage.repositories.distributions import Amounts, cells_of
from observatory_storage.repositories.filters import TimeSeriesQuery
from observatory_storage.repositories.results import TimeSeriesPoint

__all__ = ["TimeSeries", "bucket_start"]

# Buckets are counted from here, so that the same bucket has the same bounds in every query.
_ORIGIN: Final = datetime(1970, 1, 1, tzinfo=UTC)
_QUANTILES: Final = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
_DISTRIBUTIONS: Final = ("histogram", "exponential_histogram", "summary")
_POINT: Final = MetricDataPoint


@dataclass(frozen=True, slots=True)
class _Point:
    """What of a data point counts here."""

    attributes: dict[str, Any]
    start_timestamp: datetime | None
    timestamp: datetime
    id: Any
    value: float | None
    count: int | None
    sum: float | None
    min: float | None
    max: float | None
    buckets: dict[str, Any] | None
    quantiles: list[dict[str, float]] | None


_FIELDS: Final = tuple(field.name for field in fields(_Point))
_COLUMNS: Final = tuple(getattr(_POINT, name) for name in _FIELDS)


def bucket_start(width: timedelta, moment: Any) -> ColumnElement[datetime]:
    """Where the bucket of time begins that a moment lies in."""
    return func.date_bin(literal(width, Interval()), moment, literal(_ORIGIN, moment.type))


class TimeSeries(Repository):
    """Answers `TimeSeriesQuery` for one metric."""

    def points(self, metric: Metric, query: TimeSeriesQuery) -> list[TimeSeriesPoint]:
        """The points of the series, by time and group.

        Raises:
            ValidationError: the aggregation makes no sense for the metric's type.
        """
        _check(metric, query.aggregation)
        if metric.metric_type in _DISTRIBUTIONS:
            return self._from_amounts(metric, query, _observed)
        added = query.aggregation in ("rate", "increase")
        cumulative = metric.temporality == "cumulative"
        if cumulative and (
            added or (query.aggregation == "sum" and metric.metric_type == "counter")
        ):
            return self._from_amounts(metric, query, _added)
        return self._from_values(query)

    def _from_values(self, query: TimeSeriesQuery) -> list[TimeSeriesPoint]:
        keys = [_POINT.attributes[key].label(f"key_{at}") for at, key in enumerate(query.group_by)]
        # A subquery: GROUP BY would not know an expression with parameters again.
        values = (
            select(
                bucket_start(query.bucket, _POINT.timestamp).label("bucket"),
                *keys,
                _POINT.timestamp,
                _POINT.id,
                _POINT.value,
            )
            .where(*_in_range(query), _POINT.value.is_not(None))
            .subquery()
        )
        by = [values.c.bucket, *(values.c[key.name] for key in keys)]
        statement = select(*by, _aggregate(query.aggregation, values.c)).group_by(*by)
        points = []
        for bucket, *group, value in self._rows(statement.order_by(*by)):
            if query.aggregation == "rate":
                value /= _seconds(query, bucket)  # noqa: PLW2901
            named = dict(zip(query.group_by, group, strict=True))
            points.append(TimeSeriesPoint(bucket, float(value), named))
        return points

    def _from_amounts(
        self, metric: Metric, query: TimeSeriesQuery, add: Any
    ) -> list[TimeSeriesPoint]:
        running = metric.temporality == "cumulative" or metric.metric_type == "summary"
        found: dict[tuple[datetime, Any], tuple[dict[str, Any], Amounts]] = {}
        rows = self._stream(_points_and_predecessors(query) if running else _points(query))
        points = (_Point(*row) for row in rows)
        monotonic = metric.metric_type != "updowncounter"
        for point, earlier, known in (
            _steps(points, query.start_time, monotonic=monotonic)
            if running
            else ((point, None, True) for point in points)
        ):
            bucket = _ORIGIN + (point.timestamp - _ORIGIN) // query.bucket * query.bucket
            group = {key: point.attributes.get(key) for key in query.group_by}
            _, amounts = found.setdefault((bucket, _hashable(group)), (group, Amounts()))
            add(amounts, point, earlier, known=known)
        result = []
        for (bucket, _), (group, amounts) in found.items():
            value = _read(amounts, query, bucket, metric.metric_type)
            if value is not None:
                result.append(TimeSeriesPoint(bucket, float(value), group))
        return sorted(result, key=lambda point: (point.timestamp, repr(point.group)))


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
    if aggregation in _QUANTILES:
        return func.percentile_cont(_QUANTILES[aggregation]).within_group(value)
    if aggregation == "last":
        newest = aggregate_order_by(value, values.timestamp.desc(), values.id.desc())
        return func.array_agg(newest)[1]
    if aggregation in ("rate", "increase"):
        return func.sum(value)
    aggregate: ColumnElement[Any] = getattr(func, aggregation)(value)
    return aggregate


def _in_range(query: TimeSeriesQuery) -> list[ColumnElement[bool]]:
    return [
        _POINT.metric_id == query.metric_id,
        _POINT.timestamp >= query.start_time,
        _POINT.timestamp < query.end_time,
    ]


def _points(query: TimeSeriesQuery) -> Select[Any]:
    return select(*_COLUMNS).where(*_in_range(query))


def _points_and_predecessors(query: TimeSeriesQuery) -> Select[Any]:
    """The points in range, and for each series the one before, from which its total went on.

    A series that started within the range has none, and is not looked for.
    """
    in_order = func.row_number().over(
        partition_by=_POINT.attributes, order_by=(_POINT.timestamp, _POINT.id)
    )
    first = (
        select(_POINT.attributes, _POINT.start_timestamp, in_order.label("place"))
        .where(*_in_range(query))
        .subquery()
    )
    earlier = aliased(_POINT)
    begun = first.c.start_timestamp
    predecessor = (
        select(*(getattr(earlier, name) for name in _FIELDS))
        .where(
            earlier.metric_id == query.metric_id,
            earlier.timestamp < query.start_time,
            or_(begun.is_(None), earlier.timestamp >= begun),
            earlier.attributes == first.c.attributes,
        )
        .order_by(earlier.timestamp.desc(), earlier.id.desc())
        .limit(1)
        .lateral()
    )
    predecessors = (
        select(*predecessor.c)
        .select_from(first.join(predecessor, true()))
        .where(first.c.place == 1, or_(begun.is_(None), begun < query.start_time))
    )
    both = union_all(_points(query), predecessors).subquery()
    return select(both).order_by(both.c.attributes, both.c.timestamp, both.c.id)


def _steps(
    points: Iterable[_Point], start_time: datetime, *, monotonic: bool
) -> Iterator[tuple[_Point, _Point | None, bool]]:
    """Each point in range, the one that its total went on from, and whether that is known.

    A total that fell, or that says that it began anew, went on from nothing. So did one that
    began within the range. Of one that began before it, and of which no earlier point is stored,
    nobody knows how much was added within the range.
    """
    series: Any = None
    earlier: _Point | None = None
    for point in points:
        key = _hashable(point.attributes)
        if key != series:
            series, earlier = key, None
        if point.timestamp >= start_time:
            if earlier is not None:
                yield (
                    point,
                    None if _is_reset(point, earlier, monotonic=monotonic) else earlier,
                    True,
                )
            else:
                began = point.start_timestamp
                yield point, None, began is not None and began >= start_time
        if point.value is not None or point.count is not None:
            earlier = point


def _is_reset(point: _Point, earlier: _Point, *, monotonic: bool) -> bool:
    if point.start_timestamp != earlier.start_timestamp:
        return True
    if not monotonic:
        return False
    fallen = point.value is not None and earlier.value is not None and point.value < earlier.value
    fewer = point.count is not None and earlier.count is not None and point.count < earlier.count
    return fallen or fewer


def _added(amounts: Amounts, point: _Point, earlier: _Point | None, *, known: bool) -> None:
    """Count what was added to a number."""
    if known and point.value is not None and amounts.sum is not None:
        before = earlier.value if earlier is not None and earlier.value is not None else 0.0
        amounts.points += 1
        amounts.sum += point.value - before


def _observed(amounts: Amounts, point: _Point, earlier: _Point | None, *, known: bool) -> None:
    """Count the observations of a histogram or summary."""
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
    if aggregation in _QUANTILES:
        return amounts.quantile(_QUANTILES[aggregation])
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
    """How much of the bucket lies within the range, in seconds."""
    start = max(bucket, query.start_time)
    return (min(bucket + query.bucket, query.end_time) - start).total_seconds()


def _hashable(value: Any) -> Any:
    """The value as a key that is equal where PostgreSQL's jsonb is: 1 is 1.0, true is not 1."""
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, Mapping):
        return tuple((key, _hashable(item)) for key, item in sorted(value.items()))
    if isinstance(value, list):
        return ("list", *map(_hashable, value))
    return value
