"""What is asked of the tables: filters, pages, results, and the three repositories."""

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
    TimeSeriesPoint,
    TraceStats,
)
from observatory_storage.repositories.span_filters import SpanFilters, TraceFilters
from observatory_storage.repositories.traces import TraceRepository

__all__ = [
    "CostSummary",
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
    "SpanFilters",
    "TimeSeriesPoint",
    "TimeSeriesQuery",
    "TraceFilters",
    "TraceRepository",
    "TraceStats",
]
