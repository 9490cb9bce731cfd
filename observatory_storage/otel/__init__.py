"""Exporters of the OpenTelemetry SDK that store in PostgreSQL (extra ``otel``)."""

from observatory_storage.errors import ConfigError

try:
    from observatory_storage.otel.completion_hook import PostgresCompletionHook
    from observatory_storage.otel.configuring import Telemetry, configure
    from observatory_storage.otel.log_exporter import PostgresLogExporter
    from observatory_storage.otel.metric_exporter import PostgresMetricExporter
    from observatory_storage.otel.span_exporter import PostgresSpanExporter
except ImportError as error:
    if not (error.name or "").startswith("opentelemetry"):
        raise
    rule = "observatory_storage.otel needs the extra: pip install 'observatory-storage[otel]'"
    raise ConfigError(f"{rule} ({error})") from error

__all__ = [
    "PostgresCompletionHook",
    "PostgresLogExporter",
    "PostgresMetricExporter",
    "PostgresSpanExporter",
    "Telemetry",
    "configure",
]
