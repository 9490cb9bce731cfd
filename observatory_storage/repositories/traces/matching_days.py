"""The days on which spans may match filters, as far as rollups tell them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from sqlalchemy import Select

from observatory_storage.models import LatencyRollupDay, SessionRollupDay, TraceSpan, UserRollupDay
from observatory_storage.repositories.reading.pages import Keyset
from observatory_storage.repositories.reading.partitioned_search import PartitionedSearch
from observatory_storage.repositories.reading.reader import Reader
from observatory_storage.repositories.reading.span_days import Range, days_with_any
from observatory_storage.repositories.traces.filters import SpanFilters, TraceFilters

__all__ = ["days_of", "search_by_days"]


def days_of(reader: Reader, filters: TraceFilters | SpanFilters) -> Sequence[Range] | None:
    """The days with spans of the wanted session, user or service; None if they are not known."""
    for value, column in (
        (filters.session_id, SessionRollupDay.session_id),
        (filters.user_id, UserRollupDay.user_id),
        (filters.service_name, LatencyRollupDay.service_name),
    ):
        days = days_with_any(reader, column, value)
        if days is not None:
            return days
    return None


def search_by_days(
    reader: Reader, keyset: Keyset, statement: Select[TraceSpan], filters: SpanFilters
) -> PartitionedSearch[TraceSpan]:
    """The search for the spans that the statement selects, in order of their starts."""
    bounds = filters.start_time, filters.end_time
    days = partial(days_of, reader, filters)
    return PartitionedSearch(reader, keyset, statement, filters.query(), bounds, days=days)
