"""The statements of a search for traces that are asked again and again, made once each.

To make one takes about as long as to run it. So each is made once for the conditions' template and
the way that the page is come to. Values are parameters: the filters' own, and those of the `Turn`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Integer, Select, bindparam, func, literal, or_, select, true
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import aliased

from observatory_storage.models import Trace, TraceSpan
from observatory_storage.repositories.paging import Keyset, Way
from observatory_storage.repositories.span_conditions import SpanConditions

__all__ = ["TRACES", "first", "matching", "nearest", "newest_spans", "of_ids"]

TRACES: Final = Keyset("traces", (Trace.start_time, Trace.id))


@lru_cache
def first(way: Way) -> Select[Trace]:
    """The traces themselves, at most `most`."""
    return TRACES.along(select(Trace), way)


@lru_cache(maxsize=256)
def matching(conditions: SpanConditions, way: Way) -> Select[Trace]:
    """Each trace in turn: look for one of its spans, in its partitions only."""
    return _looked_into(first(way).where(*conditions.implied()), Trace, conditions)


@lru_cache(maxsize=256)
def nearest(conditions: SpanConditions, way: Way, *, possible: bool) -> Select[Trace]:
    """The same, among no more than `walked` traces that come first.

    Args:
        possible: only those count that may match by their own rows.
    """
    # An alias has no schema to be written at each column: the text is half as long.
    trace = aliased(Trace, name="trace")
    counted = conditions.implied(trace) if possible else conditions.begun(trace)
    walked = _by_time(trace).along(select(trace), way).where(*counted)
    first_ones = walked.limit(bindparam("walked", type_=Integer))
    near = aliased(Trace, first_ones.subquery("near"))
    found = select(near) if possible else select(near).where(*conditions.implied(near))
    from_here = Way(way.descending, beyond=False)
    return _looked_into(_by_time(near).along(found, from_here), near, conditions)


@lru_cache(maxsize=256)
def newest_spans(conditions: SpanConditions) -> Select[UUID, Any]:
    """The traces and starts of the newest spans that match, at most `newest`."""
    return (
        select(TraceSpan.trace_id, TraceSpan.start_time)
        .where(*conditions.all())
        .order_by(TraceSpan.start_time.desc())
        .limit(bindparam("newest", type_=Integer))
    )


@lru_cache
def of_ids(way: Way, *, later: bool) -> Select[Trace]:
    """The traces of these `ids`, at most `most`.

    Args:
        later: only those that begin after `than`.
    """
    found = first(way).where(Trace.id == func.any(bindparam("ids", type_=ARRAY(Trace.id.type))))
    return found.where(Trace.start_time > bindparam("than")) if later else found


def _by_time(trace: type[Trace]) -> Keyset:
    return Keyset(TRACES.list_name, (trace.start_time, trace.id))


def _looked_into(
    statement: Select[Trace], trace: type[Trace], conditions: SpanConditions
) -> Select[Trace]:
    """The statement's traces of which a span matches, or which match without one."""
    probe = (
        select(literal(1).label("found"))
        .select_from(TraceSpan)
        .where(
            TraceSpan.trace_id == trace.id,
            TraceSpan.start_time >= trace.start_time,
            TraceSpan.start_time <= trace.last_span_start,
            *conditions.all(),
        )
        .limit(1)
        .lateral("probe")
    )
    if conditions.need_a_span():
        return statement.join(probe, true())
    found = or_(probe.c.found.is_not(None), conditions.bare(trace))
    return statement.outerjoin(probe, true()).where(found)
