"""Ingests OTLP requests of traces, metrics and logs. `export` exports what is stored as OTLP/JSON.

It is imported by itself, since exporters of an application write and never read.
"""

from observatory_storage.otlp.compression import decompress
from observatory_storage.otlp.decode import detect_signal
from observatory_storage.otlp.ingest import ingest_logs, ingest_metrics, ingest_traces
from observatory_storage.otlp.ingest_result import IngestResult

__all__ = [
    "IngestResult",
    "decompress",
    "detect_signal",
    "ingest_logs",
    "ingest_metrics",
    "ingest_traces",
]
