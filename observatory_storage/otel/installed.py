"""What is set up in this process already, by ``opentelemetry-instrument`` or the application.

The SDK has no method that lists the processors and exporters of a provider.
"""

from __future__ import annotations

import logging
import time
from typing import Any, Final, TypeVar

from opentelemetry.sdk._logs import LoggerProvider, LogRecordProcessor
from opentelemetry.sdk._logs.export import LogRecordExporter
from opentelemetry.sdk.metrics.export import MetricExporter, MetricReader
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.sdk.trace.export import SpanExporter

from observatory_storage.otel.log_exporter import PostgresLogExporter
from observatory_storage.otel.metric_exporter import PostgresMetricExporter
from observatory_storage.otel.span_exporter import PostgresSpanExporter

__all__ = ["InstalledExporter", "has_logging_handler", "installed_exporter"]

_E = TypeVar("_E", PostgresSpanExporter, PostgresMetricExporter, PostgresLogExporter)
# Classes of the application that may contain an exporter.
_PARTS: Final = (
    *(LogRecordProcessor, LogRecordExporter, MetricReader, MetricExporter),
    *(SpanProcessor, SpanExporter),
)


class InstalledExporter:
    """An exporter that is not `configure`'s own, with its provider: it is flushed, never ended."""

    def __init__(self, provider: Any, exporter: Any) -> None:
        self._provider = provider
        self._exporter = exporter

    def force_flush(self, timeout_millis: float) -> bool:
        """Export what the provider holds, and commit or spool it."""
        deadline = time.monotonic() + timeout_millis / 1000
        flushed: bool = self._provider.force_flush(int(timeout_millis))
        left = max(0.0, (deadline - time.monotonic()) * 1000)
        return self._exporter.force_flush(left) and flushed

    def shutdown(self, timeout_millis: float) -> None:
        """Store what there is. Who has set the provider shuts it down."""
        self.force_flush(timeout_millis)


def installed_exporter(provider: object, kind: type[_E]) -> _E | None:
    """The exporter of this kind that a provider has, unless it is shut down."""
    waiting, seen = [provider], set[int]()
    while waiting:
        part = waiting.pop()
        if isinstance(part, kind) and not part.writer.closed:
            return part
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, (list, tuple, set, frozenset)):
            waiting += part
        elif isinstance(part, _PARTS) or type(part).__module__.startswith("opentelemetry.sdk."):
            waiting += getattr(part, "__dict__", {}).values()
    return None


def has_logging_handler(provider: LoggerProvider) -> bool:
    """Whether the records of `logging` reach a provider, by a handler of the root logger."""
    handlers = logging.getLogger().handlers
    ours = [each for each in handlers if type(each).__module__.startswith("opentelemetry.")]
    # Any but another one of the SDK stands for the global provider.
    providers = [getattr(each, "_logger_provider", None) for each in ours]
    return any(one is provider or not isinstance(one, LoggerProvider) for one in providers)
