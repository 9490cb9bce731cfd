"""The three repositories, with their filters, pages and results."""

from observatory_storage.arrow import ResultList
from observatory_storage.repositories.logs.filters import LogFilters
from observatory_storage.repositories.logs.repository import LogRepository
from observatory_storage.repositories.logs.results import LevelCount, LogStats
from observatory_storage.repositories.metrics.filters import MetricFilters, TimeSeriesQuery
from observatory_storage.repositories.metrics.repository import MetricRepository
from observatory_storage.repositories.metrics.results import (
    ActiveUsers,
    CostSummary,
    ErrorSummary,
    LatencyPercentiles,
    MetricStats,
    TimeSeriesPoint,
    UnpricedModel,
    UserUsage,
)
from observatory_storage.repositories.reading.operators import Exists, Not, OneOf, Prefix
from observatory_storage.repositories.reading.pages import Page
from observatory_storage.repositories.reading.result_streams import ResultStream
from observatory_storage.repositories.traces.filters import SpanFilters, TraceFilters
from observatory_storage.repositories.traces.pins import PinnedTrace
from observatory_storage.repositories.traces.repository import TraceRepository
from observatory_storage.repositories.traces.results import (
    DeletedRows,
    DeletedTrace,
    Operation,
    SessionSummary,
    SpanStats,
    TraceStats,
)
from observatory_storage.repositories.traces.session_filters import SessionFilters
from observatory_storage.repositories.traces.tree import CriticalSection, SpanNode, SpanTree

__all__ = [
    "ActiveUsers",
    "CostSummary",
    "CriticalSection",
    "DeletedRows",
    "DeletedTrace",
    "ErrorSummary",
    "Exists",
    "LatencyPercentiles",
    "LevelCount",
    "LogFilters",
    "LogRepository",
    "LogStats",
    "MetricFilters",
    "MetricRepository",
    "MetricStats",
    "Not",
    "OneOf",
    "Operation",
    "Page",
    "PinnedTrace",
    "Prefix",
    "ResultList",
    "ResultStream",
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
    "UnpricedModel",
    "UserUsage",
]
