"""The statements that search for traces, each built once for all filters with the same fields.

Building a statement takes about as long as running it. Therefore each statement is cached by the
template of its conditions and the shape of the page. It contains no values: the values of the
filters and of the `Seek` are bind parameters.
"""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from typing import Final
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Select,
    and_,
    bindparam,
    case,
    exists,
    func,
    literal_column,
    or_,
    select,
    union_all,
)
from sqlalchemy.dialects.postgresql import ARRAY, array
from sqlalchemy.orm import aliased

from observatory_storage.models import Trace, TraceSpan
from observatory_storage.repositories.reading.filter_fields import within
from observatory_storage.repositories.reading.pages import Keyset, SeekShape
from observatory_storage.repositories.reading.span_days import Range, within_ranges
from observatory_storage.repositories.traces.candidates import spans_by_index
from observatory_storage.repositories.traces.span_conditions import (
    NO_BOUNDS,
    Bounds,
    SpanConditions,
)

__all__ = [
    "NEWEST_TRACES",
    "all_traces",
    "is_matching",
    "matching",
    "matching_nearest",
    "matching_of",
    "nearest",
    "of_newest_spans",
    "probed",
    "reaching_beyond",
    "spanless",
    "walked_or_indexed",
]

NEWEST_TRACES: Final = Keyset("traces", (Trace.start_time, Trace.id))

_SPAN_LIMIT: Final = bindparam("span_limit", type_=BigInteger)
_TRACE_LIMIT: Final = bindparam("trace_limit", type_=BigInteger)
_PROMISING: Final = bindparam("promising", type_=BigInteger)
_SINCE: Final = bindparam("since", type_=Trace.start_time.type)
_IDS: Final = bindparam("ids", type_=ARRAY(Trace.id.type))
# The starts of all spans of the traces `ids`.
_OF_IDS: Final = (
    bindparam("first_start", type_=Trace.start_time.type),
    bindparam("after_starts", type_=Trace.start_time.type),
)


@lru_cache
def all_traces(shape: SeekShape) -> Select[Trace]:
    """The traces themselves, without a condition."""
    return NEWEST_TRACES.seek(select(Trace), shape)


@lru_cache(maxsize=256)
def matching(conditions: SpanConditions, shape: SeekShape) -> Select[Trace]:
    """Reads the traces in order, and probes each for a matching span, only in its partitions."""
    walked = all_traces(shape).where(*conditions.implied(), *conditions.of_no_span())
    return probed(walked, Trace, conditions)


@lru_cache(maxsize=256)
def matching_nearest(
    conditions: SpanConditions, shape: SeekShape, *, only_possible: bool
) -> Select[Trace]:
    """The same as `matching`, among the first `trace_limit` traces.

    Args:
        only_possible: count only traces whose own rows do not exclude a match.
    """
    # An alias has no schema to be written at each column, which halves the statement's text.
    trace = aliased(Trace, name="trace")
    counted = conditions.implied(trace) if only_possible else conditions.begun(trace)
    walked = _by_time(trace).seek(select(trace), shape).where(*counted)
    first_ones = walked.limit(_TRACE_LIMIT)
    near = aliased(Trace, first_ones.subquery("near"))
    found = select(near) if only_possible else select(near).where(*conditions.implied(near))
    in_order = _by_time(near).seek(found, SeekShape(shape.descending, from_key=False))
    return probed(in_order.where(*conditions.of_no_span(near)), near, conditions)


@lru_cache(maxsize=256)
def nearest(
    conditions: SpanConditions, shape: SeekShape, *, only_possible: bool
) -> Select[UUID, datetime, datetime]:
    """The first `trace_limit` traces, in order: their ids and their first and last span starts.

    Args:
        only_possible: only traces whose own rows do not exclude a match.
    """
    counted = conditions.implied() if only_possible else conditions.begun()
    last = func.coalesce(Trace.last_span_start, Trace.start_time)
    columns = select(Trace.id, Trace.start_time, last.label("last_start"))
    return NEWEST_TRACES.seek(columns, shape).where(*counted).limit(_TRACE_LIMIT)


@lru_cache(maxsize=256)
def matching_of(conditions: SpanConditions, shape: SeekShape) -> Select[Trace]:
    """The traces `ids` that match, in order.

    The planner leaves out all partitions without spans of these traces, because the starts are
    constants. It cannot do so if they come from the row of a trace.
    """
    found = all_traces(shape).where(
        Trace.id == func.any(_IDS), *conditions.implied(), *conditions.of_no_span(bounds=_OF_IDS)
    )
    return probed(found, Trace, conditions, _OF_IDS)


@lru_cache(maxsize=256)
def of_newest_spans(
    conditions: SpanConditions,
    shape: SeekShape,
    *,
    is_bounded: bool = False,
    days: tuple[Range, ...] | None = None,
) -> Select[Trace, list[int]]:
    """The traces of the newest `span_limit` matching spans.

    Beside each are the number of these spans, and that of all their traces.

    If there are more matching spans, only traces that begin after the oldest of these spans are
    returned. A trace does not begin after its spans, so no other trace belongs between the returned
    ones.

    Args:
        is_bounded: read only spans that start at the time `since` or later, and return only traces
            that do. All matching spans of these traces are among the read ones.
        days: the days on which spans may match; None for all.
    """
    bounds = (_SINCE, None) if is_bounded else NO_BOUNDS
    on_days = [] if days is None else [within_ranges(TraceSpan.start_time, days)]
    spans = (
        select(TraceSpan.trace_id, TraceSpan.start_time)
        .where(*conditions.all(bounds), *on_days)
        .order_by(TraceSpan.start_time.desc())
        .limit(_SPAN_LIMIT)
        .cte("spans")
    )
    # With an array PostgreSQL looks the traces up by their key, however few there are.
    ids = func.array(select(spans.c.trace_id).scalar_subquery(), type_=ARRAY(Trace.id.type))
    seen = select(func.count()).select_from(spans).scalar_subquery()
    oldest = select(func.min(spans.c.start_time)).scalar_subquery()
    found = all_traces(shape).where(
        Trace.id == func.any(ids),
        or_(seen < _SPAN_LIMIT, Trace.start_time > oldest),
        *within(Trace.start_time, *bounds),
        *conditions.of_no_span(bounds=bounds),
    )
    traces = select(func.count(spans.c.trace_id.distinct())).scalar_subquery()
    return found.add_columns(array([seen, traces]).label("seen"))


@lru_cache(maxsize=256)
def spanless(conditions: SpanConditions, shape: SeekShape) -> Select[Trace]:
    """The traces without spans that match, in order."""
    return all_traces(shape).where(conditions.spanless())


@lru_cache(maxsize=256)
def walked_or_indexed(
    conditions: SpanConditions, shape: SeekShape, *, walks: bool
) -> Select[Trace, int | None]:
    """All traces that match, in order, found by the indexes for the one condition on JSON.

    Beside each is the number of spans that were found. Traces are missing if these are not
    `candidates.are_few`.

    Args:
        walks: read the first `trace_limit` traces before. If at least `promising` of them match,
            these are the result, and the number is null.
    """
    ids, is_rare = [], []
    if walks:
        near = matching_nearest(conditions, shape, only_possible=True)
        walked = near.with_only_columns(near.selected_columns.id).cte("walked")
        ids.append(select(walked.c.id))
        count = select(func.count()).select_from(walked).scalar_subquery()
        is_rare.append(count < _PROMISING)
    spans = spans_by_index(conditions, is_rare).cte("found").prefix_with("MATERIALIZED")
    ids.append(select(spans.c.trace_id))
    if not conditions.needs_a_span:
        # With a limit: without one, there may be more of them than the page has.
        page = spanless(conditions, shape).where(*is_rare).with_only_columns(Trace.id)
        ids.append(select(page.subquery("spanless").c.id))
    # With an array PostgreSQL looks the traces up by their key, however few there are.
    found = func.array(union_all(*ids).scalar_subquery(), type_=ARRAY(Trace.id.type))
    seen = select(func.count()).select_from(spans).scalar_subquery()
    return (
        all_traces(shape)
        .where(Trace.id == func.any(found), *conditions.of_no_span())
        .add_columns((case((and_(*is_rare), seen)) if walks else seen).label("seen"))
    )


def reaching_beyond(conditions: SpanConditions, start: datetime, end: datetime) -> Select[UUID]:
    """The ids of traces that start in [start, end) and have a span that matches later."""
    later = exists().where(
        TraceSpan.trace_id == Trace.id,
        TraceSpan.start_time >= end,
        TraceSpan.start_time <= Trace.last_span_start,
        *conditions.all(),
    )
    bounds = within(Trace.start_time, start, end)
    return select(Trace.id).where(*bounds, Trace.last_span_start >= end, later)


def is_matching(conditions: SpanConditions) -> ColumnElement[bool]:
    """The condition that a trace matches, for statements that read all of them."""
    of_spans = Trace.id.in_(select(TraceSpan.trace_id).where(*conditions.all()))
    return or_(and_(of_spans, *conditions.of_no_span()), conditions.spanless())


def _by_time(trace: type[Trace]) -> Keyset:
    return Keyset(NEWEST_TRACES.list_name, (trace.start_time, trace.id))


def probed(
    statement: Select[Trace],
    trace: type[Trace],
    conditions: SpanConditions,
    bounds: Bounds = NO_BOUNDS,
) -> Select[Trace]:
    """The traces of the statement that have a matching span, or that have no spans and match.

    Args:
        bounds: all spans of these traces start within them.
    """
    # OFFSET keeps the planner from reading all spans for a join. The quoted number is a constant to
    # the planner; an integer would have to be converted. Citus has no lateral join with a limit.
    probe = (
        select(literal_column("1"))
        .select_from(TraceSpan)
        .where(
            TraceSpan.trace_id == trace.id,
            TraceSpan.start_time >= trace.start_time,
            TraceSpan.start_time <= trace.last_span_start,
            *conditions.all(bounds),
        )
        .offset(literal_column("'0'"))
        .exists()
    )
    if conditions.needs_a_span:
        return statement.where(probe)
    return statement.where(or_(probe, conditions.spanless(trace)))
