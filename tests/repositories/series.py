"""Metrics and their points, and the time series that they are asked for."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from observatory_storage import CopyWriter, StoragePool
from observatory_storage.repositories import TimeSeriesPoint, TimeSeriesQuery
from tests.repositories.samples import SECOND, START, Row

MINUTE = timedelta(minutes=1)


def a_metric(pool: StoragePool, metric_type: str, **columns: Any) -> UUID:
    name = f"{metric_type} {columns}"
    CopyWriter(pool).write_metrics(
        [{"name": name, "metric_type": metric_type, "service_name": "service", **columns}]
    )
    with pool.unit_of_work() as uow:
        (metric,) = uow.metrics.get_by_name(name)
        return metric.id


def ask(pool: StoragePool, metric_id: UUID, aggregation: str, **fields: Any) -> list[Any]:
    """(seconds since START, value) of each point, with the group's values where there are any."""
    given: dict[str, Any] = {
        "start_time": START,
        "end_time": START + 10 * MINUTE,
        "bucket_size_secs": 60,
        **fields,
    }
    query = TimeSeriesQuery(metric_id=metric_id, aggregation=aggregation, **given)
    with pool.unit_of_work() as uow:
        return [flat(point) for point in uow.metrics.query_time_series(query)]


def flat(point: TimeSeriesPoint) -> tuple[Any, ...]:
    return ((point.timestamp - START) / SECOND, point.value, *point.group.values())


def points(metric_id: UUID, values: list[tuple[float, Any]], **columns: Any) -> list[Row]:
    """One point for each (second, value)."""
    return [
        {"metric_id": metric_id, "timestamp": START + at * SECOND, "value": value, **columns}
        for at, value in values
    ]
