"""The results of queries for log records."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from observatory_storage.serialization import Result

__all__ = ["LevelCount", "LogStats"]


@dataclass(frozen=True, slots=True)
class LevelCount(Result):
    """The number of log records of one level.

    Attributes:
        level: ``TRACE``, ``DEBUG``, ``INFO``, ``WARN``, ``ERROR`` or ``FATAL``; ``UNSPECIFIED`` for
            records without a severity number.
        timestamp: the start of the time bucket; None if the query has no buckets.
    """

    level: str
    count: int
    timestamp: datetime | None = None


@dataclass(frozen=True, slots=True)
class LogStats(Result):
    """Totals over log records. Records of severity number 17 (ERROR) or above count as errors."""

    log_count: int
    error_count: int
    service_count: int
    trace_count: int
    first_timestamp: datetime | None
    last_timestamp: datetime | None
