"""Ingests OTLP requests of traces, metrics and logs, and exports stored telemetry as OTLP/JSON."""

from observatory_storage.otlp.compression import decompress
from observatory_storage.otlp.decode import detect_signal
from observatory_storage.otlp.export import export_logs, export_metrics, export_traces
from observatory_storage.otlp.ingest import ingest_logs, ingest_metrics, ingest_traces
from observatory_storage.otlp.ingest_result import IngestResult

__all__ = [
    "IngestResult",
    "decompress",
    "detect_signal",
    "export_logs",
    "export_metrics",
    "export_traces",
    "ingest_logs",
    "ingest_metrics",
    "ingest_traces",
]
