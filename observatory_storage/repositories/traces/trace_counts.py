"""Counts the traces that have a matching span, or estimates their number."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from observatory_storage.models import Trace, TraceSpan
from observatory_storage.repositories.reading.reader import Reader
from observatory_storage.repositories.traces.filters import TraceFilters
from observatory_storage.repositories.traces.framed_content import FramedContent

__all__ = ["estimated_traces", "exact_traces"]

# The number of matching spans from which the spans of a trace are estimated.
_SAMPLE: Final = 5_000


def exact_traces(reader: Reader, filters: TraceFilters) -> int:
    """The number of traces that match."""
    framed = FramedContent(reader.session, filters)
    conditions = framed.resolved(filters.in_sql(by_trace=True))
    traces = sa.select(TraceSpan.trace_id).where(*conditions.all()).distinct()
    if without := conditions.of_no_span():
        traces = sa.select(Trace.id).where(Trace.id.in_(traces), *without)
    found = reader.count(traces, "exact")
    if not conditions.needs_a_span:
        found += reader.count(sa.select(Trace.id).where(conditions.spanless()), "exact")
    return found


def estimated_traces(reader: Reader, filters: TraceFilters) -> int:
    """The planner's estimate of matching spans, divided by their number in a trace.

    The planner does not know how spans are distributed over traces, because autovacuum gathers no
    statistics for a partitioned table as a whole. A search for content in payload frames is
    counted exactly, because the planner does not know the frames.
    """
    if FramedContent(reader.session, filters).is_any:
        return exact_traces(reader, filters)
    conditions = filters.in_sql(by_trace=True)
    spans = sa.select(TraceSpan.trace_id).where(*conditions.all())
    sample = spans.limit(_SAMPLE).subquery()
    seen, traces = reader.row(
        sa.select(sa.func.count(), sa.func.count(sample.c.trace_id.distinct())).select_from(sample)
    )
    if seen < _SAMPLE:
        return int(traces)
    expected = reader.count(spans, "estimated") * float(traces / seen)
    greatest = reader.count(sa.select(Trace.id).where(*conditions.implied()), "estimated")
    return max(int(traces), min(round(expected), greatest))
