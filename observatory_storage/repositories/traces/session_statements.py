"""The statements about sessions, made once each for all filters in which the same fields are given.

A page is found and summed up by one statement: `last` has when each of its sessions was last
active, `carrier` the spans that say that they are of these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Select,
    Subquery,
    Text,
    bindparam,
    func,
    literal,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import aliased

from observatory_storage.models import Trace, TraceSpan
from observatory_storage.repositories.reading.conditions import Conditions, within
from observatory_storage.repositories.reading.pages import Keyset, Way

__all__ = ["SESSIONS", "each", "grouped", "how_many", "newest", "of_id", "walked"]

# By when the last of their spans starts.
SESSIONS: Final = Keyset(
    "sessions", (TraceSpan.start_time.label("last_start_time"), TraceSpan.session_id)
)

_COUNTS: Final = ("trace_count", "error_trace_count", "span_count", "error_span_count")
_COMPARED: Final = ("user_id", "service_name", "environment")

Names = frozenset[str]


def each(given: Mapping[str, Any]) -> Select[Any]:
    """The sessions that match, each once.

    Args:
        given: values of the filters, or bind parameters, by the fields' names.
    """
    matching = [*_carriers(given), *_conditions(given)]
    return select(TraceSpan.session_id).where(*matching).distinct()


@lru_cache
def how_many(names: Names) -> Select[Any]:
    """How many spans match, as far as `enough`."""
    given = _bound(names)
    matching = [*_carriers(given), *_conditions(given)]
    spans = select(literal(1)).select_from(TraceSpan).where(*matching)
    some = spans.limit(bindparam("enough", type_=BigInteger)).subquery()
    return select(func.count()).select_from(some)


@lru_cache
def of_id(names: Names) -> Select[Any]:
    """The session `session_id`."""
    statement, _ = _summaries([TraceSpan.session_id == bindparam("session_id")], _bound(names))
    return statement


@lru_cache
def newest(names: Names, way: Way) -> Select[Any]:
    """The page by as many as `newest` of the newest spans; no rows where they do not fill it.

    Of sessions as old as the oldest of them, others may be missing.
    """
    given = _bound(names)
    spans = (
        select(TraceSpan.session_id, TraceSpan.start_time)
        .where(*_carriers(given))
        .order_by(TraceSpan.start_time.desc())
        .limit(bindparam("newest", type_=BigInteger))
        .cte("newest")
    )
    oldest = select(func.min(spans.c.start_time)).scalar_subquery()
    active = func.max(spans.c.start_time)
    by_session = (
        select(spans.c.session_id, active.label("last_start_time"))
        .group_by(spans.c.session_id)
        .having(active > oldest)
    )
    return _page(_turned(by_session, way), given, way, full=True)


@lru_cache
def grouped(names: Names, way: Way) -> Select[Any]:
    """The page from the spans of all sessions that match."""
    given = _bound(names)
    carriers = _carriers(given)
    if conditions := _conditions(given):
        matching = select(TraceSpan.session_id).where(*carriers, *conditions).distinct()
        # Materialized: the planner must not turn it into a search for each span.
        found = matching.cte("found").prefix_with("MATERIALIZED")
        carriers.append(TraceSpan.session_id.in_(select(found.c.session_id)))
    active = func.max(TraceSpan.start_time).label("last_start_time")
    by_session = select(TraceSpan.session_id, active).where(*carriers)
    return _page(_turned(by_session.group_by(TraceSpan.session_id), way), given, way)


@lru_cache
def walked(names: Names, way: Way) -> Select[Any]:
    """The page by looking at each span in turn: whether it is the last of its session."""
    given = _bound(names)
    other = aliased(TraceSpan)
    same = [other.session_id == TraceSpan.session_id, *_carriers(given, other)]
    later = _probe([*same, other.start_time > TraceSpan.start_time], "later")
    statement = (
        select(*SESSIONS.columns)
        .distinct()  # the last ones may be several that start together
        .outerjoin(later, true())
        # Not "is null", which the planner takes for so rare that it would rather read all spans.
        .where(later.c.found.is_not(true()), *_carriers(given))
    )
    if conditions := _conditions(given, other):
        matching = _probe([*same, *conditions], "matching")
        statement = statement.join(matching, true())
    return _page(SESSIONS.along(statement, way), given, way)


def _bound(names: Names) -> dict[str, Any]:
    return {name: bindparam(name) for name in names}


def _carriers(given: Mapping[str, Any], span: type[TraceSpan] = TraceSpan) -> Conditions:
    """That a span is of a session, and starts within the time range."""
    in_range = within(span.start_time, given.get("start_time"), given.get("end_time"))
    return [span.session_id.is_not(None), *in_range]


def _conditions(given: Mapping[str, Any], span: type[TraceSpan] = TraceSpan) -> Conditions:
    """What else one of a session's spans must meet."""
    return [getattr(span, name) == given[name] for name in _COMPARED if name in given]


def _turned(rows: Select[Any, Any], way: Way) -> Select[Any, Any]:
    """Those of the rows, each of a session and a time, that are the page's."""
    found = rows.subquery().c
    in_order = _by_activity(found)
    return in_order.along(select(*in_order.columns), way)


def _by_activity(columns: Any) -> Keyset:
    return Keyset(SESSIONS.list_name, (columns.last_start_time, columns.session_id))


def _probe(conditions: Sequence[ColumnElement[bool]], name: str) -> Any:
    """Whether there is a span, asked for each row: the planner must not read all spans for it."""
    return select(true().label("found")).where(*conditions).limit(1).lateral(name)


def _page(
    rows: Select[Any, Any], given: Mapping[str, Any], way: Way, *, full: bool = False
) -> Select[Any]:
    """The sessions of these rows, summed up.

    Args:
        full: only if the rows fill the page.
    """
    last = rows.cte("last")
    wanted = func.array(select(last.c.session_id).scalar_subquery(), type_=ARRAY(Text))
    conditions = [TraceSpan.session_id == func.any(wanted)]
    if full:
        found = select(func.count()).select_from(last).scalar_subquery()
        conditions.append(found == bindparam("most", type_=BigInteger))
    statement, fact = _summaries(conditions, given)
    return _by_activity(fact.c).in_order(statement, descending=way.descending)


def _summaries(conditions: Conditions, given: Mapping[str, Any]) -> tuple[Select[Any], Subquery]:
    """The sessions of the spans that carry an id and meet the conditions, and their facts."""
    carrier = (
        select(
            TraceSpan.session_id,
            TraceSpan.trace_id,
            TraceSpan.start_time,
            TraceSpan.user_id,
            TraceSpan.service_name,
        )
        # The index is partial, and the planner wants to be told.
        .where(*_carriers(given), *conditions)
        .cte("carrier")
        .prefix_with("MATERIALIZED")
    )
    fact = (
        select(
            carrier.c.session_id,
            func.min(carrier.c.start_time).label("first_start_time"),
            func.max(carrier.c.start_time).label("last_start_time"),
            _distinct(carrier.c.user_id).label("user_ids"),
            _distinct(carrier.c.service_name).label("service_names"),
        )
        .group_by(carrier.c.session_id)
        .subquery("fact")
    )
    each_once = select(carrier.c.session_id, carrier.c.trace_id).distinct().subquery()
    total = (
        select(
            each_once.c.session_id,
            func.count().label("trace_count"),
            func.count().filter(Trace.status == "error").label("error_trace_count"),
            func.coalesce(func.sum(Trace.span_count), 0).label("span_count"),
            func.coalesce(func.sum(Trace.error_count), 0).label("error_span_count"),
            func.sum(Trace.total_tokens).label("total_tokens"),
            func.sum(Trace.total_cost_usd).label("total_cost_usd"),
        )
        .join_from(each_once, Trace, Trace.id == each_once.c.trace_id)
        .group_by(each_once.c.session_id)
        .subquery("total")
    )
    statement = select(
        *fact.c,
        *(func.coalesce(total.c[count], 0).label(count) for count in _COUNTS),
        total.c.total_tokens,
        total.c.total_cost_usd,
    ).join_from(fact, total, total.c.session_id == fact.c.session_id, isouter=True)
    return statement, fact


def _distinct(column: Any) -> ColumnElement[Any]:
    """The values of a group, each once, in order."""
    values = func.array_agg(column.distinct(), type_=ARRAY(Text))
    return values.filter(column.is_not(None))
