"""How many traces match: by their spans, which is less work than finding them in order."""

from __future__ import annotations

from typing import Final

from sqlalchemy import func, select

from observatory_storage.models import Trace, TraceSpan
from observatory_storage.repositories.reading.counting import Total
from observatory_storage.repositories.reading.reader import Reader
from observatory_storage.repositories.traces.filters import TraceFilters

__all__ = ["count_traces"]

# So many matching spans show how many of them a trace has.
_SAMPLE: Final = 5_000


def count_traces(reader: Reader, filters: TraceFilters, kind: Total) -> int:
    """The number of traces of which a span matches, and of those without spans that match."""
    if not filters.parameters():
        return reader.count(select(Trace.id), kind)
    return _exact(reader, filters) if kind == "exact" else _estimated(reader, filters)


def _exact(reader: Reader, filters: TraceFilters) -> int:
    conditions = filters.in_sql()
    traces = select(TraceSpan.trace_id).where(*conditions.all()).distinct()
    found = reader.count(traces, "exact")
    if not conditions.needs_a_span:
        found += reader.count(select(Trace.id).where(conditions.spanless()), "exact")
    return found


def _estimated(reader: Reader, filters: TraceFilters) -> int:
    """The matching spans that the planner expects, divided by how many of them a trace has.

    The planner itself does not know how spans spread over traces: autovacuum gathers no
    statistics for a partitioned table as a whole.
    """
    conditions = filters.in_sql()
    spans = select(TraceSpan.trace_id).where(*conditions.all())
    sample = spans.limit(_SAMPLE).subquery()
    seen, traces = reader.row(
        select(func.count(), func.count(sample.c.trace_id.distinct())).select_from(sample)
    )
    if seen < _SAMPLE:
        return int(traces)
    expected = reader.count(spans, "estimated") * float(traces / seen)
    greatest = reader.count(select(Trace.id).where(*conditions.implied()), "estimated")
    return max(int(traces), min(round(expected), greatest))
