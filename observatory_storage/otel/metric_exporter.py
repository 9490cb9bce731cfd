"""`PostgresMetricExporter`: stores the metrics of the OpenTelemetry SDK."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    MetricExporter,
    MetricExportResult,
    MetricsData,
)
from opentelemetry.sdk.metrics.view import Aggregation

from observatory_storage.otel.outlet import StoringExporter
from observatory_storage.otel.sdk_metrics import metric_message
from observatory_storage.otel.sdk_origins import Origins
from observatory_storage.otlp.metrics import metric_items
from observatory_storage.otlp.resource_scope import Group
from observatory_storage.tables import DATA_POINTS, METRICS
from observatory_storage.writers import MetricWriter, Source, WriterConfig

__all__ = ["PostgresMetricExporter"]

_METRIC_ID: Final = METRICS.position["id"]


class PostgresMetricExporter(StoringExporter[MetricWriter], MetricExporter):
    """Stores metrics of the OpenTelemetry SDK in PostgreSQL. Needs the extra ``otel``.

    What is stored equals what `ingest_metrics` stores of the same metrics. Otherwise the exporter
    works as `PostgresSpanExporter` does.

    Example::

        reader = PeriodicExportingMetricReader(PostgresMetricExporter(pool))
        metrics.set_meter_provider(MeterProvider(metric_readers=[reader]))

    Args:
        pool: the pool to write to; see `PostgresSpanExporter`.
        config: the buffer, the spool and the payloads; see `PostgresSpanExporter`.
        preferred_temporality: the temporality by class of instrument. The default is cumulative for
            all, as the SDK's own default: a sum that was exported once is part of all later ones,
            so a lost export loses no increment.
        preferred_aggregation: the aggregation by class of instrument, such as
            ``{Histogram: ExponentialBucketHistogramAggregation()}``. The default is the SDK's.

    Raises:
        ConfigError: there is no pool, and a setting of the environment is missing or invalid.
        ValidationError: the pool or the configuration is none.
        StorageError: the directory of the spool cannot be used.
    """

    def __init__(
        self,
        pool: Source | None = None,
        config: WriterConfig | None = None,
        *,
        preferred_temporality: dict[type, AggregationTemporality] | None = None,
        preferred_aggregation: dict[type, Aggregation] | None = None,
    ) -> None:
        super().__init__(MetricWriter, pool, config, "data points")
        MetricExporter.__init__(self, preferred_temporality, preferred_aggregation)
        self._origins = Origins("metrics")

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: object
    ) -> MetricExportResult:
        """Buffer metrics and their data points. Never raises an error.

        A data point that cannot be stored is left out, and a warning names its field. The others
        are stored.

        Args:
            metrics_data: the metrics.
            timeout_millis: has no effect, since an export waits for nothing.
            kwargs: has no effect.

        Returns:
            ``FAILURE`` if the exporter is shut down, or if the buffer was full.
        """
        with self._outlet.exporting() as is_open:
            if not is_open:
                return MetricExportResult.FAILURE
            points = [
                point for group in self._groups(metrics_data) for point in self._points_of(group)
            ]
            stored = self._outlet.write(DATA_POINTS, points)
        return MetricExportResult.SUCCESS if stored else MetricExportResult.FAILURE

    def _groups(self, metrics_data: MetricsData) -> Iterator[Group]:
        for of_resource in metrics_data.resource_metrics:
            for of_scope in of_resource.scope_metrics:
                messages = self._outlet.messages(of_scope.metrics, metric_message)
                group = self._origins.of(of_resource.resource, of_scope.scope)
                yield group._replace(items=[message for _, message in messages])

    def _points_of(self, group: Group) -> Iterator[dict[str, Any]]:
        """The data points of the metrics of a group, whose definitions are buffered."""
        outlet = self._outlet
        for metric in outlet.mapped(group, metric_items):
            for definition in outlet.rows([metric.definition]):
                row = outlet.write_one(METRICS, definition)
                if row is None:  # a rule drops the metric, or it cannot be stored
                    continue
                for point in outlet.rows(metric.points):
                    yield {**point, "metric_id": row.values[_METRIC_ID]}

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Commit all buffered metrics, or spool them while the database is away.

        Returns:
            Whether that was done within the time.
        """
        return super().force_flush(timeout_millis)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Commit or spool all buffered metrics, and ignore further ones.

        Args:
            timeout_millis: the milliseconds that this may take.
            kwargs: the SDK's own reader passes them as ``timeout`` instead.
        """
        super().shutdown(kwargs.get("timeout", timeout_millis))
