"""Metrics: their definitions and points, series over time; cost and latency out of spans."""

from __future__ import annotations

import builtins
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final, Unpack
from uuid import UUID

from sqlalchemy import bindparam, func, select
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.orm import Session

from observatory_storage import ids
from observatory_storage.errors import ValidationError
from observatory_storage.models import Metric, MetricDataPoint, TraceSpan
from observatory_storage.repositories.metrics import results
from observatory_storage.repositories.metrics.costs import cost_summaries, latency_percentiles
from observatory_storage.repositories.metrics.filters import (
    MetricFilters,
    MetricKeywords,
    TimeSeriesKeywords,
    TimeSeriesQuery,
)
from observatory_storage.repositories.metrics.time_series import TimeSeries
from observatory_storage.repositories.reading import pages, time_buckets, validation
from observatory_storage.repositories.reading.filter_fields import Conditions, within
from observatory_storage.repositories.reading.reader import Reader, StatementSearch
from observatory_storage.repositories.traces.filters import SpanFilters

__all__ = ["MetricRepository"]

_BY_ID: Final = select(Metric).where(Metric.id == bindparam("id"))
_METRICS: Final = pages.Keyset("metrics", (Metric.name, Metric.id), descending=False)
_POINTS: Final = pages.Keyset(
    "metric_data_points", (MetricDataPoint.timestamp, MetricDataPoint.id), descending=False
)


class MetricRepository:
    """Questions about metrics, and about the cost and latency of spans.

    Filters are given as an object or as keywords. A method raises `ValidationError` for an argument
    that it does not understand, for a damaged cursor and for the cursor of another query. The
    cursor of a metric's points goes with the metric, whatever the time range.
    """

    def __init__(self, session: Session) -> None:
        self._reader = Reader(session)

    def get(self, id: str | UUID) -> Metric:  # noqa: A002 - the column's name
        """The metric of an id.

        Raises:
            NotFound: there is none.
            ValidationError: the id is no UUID.
        """
        key = ids.uuid_of(id, "id")
        return self._reader.entity(_BY_ID, {"id": key}, f"metric {id}")

    def get_by_name(self, name: str, service_name: str | None = None) -> builtins.list[Metric]:
        """The metrics of a name: one for each type, unit, resource and scope that reports it."""
        wanted = MetricFilters(
            name=validation.required_text("name", name), service_name=service_name
        )
        return self._reader.entities(select(Metric).where(*wanted.conditions()).order_by(Metric.id))

    def list(
        self,
        filters: MetricFilters | None = None,
        *,
        after: str | None = None,
        before: str | None = None,
        total: pages.Total | None = None,
        **fields: Unpack[MetricKeywords],
    ) -> pages.Page[Metric]:
        """A page of the metrics that match, by name.

        Args:
            total: "exact" or "estimated": say how many there are in all, by one more statement.

        Raises:
            ValidationError: a cursor is damaged or another query's.
        """
        wanted = MetricFilters.of(filters, fields)
        return pages.read_page(self._search(wanted), wanted.limit, after, before, total)

    def iterate(
        self,
        filters: MetricFilters | None = None,
        batch_size: int = validation.BATCH_SIZE,
        **fields: Unpack[MetricKeywords],
    ) -> Iterator[Metric]:
        """All the metrics that match, by name; the filters' ``limit`` does not apply."""
        size = validation.limit("batch_size", batch_size)
        return pages.read_all(self._search(MetricFilters.of(filters, fields)), size)

    def get_data_points(
        self,
        metric_id: str | UUID,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        *,
        limit: int = validation.BATCH_SIZE,
        after: str | None = None,
        before: str | None = None,
        total: pages.Total | None = None,
    ) -> pages.Page[MetricDataPoint]:
        """A page of a metric's points in [start_time, end_time), oldest first.

        Args:
            total: "exact" or "estimated": say how many there are in all, by one more statement.

        Raises:
            ValidationError: the id is no UUID, the end is before the start, a cursor is damaged
                or another query's.
        """
        most = validation.limit("limit", limit)
        search = self._point_search(metric_id, start_time, end_time)
        return pages.read_page(search, most, after, before, total)

    def iterate_data_points(
        self,
        metric_id: str | UUID,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        batch_size: int = validation.BATCH_SIZE,
    ) -> Iterator[MetricDataPoint]:
        """All points of a metric in [start_time, end_time), oldest first, batch by batch."""
        size = validation.limit("batch_size", batch_size)
        return pages.read_all(self._point_search(metric_id, start_time, end_time), size)

    def get_latest_data_point(self, metric_id: str | UUID) -> MetricDataPoint | None:
        """The metric's newest point; None where it has none."""
        key = ids.uuid_of(metric_id, "metric_id")
        found = self._reader.entities(
            select(MetricDataPoint)
            .where(MetricDataPoint.metric_id == key)
            .order_by(MetricDataPoint.timestamp.desc(), MetricDataPoint.id.desc())
            .limit(1)
        )
        return found[0] if found else None

    def query_time_series(
        self, query: TimeSeriesQuery | None = None, **fields: Unpack[TimeSeriesKeywords]
    ) -> builtins.list[results.TimeSeriesPoint]:
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
        if fields and query is not None:
            rule = f"must not be given together with {', '.join(fields)}"
            raise ValidationError("query", query, rule)
        wanted = TimeSeriesQuery(**fields) if fields else query
        if not isinstance(wanted, TimeSeriesQuery):
            raise ValidationError("query", query, "must be TimeSeriesQuery")
        return TimeSeries(self._reader).points(self.get(wanted.metric_id), wanted)

    def get_stats(
        self,
        metric_id: str | UUID,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
    ) -> results.MetricStats:
        """Totals over a metric's points in [start_time, end_time)."""
        key = ids.uuid_of(metric_id, "metric_id")
        point, value = MetricDataPoint, MetricDataPoint.value
        newest = aggregate_order_by(value, point.timestamp.desc(), point.id.desc())
        row = self._reader.row(
            select(
                func.count().label("point_count"),
                func.count(point.attributes.distinct()).label("series_count"),
                func.min(point.timestamp).label("first_timestamp"),
                func.max(point.timestamp).label("last_timestamp"),
                func.min(value).label("min_value"),
                func.max(value).label("max_value"),
                func.avg(value).label("avg_value"),
                func.array_agg(newest).filter(value.is_not(None))[1].label("last_value"),
            ).where(*_points_of(key, *validation.times(start_time, end_time)))
        )
        return results.MetricStats(metric_id=key, **row._mapping)

    def get_cost_summary(
        self,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        *,
        group_by: str | Sequence[str] = ("provider", "model"),
        bucket_size_secs: time_buckets.BucketSize | None = None,
        time_zone: str | None = None,
        limit: int | None = None,
        service_name: str | None = None,
        operation: str | None = None,
        provider: str | None = None,
        model: str | None = None,
        user_id: str | None = None,
        session_id: str | None = None,
        environment: str | None = None,
    ) -> builtins.list[results.CostSummary]:
        """Tokens and cost of the spans that start in [start_time, end_time), by group.

        Without a bound the range is open on that side, and every partition there is read.

        Only spans that report tokens or a cost count. The group with the highest cost comes
        first, those of unknown cost last; of equal cost, the one with the most tokens first. With
        buckets, the earlier bucket comes first.

        Args:
            group_by: one or more of ``provider model service_name operation environment user_id
                session_id``; none at all gives one total.
            bucket_size_secs: the width of a bucket of time in seconds or as a timedelta, counted
                from Monday, 1970-01-05 UTC.
            time_zone: the name of the time zone whose days the buckets follow, as "Asia/Tokyo".
                Buckets are then of whole days, which have 23 or 25 hours when clocks are set.
            limit: the most groups, the first ones; with buckets, of each bucket.
            service_name: only spans of this service; so with the other columns.

        Raises:
            ValidationError: the end is before the start, or a group, a bucket or a time zone is
                unknown.
        """
        wanted = SpanFilters(
            service_name=service_name,
            operation=operation,
            start_time=start_time,
            end_time=end_time,
            provider=provider,
            model=model,
            user_id=user_id,
            session_id=session_id,
            environment=environment,
        )
        most = None if limit is None else validation.limit("limit", limit)
        bucket = time_buckets.bucket_column(TraceSpan.start_time, bucket_size_secs, time_zone)
        return cost_summaries(self._reader, wanted, group_by, bucket, most)

    def get_latency_percentiles(
        self,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        *,
        service_name: str | None = None,
        operation: str | None = None,
        bucket_size_secs: time_buckets.BucketSize = 3600,
    ) -> builtins.list[results.LatencyPercentiles]:
        """Percentiles of the durations of spans that start in [start_time, end_time), by bucket.

        Spans that have not ended are left out. Buckets are counted from Monday, 1970-01-05 UTC.
        Without a bound the range is open on that side, and every partition there is read.

        Raises:
            ValidationError: the end is before the start, or the bucket is no width.
        """
        wanted = SpanFilters(
            service_name=service_name,
            operation=operation,
            start_time=start_time,
            end_time=end_time,
        )
        return latency_percentiles(self._reader, wanted, bucket_size_secs)

    def _search(self, filters: MetricFilters) -> pages.Search[Metric]:
        statement = select(Metric).where(*filters.conditions())
        return StatementSearch(self._reader, _METRICS, statement, filters.query())

    def _point_search(
        self, metric_id: str | UUID, start_time: datetime | None, end_time: datetime | None
    ) -> pages.Search[MetricDataPoint]:
        key = ids.uuid_of(metric_id, "metric_id")
        conditions = _points_of(key, *validation.times(start_time, end_time))
        statement = select(MetricDataPoint).where(*conditions)
        return StatementSearch(self._reader, _POINTS, statement, {"metric_id": key})


def _points_of(metric_id: UUID, start: datetime | None, end: datetime | None) -> Conditions:
    return [MetricDataPoint.metric_id == metric_id, *within(MetricDataPoint.timestamp, start, end)]
