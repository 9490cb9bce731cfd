"""Metrics: their definitions and points, series over time; cost and latency out of spans."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import ColumnElement, Double, bindparam, func, literal, select
from sqlalchemy.dialects.postgresql import ARRAY, aggregate_order_by

from observatory_storage import ids
from observatory_storage.errors import ValidationError
from observatory_storage.models import Metric, MetricDataPoint, TraceSpan
from observatory_storage.repositories.metrics.costs import CostQueries
from observatory_storage.repositories.metrics.filters import MetricFilters, TimeSeriesQuery
from observatory_storage.repositories.metrics.time_series import TimeSeries
from observatory_storage.repositories.reading import validation
from observatory_storage.repositories.reading.conditions import asked
from observatory_storage.repositories.reading.counting import Total
from observatory_storage.repositories.reading.grouping import DURATION_US
from observatory_storage.repositories.reading.pages import Keyset, Page
from observatory_storage.repositories.reading.results import (
    LatencyPercentiles,
    MetricStats,
    TimeSeriesPoint,
)
from observatory_storage.repositories.reading.time_buckets import bucket_start
from observatory_storage.repositories.traces.filters import SpanFilters

__all__ = ["MetricRepository"]

_BY_ID: Final = select(Metric).where(Metric.id == bindparam("id"))
_METRICS: Final = Keyset("metrics", (Metric.name, Metric.id), descending=False)
_POINTS: Final = Keyset(
    "metric_data_points", (MetricDataPoint.timestamp, MetricDataPoint.id), descending=False
)
_PERCENTILES: Final = (0.5, 0.9, 0.95, 0.99)


class MetricRepository(CostQueries):
    """Questions about metrics, and the two that are asked of spans as if they were metrics."""

    def get(self, id: str | UUID) -> Metric:  # noqa: A002 - the column's name
        """The metric of an id.

        Raises:
            NotFound: there is none.
            ValidationError: the id is no UUID.
        """
        key = ids.uuid_of(id, "id")
        return self._entity(_BY_ID, {"id": key}, f"metric {id}")

    def get_by_name(self, name: str, service_name: str | None = None) -> builtins.list[Metric]:
        """The metrics of a name: one for each type, unit, resource and scope that reports it."""
        wanted = MetricFilters(
            name=validation.required_text("name", name), service_name=service_name
        )
        return self._entities(select(Metric).where(*wanted.conditions()).order_by(Metric.id))

    def list(
        self,
        filters: MetricFilters | None = None,
        *,
        after: str | None = None,
        before: str | None = None,
        total: Total | None = None,
    ) -> Page[Metric]:
        """A page of the metrics that match, by name.

        Args:
            total: "exact" or "estimated": say how many there are in all, by one more statement.

        Raises:
            ValidationError: a cursor is damaged or another query's.
        """
        filters = validation.filters(filters, MetricFilters)
        return self._page(filters, filters.limit, after, before, total)

    def iterate(
        self, filters: MetricFilters | None = None, batch_size: int = 1000
    ) -> Iterator[Metric]:
        """All the metrics that match, by name; the filters' ``limit`` does not apply."""
        filters = validation.filters(filters, MetricFilters)
        size = validation.limit(batch_size, "batch_size")
        return self._walk(lambda after: self._page(filters, size, after, None, None))

    def get_data_points(
        self,
        metric_id: str | UUID,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        *,
        limit: int = 1000,
        after: str | None = None,
        before: str | None = None,
        total: Total | None = None,
    ) -> Page[MetricDataPoint]:
        """A page of a metric's points in [start_time, end_time), oldest first.

        Args:
            total: "exact" or "estimated": say how many there are in all, by one more statement.

        Raises:
            ValidationError: the id is no UUID, the end is before the start, a cursor is damaged
                or another query's.
        """
        key = ids.uuid_of(metric_id, "metric_id")
        start, end = validation.times(start_time, end_time)
        return self._page_of(
            _POINTS,
            select(MetricDataPoint).where(*_points_of(key, start, end)),
            query={"metric_id": key, "start_time": start, "end_time": end},
            limit=validation.limit(limit),
            after=after,
            before=before,
            total=total,
        )

    def iterate_data_points(
        self,
        metric_id: str | UUID,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        batch_size: int = 1000,
    ) -> Iterator[MetricDataPoint]:
        """All points of a metric in [start_time, end_time), oldest first, batch by batch."""
        size = validation.limit(batch_size, "batch_size")
        return self._walk(
            lambda after: self.get_data_points(
                metric_id, start_time, end_time, limit=size, after=after
            )
        )

    def get_latest_data_point(self, metric_id: str | UUID) -> MetricDataPoint | None:
        """The metric's newest point; None where it has none."""
        key = ids.uuid_of(metric_id, "metric_id")
        found = self._entities(
            select(MetricDataPoint)
            .where(MetricDataPoint.metric_id == key)
            .order_by(MetricDataPoint.timestamp.desc(), MetricDataPoint.id.desc())
            .limit(1)
        )
        return found[0] if found else None

    def query_time_series(self, query: TimeSeriesQuery) -> builtins.list[TimeSeriesPoint]:
        """A metric's points, aggregated by bucket of time and group.

        Buckets without a value are absent, unless ``query.fill`` says what stands there. They are
        counted from Monday, 1970-01-05 UTC, so the first may begin before ``start_time``. What an
        aggregation means goes by the metric's type and temporality:

        * gauges: ``avg sum min max count last`` and percentiles are of the points' values.
        * counters and updowncounters: so too, but that the ``sum`` of a cumulative counter is the
          same as its increase. ``increase`` is what was added, ``rate`` that per second. Totals
          that fall or start anew count from zero; points of one time series that say different
          starts are of different processes, each with its own total. What a cumulative series
          had before its first stored point counts only if it started within the range. The point
          before the range is looked for as far back as the range is long, an hour at least.
        * histograms: ``count`` (the same as ``increase``), ``rate``, ``sum`` and ``avg`` are of
          the observations; percentiles are interpolated within buckets. ``min`` and ``max`` need
          delta temporality.
        * summaries: as histograms; percentiles are those that the summary reports, averaged.

        A temporality that is not given counts as delta, but that of summaries.

        Raises:
            NotFound: there is no such metric.
            ValidationError: the aggregation makes no sense for the metric's type.
        """
        if not isinstance(query, TimeSeriesQuery):
            raise ValidationError("query", query, "must be TimeSeriesQuery")
        return TimeSeries(self._session).points(self.get(query.metric_id), query)

    def get_stats(
        self,
        metric_id: str | UUID,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
    ) -> MetricStats:
        """Totals over a metric's points in [start_time, end_time)."""
        key = ids.uuid_of(metric_id, "metric_id")
        point, value = MetricDataPoint, MetricDataPoint.value
        newest = aggregate_order_by(value, point.timestamp.desc(), point.id.desc())
        row = self._row(
            select(
                func.count(),
                func.count(point.attributes.distinct()),
                func.min(point.timestamp),
                func.max(point.timestamp),
                func.min(value),
                func.max(value),
                func.avg(value),
                func.array_agg(newest).filter(value.is_not(None))[1],
            ).where(*_points_of(key, *validation.times(start_time, end_time)))
        )
        return MetricStats(key, *row)

    def get_latency_percentiles(
        self,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        *,
        service_name: str | None = None,
        operation: str | None = None,
        bucket_size_secs: float = 3600,
    ) -> builtins.list[LatencyPercentiles]:
        """Percentiles of the durations of spans that start in [start_time, end_time), by bucket.

        Spans that have not ended are left out. Buckets are counted from Monday, 1970-01-05 UTC.
        Without a bound the range is open on that side, and every partition there is read.

        Raises:
            ValidationError: the end is before the start, or the bucket is no width.
        """
        start, end = validation.times(start_time, end_time)
        width = validation.bucket("bucket_size_secs", bucket_size_secs)
        spans = SpanFilters(
            service_name=service_name, operation=operation, start_time=start, end_time=end
        )
        bucket = bucket_start(width, TraceSpan.start_time).label("bucket")
        percentiles = func.percentile_cont(literal(_PERCENTILES, ARRAY(Double)))
        rows = self._rows(
            select(bucket, func.count(), percentiles.within_group(DURATION_US))
            .where(*spans.conditions(), TraceSpan.duration_us.is_not(None))
            .group_by("bucket")
            .order_by("bucket")
        )
        return [LatencyPercentiles(start, count, *values) for start, count, values in rows]

    def _page(
        self,
        filters: MetricFilters,
        limit: int,
        after: str | None,
        before: str | None,
        total: Total | None,
    ) -> Page[Metric]:
        return self._page_of(
            _METRICS,
            select(Metric).where(*filters.conditions()),
            query=asked(filters),
            limit=limit,
            after=after,
            before=before,
            total=total,
        )


def _points_of(
    metric_id: UUID, start: datetime | None, end: datetime | None
) -> builtins.list[ColumnElement[bool]]:
    conditions = [MetricDataPoint.metric_id == metric_id]
    if start is not None:
        conditions.append(MetricDataPoint.timestamp >= start)
    if end is not None:
        conditions.append(MetricDataPoint.timestamp < end)
    return conditions
