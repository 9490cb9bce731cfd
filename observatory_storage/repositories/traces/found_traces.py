"""Reads the traces that a search has found by their spans, and those without spans that match."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from observatory_storage.models import Trace
from observatory_storage.repositories.reading.pages import Seek
from observatory_storage.repositories.traces import trace_statements as statements
from observatory_storage.repositories.traces.trace_walk import TraceWalk

__all__ = ["traces_of", "with_spanless"]


def traces_of(
    walk: TraceWalk,
    seek: Seek,
    ids: sa.SelectBase,
    *bounds: sa.ColumnElement[bool],
    spans_since: datetime | None = None,
) -> list[Trace]:
    """The rows of these ids within the bounds, and the matching traces without spans.

    Args:
        spans_since: no span of a trace within the bounds starts earlier.
    """
    # MATERIALIZED, because otherwise the planner would search the spans again for each trace.
    found = ids.cte("found").prefix_with("MATERIALIZED")
    traces = seek.of(sa.select(Trace)).where(
        *bounds,
        Trace.id.in_(sa.select(found.c[0])),
        *walk.conditions.of_no_span(bounds=(spans_since, None)),
    )
    rows = walk.reader.entities(traces, walk.values(seek))
    return with_spanless(walk, seek, rows, *bounds)


def with_spanless(
    walk: TraceWalk, seek: Seek, rows: list[Trace], *bounds: sa.ColumnElement[bool]
) -> list[Trace]:
    """The rows, with the matching traces without spans merged in."""
    if walk.conditions.needs_a_span:
        return rows
    if seek.keyset == statements.NEWEST_TRACES:
        spanless = walk.statement(statements.spanless, seek.shape)
    else:
        spanless = seek.of(sa.select(Trace)).where(walk.conditions.spanless())
    if bounds:
        spanless = spanless.where(*bounds)
    # Those beyond the page are not needed.
    if len(rows) == seek.row_limit and seek.keyset == statements.NEWEST_TRACES:
        edge, start = rows[-1].start_time, Trace.start_time
        spanless = spanless.where(start >= edge if seek.descending else start <= edge)
    rows += walk.reader.entities(spanless, walk.values(seek))
    rows.sort(key=seek.keyset.key_of, reverse=seek.descending)
    return rows[: seek.row_limit]
