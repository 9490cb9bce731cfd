"""What is asked of the tables: filters, pages, results, and the three repositories."""

from observatory_storage.repositories.logs.filters import LogFilters
from observatory_storage.repositories.logs.repository import LogRepository
from observatory_storage.repositories.metrics.filters import MetricFilters, TimeSeriesQuery
from observatory_storage.repositories.metrics.repository import MetricRepository
from observatory_storage.repositories.reading.pages import Page
from observatory_storage.repositories.reading.results import (
    CostSummary,
    DeletedTrace,
    LatencyPercentiles,
    LevelCount,
    LogStats,
    MetricStats,
    Operation,
    SpanStats,
    TimeSeriesPoint,
    TraceStats,
)
from observatory_storage.repositories.traces.erasure import DeletedRows
from observatory_storage.repositories.traces.filters import SpanFilters, TraceFilters
from observatory_storage.repositories.traces.repository import TraceRepository
from observatory_storage.repositories.traces.sessions import SessionFilters, SessionSummary
from observatory_storage.repositories.tree import CriticalSection, SpanNode, SpanTree

__all__ = [
    "CostSummary",
    "CriticalSection",
    "DeletedRows",
    "DeletedTrace",
    "LatencyPercentiles",
    "LevelCount",
    "LogFilters",
    "LogRepository",
    "LogStats",
    "MetricFilters",
    "MetricRepository",
    "MetricStats",
    "Operation",
    "Page",
    "SessionFilters",
    "SessionSummary",
    "SpanFilters",
    "SpanNode",
    "SpanStats",
    "SpanTree",
    "TimeSeriesPoint",
    "TimeSeriesQuery",
    "TraceFilters",
    "TraceRepository",
    "TraceStats",
]
