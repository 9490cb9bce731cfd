"""What the questions about log records return."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from observatory_storage.serialization import Result

__all__ = ["LevelCount", "LogStats"]


@dataclass(frozen=True, slots=True)
class LevelCount(Result):
    """The log records of one level.

    Attributes:
        level: ``TRACE DEBUG INFO WARN ERROR FATAL``; ``UNSPECIFIED`` without a severity number.
        timestamp: where the bucket of time begins; None without buckets.
    """

    level: str
    count: int
    timestamp: datetime | None = None


@dataclass(frozen=True, slots=True)
class LogStats(Result):
    """Totals over log records; an error is one of severity number 17 (ERROR) or above."""

    log_count: int
    error_count: int
    service_count: int
    trace_count: int
    first_timestamp: datetime | None
    last_timestamp: datetime | None
