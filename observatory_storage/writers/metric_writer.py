"""`MetricWriter`: definitions of metrics and their data points, buffered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from observatory_storage.models import Metric, MetricDataPoint
from observatory_storage.rows import prepare_metric
from observatory_storage.tables import DATA_POINTS, METRICS
from observatory_storage.writers.buffered_writer import BufferedWriter

__all__ = ["MetricWriter"]


class MetricWriter(BufferedWriter):
    """Buffers metrics and data points. Rows are ORM instances or mappings by column names."""

    def write_metric(self, metric: Metric | Mapping[str, Any]) -> UUID:
        """Buffer a metric's definition; returns its id.

        The id is computed from what defines the metric (name, type, unit, temporality, resource,
        scope), so the same metric always has the same. An ORM instance learns it too.

        Raises:
            ValidationError: names the field, the value and the rule.
        """
        row = self._write(METRICS, metric) or prepare_metric(metric)
        written: UUID = row.values[METRICS.position["id"]]
        return written

    def write_metrics(self, metrics: Iterable[Metric | Mapping[str, Any]]) -> None:
        """Buffer definitions of metrics.

        Raises:
            BatchError: lists those that are not valid; all others are taken.
        """
        self._write_many(METRICS, metrics)

    def write_data_point(self, point: MetricDataPoint | Mapping[str, Any]) -> None:
        """Buffer a data point of the metric that its ``metric_id`` names.

        Raises:
            ValidationError: names the field, the value and the rule.
        """
        self._write(DATA_POINTS, point)

    def write_data_points(self, points: Iterable[MetricDataPoint | Mapping[str, Any]]) -> None:
        """Buffer data points.

        Raises:
            BatchError: lists those that are not valid; all others are taken.
        """
        self._write_many(DATA_POINTS, points)
