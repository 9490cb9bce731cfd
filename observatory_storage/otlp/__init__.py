"""OTLP in and out: requests of traces, metrics and logs into the storage, and back."""

from observatory_storage.otlp.decode import detect_signal
from observatory_storage.otlp.export import export_logs, export_metrics, export_traces
from observatory_storage.otlp.requests import (
    IngestResult,
    ingest_logs,
    ingest_metrics,
    ingest_traces,
)

__all__ = [
    "IngestResult",
    "detect_signal",
    "export_logs",
    "export_metrics",
    "export_traces",
    "ingest_logs",
    "ingest_metrics",
    "ingest_traces",
]
