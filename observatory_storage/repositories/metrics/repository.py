"""Metrics: definitions, data points and time series; cost and latency of spans."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final, Unpack
from uuid import UUID

from sqlalchemy import bindparam, select

from observatory_storage import ids
from observatory_storage.arrow import ResultList, shape_of_model, shape_of_results
from observatory_storage.cache import Dependency
from observatory_storage.errors import NotFound, ValidationError
from observatory_storage.models import Metric, MetricDataPoint
from observatory_storage.read_only_guard import follows
from observatory_storage.repositories.metrics import results
from observatory_storage.repositories.metrics.filters import (
    MetricFilters,
    MetricKeywords,
    TimeSeriesKeywords,
    TimeSeriesQuery,
)
from observatory_storage.repositories.metrics.metric_stats import metric_stats
from observatory_storage.repositories.metrics.point_filters import (
    DataPointFilters,
    DataPointKeywords,
)
from observatory_storage.repositories.metrics.span_metrics import SpanMetrics
from observatory_storage.repositories.metrics.time_series import TimeSeries
from observatory_storage.repositories.reading import pages, validation
from observatory_storage.repositories.reading.cached_results import (
    Question,
    cached_entities,
    cached_result,
)
from observatory_storage.repositories.reading.filter_fields import Conditions, within
from observatory_storage.repositories.reading.measured_methods import measured
from observatory_storage.repositories.reading.partitioned_search import Bounds, PartitionedSearch
from observatory_storage.repositories.reading.reader import Reader, StatementSearch
from observatory_storage.repositories.reading.result_streams import ResultStream, stream_of
from observatory_storage.repositories.reading.sharded_tail import tail_of
from observatory_storage.repositories.reading.tail import TailedRows

__all__ = ["MetricRepository"]

_BY_ID: Final = select(Metric).where(Metric.id == bindparam("id"))
_METRICS: Final = pages.Keyset("metrics", (Metric.name, Metric.id), descending=False)
_TAILED: Final = TailedRows(
    "tail_data_points",
    MetricDataPoint,
    (MetricDataPoint.timestamp, MetricDataPoint.metric_id, MetricDataPoint.id),
)
_POINTS: Final = pages.Keyset(
    "metric_data_points", (MetricDataPoint.timestamp, MetricDataPoint.id), descending=False
)

_METRIC_SHAPE: Final = shape_of_model(Metric)
_POINT_SHAPE: Final = shape_of_model(MetricDataPoint)


@measured("metrics")
class MetricRepository(SpanMetrics):
    """Queries for metrics, and for the cost and latency of spans.

    Filters are given as an object or as keywords. A method raises `ValidationError` for an invalid
    argument, for a damaged cursor and for the cursor of another query. The cursor of a list of data
    points belongs to the metric; the time range may differ.
    """

    def get(self, id: str | UUID) -> Metric:  # noqa: A002 - the column's name
        """Get a metric by its id.

        Raises:
            NotFound: there is no such metric.
            ValidationError: the id is not a UUID.
        """
        key = ids.uuid_of(id, "id")
        found = self._cached(("get", key), lambda: self._reader.entities(_BY_ID, {"id": key}))
        if not found:
            raise NotFound(f"there is no metric {id}")
        return found[0]

    def get_by_name(self, name: str, service_name: str | None = None) -> ResultList[Metric]:
        """Get the metrics of a name: one for each type, unit, temporality, resource and scope."""
        wanted = MetricFilters(
            name=validation.required_text("name", name), service_name=service_name
        )
        named = select(Metric).where(*wanted.conditions()).order_by(Metric.id)
        found = self._cached(("get_by_name", wanted), lambda: self._reader.entities(named))
        return ResultList(found, _METRIC_SHAPE)

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
        search = _search(self._reader, wanted)
        return pages.read_page(search, wanted.limit, after, before, total, shape=_METRIC_SHAPE)

    def iterate(
        self,
        filters: MetricFilters | None = None,
        batch_size: int = validation.BATCH_SIZE,
        **fields: Unpack[MetricKeywords],
    ) -> ResultStream[Metric]:
        """Iterate over all matching metrics by name. The filters' ``limit`` does not apply.

        `ResultStream.to_arrow` converts them to Arrow.
        """
        size = validation.limit("batch_size", batch_size)
        wanted = MetricFilters.of(filters, fields)
        return stream_of(self._reader, _METRIC_SHAPE, lambda r: _search(r, wanted), size)

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
        key, bounds = ids.uuid_of(metric_id, "metric_id"), validation.times(start_time, end_time)
        search = _point_search(self._reader, key, bounds)
        return pages.read_page(search, most, after, before, total, shape=_POINT_SHAPE)

    @follows
    def tail_data_points(
        self,
        cursor: str | None = None,
        filters: DataPointFilters | None = None,
        **fields: Unpack[DataPointKeywords],
    ) -> pages.Page[MetricDataPoint]:
        """Poll for data points: return those that arrived since the poll that returned the cursor.

        Without a cursor, it returns the newest points, the oldest of them first. The page's
        ``next`` is always set: pass it to the next poll, and run each poll in a new unit of work.
        No point is skipped or returned twice. A point is returned once all transactions that began
        to write before its own have ended. `StoragePool.tail` polls again and again.

        Args:
            filters: selects the points. Their ``limit`` is the maximum number of points in a poll.

        Raises:
            ValidationError: the cursor is damaged, or belongs to another query or another server.
        """
        wanted = DataPointFilters.of(filters, fields)
        page = tail_of(self._reader, _TAILED).poll(cursor, wanted, ())
        return replace(page, shape=_POINT_SHAPE)

    def iterate_data_points(
        self,
        metric_id: str | UUID,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        batch_size: int = validation.BATCH_SIZE,
    ) -> ResultStream[MetricDataPoint]:
        """Iterate over a metric's points in [start_time, end_time), oldest first, in batches.

        `ResultStream.to_arrow` converts them to Arrow, much faster than they are iterated over.
        """
        size = validation.limit("batch_size", batch_size)
        key, bounds = ids.uuid_of(metric_id, "metric_id"), validation.times(start_time, end_time)
        return stream_of(self._reader, _POINT_SHAPE, lambda r: _point_search(r, key, bounds), size)

    def get_latest_data_point(self, metric_id: str | UUID) -> MetricDataPoint | None:
        """Get the metric's newest point; None if it has no points."""
        key = ids.uuid_of(metric_id, "metric_id")
        newest_first = replace(_POINTS, descending=True)
        statement = select(MetricDataPoint).where(*_points_of(key, None, None))
        search = PartitionedSearch(self._reader, newest_first, statement, {})
        return next(iter(search.rows(pages.Seek(newest_first, 1, descending=True))), None)

    def query_time_series(
        self, query: TimeSeriesQuery | None = None, **fields: Unpack[TimeSeriesKeywords]
    ) -> ResultList[results.TimeSeriesPoint]:
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
        points = TimeSeries(self._reader).points(self._metrics(wanted), wanted)
        return ResultList(points, shape_of_results(results.TimeSeriesPoint, wanted.group_by))

    def get_stats(
        self,
        metric_id: str | UUID,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
    ) -> results.MetricStats:
        """Get totals over a metric's points in [start_time, end_time)."""
        key = ids.uuid_of(metric_id, "metric_id")
        points = _points_of(key, *validation.times(start_time, end_time))
        return cached_result(
            self._reader,
            Question(
                "statistics",
                ("metric_stats", key, start_time, end_time),
                Dependency.on_range("metrics", start_time, end_time),
            ),
            results.MetricStats,
            lambda: metric_stats(self._reader, key, points),
        )

    def _cached(
        self, question: tuple[Any, ...], ask: Callable[[], builtins.list[Metric]]
    ) -> builtins.list[Metric]:
        asked = Question("metrics", question, Dependency("metrics"))
        return cached_entities(self._reader, asked, Metric, ask)

    def _metrics(self, query: TimeSeriesQuery) -> Sequence[Metric]:
        if query.metric_id is not None:
            return [self.get(query.metric_id)]
        named = select(Metric).where(*query.metrics.conditions()).order_by(Metric.id)
        found = self._reader.entities(named)
        if not found:
            raise NotFound(f"there is no such metric as {query.name!r}")
        return found


def _search(reader: Reader, filters: MetricFilters) -> pages.Search[Metric]:
    statement = select(Metric).where(*filters.conditions())
    return StatementSearch(reader, _METRICS, statement, filters.query())


def _point_search(reader: Reader, key: UUID, bounds: Bounds) -> pages.Search[MetricDataPoint]:
    statement = select(MetricDataPoint).where(*_points_of(key, *bounds))
    return PartitionedSearch(reader, _POINTS, statement, {"metric_id": key}, bounds)


def _points_of(metric_id: UUID, start: datetime | None, end: datetime | None) -> Conditions:
    return [MetricDataPoint.metric_id == metric_id, *within(MetricDataPoint.timestamp, start, end)]
