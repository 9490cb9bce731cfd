"""Totals over the data points of one metric."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import func, not_, select
from sqlalchemy.dialects.postgresql import aggregate_order_by

from observatory_storage.models import MetricDataPoint
from observatory_storage.repositories.metrics.results import MetricStats
from observatory_storage.repositories.reading.aggregates import is_huge, of_doubles
from observatory_storage.repositories.reading.filter_fields import Conditions
from observatory_storage.repositories.reading.reader import Reader

__all__ = ["metric_stats"]


def metric_stats(reader: Reader, metric_id: UUID, points: Conditions) -> MetricStats:
    """Totals over the points that meet the conditions; see `MetricRepository.get_stats`."""
    point, value = MetricDataPoint, MetricDataPoint.value
    newest = aggregate_order_by(value, point.timestamp.desc(), point.id.desc())
    (columns,) = reader.records(
        select(
            func.count().label("point_count"),
            func.count(point.attributes.distinct()).label("series_count"),
            func.min(point.timestamp).label("first_timestamp"),
            func.max(point.timestamp).label("last_timestamp"),
            func.min(value).label("min_value"),
            func.max(value).label("max_value"),
            func.avg(value).filter(not_(is_huge(value))).label("avg_value"),
            func.array_agg(newest).filter(value.is_not(None))[1].label("last_value"),
            func.count().filter(is_huge(value)).label("huge_count"),
        ).where(*points)
    )
    if columns.pop("huge_count"):
        values = reader.rows(select(value).where(*points, value.is_not(None)))
        columns["avg_value"] = of_doubles("avg", [each for (each,) in values])
    return MetricStats(metric_id=metric_id, **columns)
