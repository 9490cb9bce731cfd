"""What is asked of the tables: filters, pages, results, and the three repositories."""

from observatory_storage.repositories.erasure import DeletedRows
from observatory_storage.repositories.filters import (
    LogFilters,
    MetricFilters,
    TimeSeriesQuery,
)
from observatory_storage.repositories.logs import LogRepository
from observatory_storage.repositories.metrics import MetricRepository
from observatory_storage.repositories.paging import Page
from observatory_storage.repositories.results import (
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
from observatory_storage.repositories.sessions import SessionFilters, SessionSummary
from observatory_storage.repositories.span_filters import SpanFilters, TraceFilters
from observatory_storage.repositories.traces import TraceRepository
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
