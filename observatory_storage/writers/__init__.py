"""Writing: `CopyWriter` commits rows at once, and the buffered writers in the background."""

from observatory_storage.storing import Source, StoreResult, store
from observatory_storage.writers.config import WriterConfig
from observatory_storage.writers.copy_writer import CopyWriter
from observatory_storage.writers.log_writer import LogWriter
from observatory_storage.writers.metric_writer import MetricWriter
from observatory_storage.writers.stats import BufferStats, FlushResult, WriteStats
from observatory_storage.writers.tail_sampling import TailSampling
from observatory_storage.writers.trace_writer import TraceWriter

__all__ = [
    "BufferStats",
    "CopyWriter",
    "FlushResult",
    "LogWriter",
    "MetricWriter",
    "Source",
    "StoreResult",
    "TailSampling",
    "TraceWriter",
    "WriteStats",
    "WriterConfig",
    "store",
]
