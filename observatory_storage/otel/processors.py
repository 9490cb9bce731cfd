"""The SDK's batch processors and reader. Their `force_flush` waits until all is stored."""

from __future__ import annotations

import time

from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from observatory_storage.otel.log_exporter import PostgresLogExporter
from observatory_storage.otel.metric_exporter import PostgresMetricExporter
from observatory_storage.otel.span_exporter import PostgresSpanExporter

__all__ = ["StoringLogProcessor", "StoringMetricReader", "StoringSpanProcessor"]

_FLUSH_MILLIS = 30_000


class StoringSpanProcessor(BatchSpanProcessor):
    """Exports spans in batches."""

    def __init__(self, exporter: PostgresSpanExporter) -> None:
        super().__init__(exporter)
        self._storing = exporter

    def force_flush(self, timeout_millis: int | None = None) -> bool:
        """Export all ended spans, and commit or spool them."""
        deadline = _deadline(timeout_millis)
        return super().force_flush(timeout_millis) and self._storing.force_flush(_left(deadline))

    def shutdown(self, timeout_millis: float = _FLUSH_MILLIS) -> None:
        """Export all ended spans, commit or spool them within the time, and export no more."""
        deadline = _deadline(timeout_millis)
        super().force_flush()  # into the buffer, which waits for nothing
        # The SDK's own method takes no time. It finds an exporter that is shut down already.
        self._storing.shutdown(_left(deadline))
        super().shutdown()  # type: ignore[no-untyped-call]  # as the SDK has it


class StoringLogProcessor(BatchLogRecordProcessor):
    """Exports log records in batches."""

    def __init__(self, exporter: PostgresLogExporter) -> None:
        super().__init__(exporter)
        self._storing = exporter

    def force_flush(self, timeout_millis: int | None = None) -> bool:
        """Export all records, and commit or spool them."""
        deadline = _deadline(timeout_millis)
        flushed = super().force_flush(_FLUSH_MILLIS if timeout_millis is None else timeout_millis)
        return flushed and self._storing.force_flush(_left(deadline))

    def shutdown(self, timeout_millis: float = _FLUSH_MILLIS) -> None:
        """Export all records, commit or spool them within the time, and export no more."""
        deadline = _deadline(timeout_millis)
        super().force_flush(_FLUSH_MILLIS)  # as for spans
        self._storing.shutdown(_left(deadline))
        super().shutdown()  # type: ignore[no-untyped-call]  # as the SDK has it


class StoringMetricReader(PeriodicExportingMetricReader):
    """Exports metrics periodically."""

    def __init__(self, exporter: PostgresMetricExporter, interval_millis: float | None) -> None:
        super().__init__(exporter, export_interval_millis=interval_millis)
        self._storing = exporter

    def force_flush(self, timeout_millis: float = _FLUSH_MILLIS) -> bool:
        """Export the current values, and commit or spool them."""
        deadline = _deadline(timeout_millis)
        super().force_flush(timeout_millis)  # says that it is done, also if it is not
        return self._storing.force_flush(_left(deadline))


def _deadline(timeout_millis: float | None) -> float:
    return time.monotonic() + (_FLUSH_MILLIS if timeout_millis is None else timeout_millis) / 1000


def _left(deadline: float) -> float:
    return max(0.0, (deadline - time.monotonic()) * 1000)
