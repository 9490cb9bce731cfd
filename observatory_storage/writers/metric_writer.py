"""`MetricWriter`: a buffered writer of metrics and their data points."""

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

    signal = "metrics"

    def write_metric(self, metric: Metric | Mapping[str, Any]) -> UUID:
        """Buffer a metric's definition; returns its id.

        The id is computed from what defines the metric (name, type, unit, temporality, resource,
        scope), so the same metric always has the same id. The id is also set on an ORM instance.

        Raises:
            ValidationError: the row is not valid. The error names the field, the value and the
                rule.
        """
        row = self._write(METRICS, metric) or prepare_metric(metric)
        written: UUID = row.values[METRICS.position["id"]]
        return written

    def write_metrics(self, metrics: Iterable[Metric | Mapping[str, Any]]) -> None:
        """Buffer definitions of metrics.

        Raises:
            BatchError: lists the rows that are not valid. All other rows are buffered.
        """
        self._write_many(METRICS, metrics)

    def write_data_point(self, point: MetricDataPoint | Mapping[str, Any]) -> None:
        """Buffer a data point. Its ``metric_id`` names its metric.

        Raises:
            ValidationError: the row is not valid. The error names the field, the value and the
                rule.
        """
        self._write(DATA_POINTS, point)

    def write_data_points(self, points: Iterable[MetricDataPoint | Mapping[str, Any]]) -> None:
        """Buffer data points.

        Raises:
            BatchError: lists the rows that are not valid. All other rows are buffered.
        """
        self._write_many(DATA_POINTS, points)
