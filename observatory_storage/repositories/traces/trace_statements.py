"""The statements of a search for traces that are asked again and again, made once each.

To make one takes about as long as to run it. So each is made once for the conditions' template and
the way that the page is come to. Values are parameters: the filters' own, and those of the `Turn`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from sqlalchemy import BigInteger, Select, bindparam, func, literal, or_, select, true
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import aliased

from observatory_storage.models import Trace, TraceSpan
from observatory_storage.repositories.reading.pages import Keyset, Way
from observatory_storage.repositories.traces.span_conditions import SpanConditions

__all__ = ["TRACES", "first", "matching", "nearest", "of_newest"]

TRACES: Final = Keyset("traces", (Trace.start_time, Trace.id))

_NEWEST: Final = bindparam("newest", type_=BigInteger)


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
    first_ones = walked.limit(bindparam("walked", type_=BigInteger))
    near = aliased(Trace, first_ones.subquery("near"))
    found = select(near) if possible else select(near).where(*conditions.implied(near))
    from_here = Way(way.descending, beyond=False)
    return _looked_into(_by_time(near).along(found, from_here), near, conditions)


@lru_cache(maxsize=256)
def of_newest(conditions: SpanConditions, way: Way) -> Select[Trace, int]:
    """The traces of the newest spans that match, at most `newest` spans, and how many these are.

    If these are not all spans, only traces that begin after the oldest of them: a trace begins
    before its spans do, so that no other one can come between.
    """
    spans = (
        select(TraceSpan.trace_id, TraceSpan.start_time)
        .where(*conditions.all())
        .order_by(TraceSpan.start_time.desc())
        .limit(_NEWEST)
        .cte("spans")
    )
    # An array is looked up by the key, however few traces there are.
    ids = func.array(select(spans.c.trace_id).scalar_subquery(), type_=ARRAY(Trace.id.type))
    seen = select(func.count()).select_from(spans).scalar_subquery()
    oldest = select(func.min(spans.c.start_time)).scalar_subquery()
    found = first(way).where(
        Trace.id == func.any(ids), or_(seen < _NEWEST, Trace.start_time > oldest)
    )
    return found.add_columns(seen.label("seen"))


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
