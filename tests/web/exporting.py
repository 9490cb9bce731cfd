"""Sends a trace, a metric and a log record with the exporters of the OpenTelemetry SDK."""

from __future__ import annotations

from collections.abc import Mapping

from opentelemetry._logs import SeverityNumber
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

__all__ = ["EXPORTED", "export"]

# What each call of `export` stores.
EXPORTED = {"spans": 2, "data_points": 1, "logs": 1}


def export(
    endpoint: str,
    name: str = "exported",
    *,
    compression: Compression = Compression.Gzip,
    headers: Mapping[str, str] | None = None,
) -> None:
    """Send the three signals and wait for the answers."""
    given = dict(headers or {})
    resource = Resource.create({"service.name": "exporting"})
    tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
    tracers.add_span_processor(
        SimpleSpanProcessor(
            OTLPSpanExporter(f"{endpoint}/v1/traces", headers=given, compression=compression)
        )
    )
    meters = MeterProvider(
        [
            PeriodicExportingMetricReader(
                OTLPMetricExporter(f"{endpoint}/v1/metrics", headers=given, compression=compression)
            )
        ],
        resource=resource,
        shutdown_on_exit=False,
    )
    loggers = LoggerProvider(resource=resource, shutdown_on_exit=False)
    loggers.add_log_record_processor(
        SimpleLogRecordProcessor(
            OTLPLogExporter(f"{endpoint}/v1/logs", headers=given, compression=compression)
        )
    )
    tracer = tracers.get_tracer("tests")
    with tracer.start_as_current_span(name), tracer.start_as_current_span(name):
        meters.get_meter("tests").create_counter(name).add(1)
        loggers.get_logger("tests").emit(
            severity_number=SeverityNumber.INFO, body=name, event_name=name
        )
    # Each exporter has sent when its provider is shut down. A flush would send the metric twice.
    for provider in (tracers, meters, loggers):
        provider.shutdown()
