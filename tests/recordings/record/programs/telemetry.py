"""Sets up OpenTelemetry as an application does, and tells the recorder what the program told."""

from __future__ import annotations

import json
import os
from typing import Any

from opentelemetry import metrics, trace
from opentelemetry._logs import set_logger_provider
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

__all__ = ["SERVER", "export", "say"]

SERVER = os.environ["RECORDING_SERVER"]


def export() -> Any:
    """Exports all signals at exit. The answer is the tracer provider.

    The recorder sets `OTEL_RESOURCE_ATTRIBUTES`.
    """
    tracers = TracerProvider()
    tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{SERVER}/v1/traces")))
    trace.set_tracer_provider(tracers)
    loggers = LoggerProvider()
    loggers.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter(f"{SERVER}/v1/logs")))
    set_logger_provider(loggers)
    reader = PeriodicExportingMetricReader(OTLPMetricExporter(f"{SERVER}/v1/metrics"))
    metrics.set_meter_provider(MeterProvider(metric_readers=[reader]))
    return tracers


def say(**told: Any) -> None:
    """Facts that the program told the instrumentation, or the instrumentation the program."""
    print(json.dumps(told))
