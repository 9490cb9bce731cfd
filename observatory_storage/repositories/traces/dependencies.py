"""What the results of queries for spans depend on, if they are cached."""

from __future__ import annotations

from observatory_storage.cache import Dependency
from observatory_storage.repositories.traces.filters import SpanFilters, TraceFilters

__all__ = ["spans_of"]


def spans_of(filters: SpanFilters | TraceFilters) -> Dependency | None:
    """The spans that a result depends on; None if it depends on log records as well."""
    if filters.searches_content():
        return None
    if isinstance(filters, SpanFilters):
        return Dependency.on_range("spans", filters.start_time, filters.end_time)
    # Spans of other days change the totals of a trace, and whether it matches.
    return Dependency("spans")
