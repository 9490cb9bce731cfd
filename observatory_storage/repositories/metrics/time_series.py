"""Time series: aggregates the points of a metric by bucket of time and by group.

PostgreSQL aggregates numbers. The increases of cumulative totals, and the contents of histograms
and summaries, are computed here from a stream of points, series by series.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, func, literal, not_, select
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
from observatory_storage.repositories.metrics.point_reader import PointReader, in_range
from observatory_storage.repositories.metrics.results import TimeSeriesPoint
from observatory_storage.repositories.metrics.running_totals import Step, hashable
from observatory_storage.repositories.metrics.selection import DISTRIBUTIONS, Selection
from observatory_storage.repositories.reading.aggregates import (
    PERCENTILES,
    as_double,
    is_huge,
    of_doubles,
    quotient,
)
from observatory_storage.repositories.reading.reader import Reader

__all__ = ["TimeSeries"]

_POINT: Final = MetricDataPoint
# PostgreSQL computes these for any value, because their results are not larger than the values.
_CHOICES: Final = ("min", "max", "last", "count")


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
        if query.fill is None:
            return points
        return fill_gaps(points, query, lambda: self._before(selection, query))

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

    def _before(self, selection: Selection, query: TimeSeriesQuery) -> list[TimeSeriesPoint]:
        """The points of the series before the range, by time, for `fill_gaps`."""
        start = PointReader(self._reader, selection).look_back_start(query)
        if start is None:
            return []
        earlier = replace(query, start_time=start, end_time=query.start_time, fill=None)
        return sorted(self._measured(selection, earlier), key=lambda point: point.timestamp)

    def _from_values(self, selection: Selection, query: TimeSeriesQuery) -> list[TimeSeriesPoint]:
        keys = [
            selection.group_key(key).label(f"key_{number}")
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
            .where(
                selection.points_of(selection.metrics), *in_range(query), _POINT.value.is_not(None)
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
            bucket = query.buckets.read(columns["bucket"])
            seconds = _seconds(query, bucket) if query.aggregation == "rate" else 1
            value = float(columns["value"] / seconds)
            points.append(TimeSeriesPoint(timestamp=bucket, value=value, group=group))
        return points

    def _from_amounts(
        self,
        selection: Selection,
        query: TimeSeriesQuery,
        add: Callable[[Amounts, Step], None],
    ) -> list[TimeSeriesPoint]:
        buckets = query.buckets
        found: dict[tuple[datetime, Any], tuple[dict[str, Any], Amounts]] = {}
        for step in PointReader(self._reader, selection).steps(query):
            bucket = buckets.floor(step.point.timestamp)
            group = selection.group_of(step.point)
            _, amounts = found.setdefault((bucket, hashable(group)), (group, Amounts()))
            add(amounts, step)
        result = []
        for (bucket, _), (group, amounts) in found.items():
            value = _read(amounts, query, bucket, selection.metric_type)
            if value is not None and not math.isnan(value):
                result.append(TimeSeriesPoint(bucket, value, group))
        return result


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
    """The aggregate ``value``, and ``huge_count``: the number of values that it leaves out."""
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
    """The part of the bucket that lies within the range, in seconds."""
    start, end = max(bucket, query.start_time), min(query.buckets.end(bucket), query.end_time)
    return (end - start).total_seconds()
