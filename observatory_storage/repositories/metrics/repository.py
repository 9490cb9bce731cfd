"""Metrics: definitions, data points and time series; cost and latency of spans."""

from __future__ import annotations

import builtins
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final, Unpack
from uuid import UUID

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from observatory_storage import ids
from observatory_storage.errors import NotFound, ValidationError
from observatory_storage.models import Metric, MetricDataPoint
from observatory_storage.repositories.metrics import results
from observatory_storage.repositories.metrics.costs import cost_summaries, latency_percentiles
from observatory_storage.repositories.metrics.filters import (
    MetricFilters,
    MetricKeywords,
    TimeSeriesKeywords,
    TimeSeriesQuery,
)
from observatory_storage.repositories.metrics.metric_stats import metric_stats
from observatory_storage.repositories.metrics.time_series import TimeSeries
from observatory_storage.repositories.reading import pages, time_buckets, validation
from observatory_storage.repositories.reading.filter_fields import Conditions, within
from observatory_storage.repositories.reading.operators import TextFilter
from observatory_storage.repositories.reading.partitioned_search import PartitionedSearch
from observatory_storage.repositories.reading.reader import Reader, StatementSearch
from observatory_storage.repositories.traces.filters import SpanFilters

__all__ = ["MetricRepository"]

_BY_ID: Final = select(Metric).where(Metric.id == bindparam("id"))
_METRICS: Final = pages.Keyset("metrics", (Metric.name, Metric.id), descending=False)
_POINTS: Final = pages.Keyset(
    "metric_data_points", (MetricDataPoint.timestamp, MetricDataPoint.id), descending=False
)


class MetricRepository:
    """Queries for metrics, and for the cost and latency of spans.

    Filters are given as an object or as keywords. A method raises `ValidationError` for an invalid
    argument, for a damaged cursor and for the cursor of another query. The cursor of a list of data
    points belongs to the metric; the time range may differ.
    """

    def __init__(self, session: Session) -> None:
        self._reader = Reader(session)

    def get(self, id: str | UUID) -> Metric:  # noqa: A002 - the column's name
        """Get a metric by its id.

        Raises:
            NotFound: there is no such metric.
            ValidationError: the id is not a UUID.
        """
        key = ids.uuid_of(id, "id")
        return self._reader.entity(_BY_ID, {"id": key}, f"metric {id}")

    def get_by_name(self, name: str, service_name: str | None = None) -> builtins.list[Metric]:
        """Get the metrics of a name: one for each type, unit, temporality, resource and scope."""
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
        """List a page of the matching metrics, ordered by name.

        Args:
            total: "exact" or "estimated" also counts the rows of all pages, by one more statement.

        Raises:
            ValidationError: a cursor is damaged, or belongs to another query.
        """
        wanted = MetricFilters.of(filters, fields)
        return pages.read_page(self._search(wanted), wanted.limit, after, before, total)

    def iterate(
        self,
        filters: MetricFilters | None = None,
        batch_size: int = validation.BATCH_SIZE,
        **fields: Unpack[MetricKeywords],
    ) -> Iterator[Metric]:
        """Iterate over all matching metrics by name. The filters' ``limit`` does not apply."""
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
        """List a page of a metric's points in [start_time, end_time), oldest first.

        Args:
            total: "exact" or "estimated" also counts the rows of all pages, by one more statement.

        Raises:
            ValidationError: the id is not a UUID, the end is before the start, or a cursor is
                damaged or belongs to another query.
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
        """Iterate over a metric's points in [start_time, end_time), oldest first, in batches."""
        size = validation.limit("batch_size", batch_size)
        return pages.read_all(self._point_search(metric_id, start_time, end_time), size)

    def get_latest_data_point(self, metric_id: str | UUID) -> MetricDataPoint | None:
        """Get the metric's newest point; None if it has no points."""
        key = ids.uuid_of(metric_id, "metric_id")
        newest_first = replace(_POINTS, descending=True)
        statement = select(MetricDataPoint).where(*_points_of(key, None, None))
        search = PartitionedSearch(self._reader, newest_first, statement, {})
        return next(iter(search.rows(pages.Seek(newest_first, 1, descending=True))), None)

    def query_time_series(
        self, query: TimeSeriesQuery | None = None, **fields: Unpack[TimeSeriesKeywords]
    ) -> builtins.list[results.TimeSeriesPoint]:
        """Aggregate the points of one metric, or of all with the same name, by bucket and group.

        .. code-block:: python

            uow.metrics.query_time_series(
                name="http.server.request.duration", service_name="gateway",
                start_time=now - timedelta(hours=1), end_time=now,
                aggregation="p95", group_by="service.instance.id",
            )

        Each instance of a service reports a metric of its own. With ``name``, sums, means and
        percentiles are those of all instances together. The metrics must be of one type and unit;
        both kinds of histograms can be mixed.

        Buckets without a value are absent unless ``query.fill`` is set. Buckets of one width are
        aligned to Monday, 1970-01-05 UTC, calendar buckets to days of ``query.time_zone``. So the
        first bucket may begin before ``start_time``.

        The meaning of an aggregation depends on the metric's type and temporality:

        * gauges: ``avg``, ``sum``, ``min``, ``max``, ``count``, ``last`` and percentiles aggregate
          the values of the points.
        * counters and updowncounters: the same as for gauges, except that the ``sum`` of a
          cumulative counter equals its increase. ``increase`` is the amount that was added in the
          bucket, and ``rate`` is the increase per second. A total that decreases, or that has a new
          start time, counts from zero. Points of one time series with different start times come
          from different processes, each with its own total; starts less than a second apart are the
          same start while the total keeps growing. A point whose start equals its time adds
          nothing. The value of a cumulative series at its first stored point counts only if the
          series started within the range. To find the total before the range, the query looks back
          as far as the range is long, at least an hour.
        * histograms: ``count`` (the same as ``increase``), ``rate``, ``sum`` and ``avg`` aggregate
          the observations. Percentiles are interpolated within the buckets of the histogram; if
          some observations are in a histogram without bounds, there are no percentiles. ``min`` and
          ``max`` require delta temporality.
        * summaries: the same as for histograms, except that percentiles are averages of the
          quantiles that the summary reports.

        A sum or mean beyond the range of doubles is infinite. A result that is not a number, such
        as the sum of infinities of both signs, is absent.

        A metric without a temporality is treated as delta, except a summary.

        Raises:
            NotFound: there is no such metric.
            ValidationError: the aggregation is not defined for the metric's type, or metrics with
                the name differ in type, unit or temporality so that they cannot be aggregated
                together.
        """
        if fields and query is not None:
            rule = f"must not be given together with {', '.join(fields)}"
            raise ValidationError("query", query, rule)
        wanted = TimeSeriesQuery(**fields) if fields else query
        if not isinstance(wanted, TimeSeriesQuery):
            raise ValidationError("query", query, "must be TimeSeriesQuery")
        return TimeSeries(self._reader).points(self._metrics(wanted), wanted)

    def get_stats(
        self,
        metric_id: str | UUID,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
    ) -> results.MetricStats:
        """Get totals over a metric's points in [start_time, end_time)."""
        key = ids.uuid_of(metric_id, "metric_id")
        points = _points_of(key, *validation.times(start_time, end_time))
        return metric_stats(self._reader, key, points)

    def get_cost_summary(
        self,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        *,
        group_by: str | Sequence[str] = ("provider", "model"),
        bucket_size_secs: time_buckets.BucketSize | None = None,
        time_zone: str | None = None,
        fill: str | None = None,
        limit: int | None = None,
        service_name: TextFilter | None = None,
        operation: TextFilter | None = None,
        provider: TextFilter | None = None,
        model: TextFilter | None = None,
        user_id: TextFilter | None = None,
        session_id: TextFilter | None = None,
        environment: TextFilter | None = None,
        gen_ai_operation: TextFilter | None = None,
        response_model: TextFilter | None = None,
        agent_name: TextFilter | None = None,
        prompt_name: TextFilter | None = None,
    ) -> builtins.list[results.CostSummary]:
        """Sum tokens and cost of the spans that start in [start_time, end_time), by group.

        Without a bound the range is open on that side, and the query reads every partition there.

        Only spans that report tokens or a cost are counted. Groups are ordered by bucket, then by
        cost and tokens, highest first. Groups of unknown cost come last.

        Args:
            group_by: one or more of ``provider model service_name operation environment user_id
                session_id gen_ai_operation response_model agent_name prompt_name``. ``operation``
                is the name of the span. An empty sequence gives one total.
            bucket_size_secs: the width of a bucket of time, in seconds or as a timedelta; or
                ``"day"``, ``"week"`` (from Monday), ``"month"``, ``"quarter"`` or ``"year"``.
                Buckets of one width are aligned to Monday, 1970-01-05 UTC.
            time_zone: the time zone in which days begin, such as "Asia/Tokyo", in upper or lower
                case; UTC by default. With a time zone, buckets must be whole days or a unit of the
                calendar. A day on which the clocks change has 23 or 25 hours.
            fill: also return the buckets in which a group has no calls. Their counts are zero;
                their sums are None with ``"null"`` and zero with ``"zero"``. If ``start_time`` or
                ``end_time`` is missing, the range begins or ends with the first or last bucket that
                has calls. At most 200,000 rows are returned.
            limit: the maximum number of groups, in each bucket if there are buckets. The first
                groups are returned.
            service_name: only spans of this service, or those that an operator such as `Not`
                selects. The other columns filter in the same way.

        Raises:
            ValidationError: the end is before the start, or a group, the bucket width, the time
                zone or the fill is invalid.
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
            gen_ai_operation=gen_ai_operation,
            response_model=response_model,
            agent_name=agent_name,
            prompt_name=prompt_name,
        )
        most = None if limit is None else validation.limit("limit", limit)
        buckets = time_buckets.buckets_or_whole(bucket_size_secs, time_zone)
        return cost_summaries(self._reader, wanted, group_by, buckets, limit=most, fill=fill)

    def get_latency_percentiles(
        self,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        *,
        service_name: TextFilter | None = None,
        operation: TextFilter | None = None,
        bucket_size_secs: time_buckets.BucketSize = 3600,
        time_zone: str | None = None,
    ) -> builtins.list[results.LatencyPercentiles]:
        """Get percentiles of the durations of spans that start in [start_time, end_time).

        There is one result for each bucket of time. Spans that have not ended are left out. Buckets
        and ``time_zone`` are those of `get_cost_summary`. Without a bound the range is open on that
        side, and the query reads every partition there.

        Raises:
            ValidationError: the end is before the start, or the bucket width or the time zone is
                invalid.
        """
        wanted = SpanFilters(
            service_name=service_name,
            operation=operation,
            start_time=start_time,
            end_time=end_time,
        )
        buckets = time_buckets.buckets_of(bucket_size_secs, time_zone)
        return latency_percentiles(self._reader, wanted, buckets)

    def _metrics(self, query: TimeSeriesQuery) -> Sequence[Metric]:
        if query.metric_id is not None:
            return [self.get(query.metric_id)]
        named = select(Metric).where(*query.metrics.conditions()).order_by(Metric.id)
        found = self._reader.entities(named)
        if not found:
            raise NotFound(f"there is no such metric as {query.name!r}")
        return found

    def _search(self, filters: MetricFilters) -> pages.Search[Metric]:
        statement = select(Metric).where(*filters.conditions())
        return StatementSearch(self._reader, _METRICS, statement, filters.query())

    def _point_search(
        self, metric_id: str | UUID, start_time: datetime | None, end_time: datetime | None
    ) -> pages.Search[MetricDataPoint]:
        key = ids.uuid_of(metric_id, "metric_id")
        bounds = validation.times(start_time, end_time)
        statement = select(MetricDataPoint).where(*_points_of(key, *bounds))
        return PartitionedSearch(self._reader, _POINTS, statement, {"metric_id": key}, bounds)


def _points_of(metric_id: UUID, start: datetime | None, end: datetime | None) -> Conditions:
    return [MetricDataPoint.metric_id == metric_id, *within(MetricDataPoint.timestamp, start, end)]
