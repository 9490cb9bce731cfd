"""The statements about sessions, each built once for all filters with the same fields.

One statement finds a page of sessions and computes their totals. Its CTE `last` contains the time
at which each session of the page was last active. The CTE `carrier` contains the spans that have
the ids of these sessions.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import aliased

from observatory_storage.models import Trace, TraceSpan
from observatory_storage.repositories.reading.filter_fields import Conditions, Given, rules_of
from observatory_storage.repositories.reading.pages import Keyset, SeekShape
from observatory_storage.repositories.reading.span_days import Range, within_ranges
from observatory_storage.repositories.traces.session_filters import SessionFilters
from observatory_storage.repositories.traces.statistics import TRACE_TOTALS

__all__ = [
    "SESSIONS",
    "by_ids",
    "from_all_spans",
    "from_newest_spans",
    "from_sessions",
    "from_walked_spans",
    "matching_sessions",
    "newest_sessions",
    "span_count",
]

# In the order of the starts of their last spans.
SESSIONS: Final = Keyset(
    "sessions", (TraceSpan.start_time.label("last_start_time"), TraceSpan.session_id)
)

_COUNTS: Final = ("trace_count", "error_trace_count", "span_count", "error_span_count")
_RANGE: Final = ("start_time", "end_time")
_OTHERS: Final = tuple(name for name in rules_of(SessionFilters) if name not in _RANGE)

Names = frozenset[str]
Days = tuple[Range, ...] | None
# The days on which spans may match, beside the bind parameters of the filter fields.
_DAYS: Final = "the days"


@lru_cache
def matching_sessions(names: Names, days: Days = None) -> sa.Select[Any]:
    """The distinct ids of the matching sessions.

    Args:
        names: the names of the filter fields that are set.
        days: the days on which spans may match; None for all.
    """
    given = _bound(names, days)
    matching = [*_carrying(given), *_others(given)]
    return sa.select(TraceSpan.session_id).where(*matching).distinct()


@lru_cache
def span_count(names: Names, days: Days = None) -> sa.Select[Any]:
    """The number of matching spans, counted up to `greatest`."""
    given = _bound(names, days)
    matching = [*_carrying(given), *_others(given)]
    spans = sa.select(sa.literal(1)).select_from(TraceSpan).where(*matching)
    some = spans.limit(sa.bindparam("greatest", type_=sa.BigInteger)).subquery()
    return sa.select(sa.func.count()).select_from(some)


@lru_cache
def by_ids(names: Names, days: Days = None) -> sa.Select[Any]:
    """The sessions `ids`, which have spans on these days alone, the last active first."""
    statement, fact = _summaries([_is_one_of_ids()], _bound(names, days))
    return _by_activity(fact.c).in_order(statement, descending=True)


@lru_cache
def from_newest_spans(names: Names, shape: SeekShape) -> sa.Select[Any]:
    """The page, found in the newest `span_limit` spans; no rows if these do not fill the page.

    Sessions whose last activity is the start of the oldest of these spans are left out, because
    other sessions of that time may be missing.
    """
    given = _bound(names)
    spans = (
        sa.select(TraceSpan.session_id, TraceSpan.start_time)
        .where(*_carrying(given))
        .order_by(TraceSpan.start_time.desc())
        .limit(sa.bindparam("span_limit", type_=sa.BigInteger))
        .cte("newest")
    )
    oldest = sa.select(sa.func.min(spans.c.start_time)).scalar_subquery()
    active = sa.func.max(spans.c.start_time)
    by_session = (
        sa.select(spans.c.session_id, active.label("last_start_time"))
        .group_by(spans.c.session_id)
        .having(active > oldest)
    )
    return _page(_of_page(by_session, shape), given, shape, full=True)


@lru_cache
def newest_sessions(names: Names, *, is_bounded: bool, from_key: bool) -> sa.Select[Any]:
    """The sessions of the newest `span_limit` spans up to the key of the page.

    They are in the order of the list, by the last of these spans. Beside each are the start of the
    oldest of these spans, and their number.

    Args:
        is_bounded: read only spans that start at the time `since` or later.
        from_key: read only spans that start no later than the page.
    """
    start = TraceSpan.start_time
    bounds = [start >= sa.bindparam("since")] if is_bounded else []
    if from_key:
        bounds.append(start <= sa.bindparam("key_last_start_time"))
    spans = (
        sa.select(TraceSpan.session_id, start)
        .where(*_carrying(_bound(names)), *bounds)
        .order_by(start.desc())
        .limit(sa.bindparam("span_limit", type_=sa.BigInteger))
        .subquery("newest")
    )
    by_session = (
        sa.select(
            spans.c.session_id,
            sa.func.max(spans.c.start_time).label("last_start_time"),
            sa.func.min(sa.func.min(spans.c.start_time)).over().label("oldest"),
            sa.cast(sa.func.sum(sa.func.count()).over(), sa.BigInteger).label("seen"),
        )
        .group_by(spans.c.session_id)
        .subquery("by_session")
    )
    return _by_activity(by_session.c).in_order(sa.select(by_session), descending=True)


@lru_cache
def from_sessions(names: Names, shape: SeekShape, days: Days = None) -> sa.Select[Any]:
    """The page, among those of the sessions `ids` that were active at `active_since` or later.

    Args:
        days: the days on which these sessions may have spans; None for all.
    """
    given = _bound(names, days)
    carriers = [*_carrying(given), _is_one_of_ids()]
    if conditions := _others(given):
        carriers.append(_is_of_matching([*carriers, *conditions]))
    active = sa.func.max(TraceSpan.start_time)
    by_session = (
        sa.select(TraceSpan.session_id, active.label("last_start_time"))
        .where(*carriers)
        .group_by(TraceSpan.session_id)
        .having(active >= sa.bindparam("active_since"))
    )
    return _page(_of_page(by_session, shape), given, shape)


@lru_cache
def from_all_spans(names: Names, shape: SeekShape, days: Days = None) -> sa.Select[Any]:
    """The page, found by grouping and sorting the spans of all matching sessions.

    Args:
        days: the days on which these sessions may have spans; None for all.
    """
    given = _bound(names, days)
    carriers = _carrying(given)
    if conditions := _others(given):
        carriers.append(_is_of_matching([*carriers, *conditions]))
    active = sa.func.max(TraceSpan.start_time).label("last_start_time")
    by_session = sa.select(TraceSpan.session_id, active).where(*carriers)
    return _page(_of_page(by_session.group_by(TraceSpan.session_id), shape), given, shape)


@lru_cache
def from_walked_spans(names: Names, shape: SeekShape) -> sa.Select[Any]:
    """The page, found by reading spans newest first and keeping the last span of each session."""
    given = _bound(names)
    other = aliased(TraceSpan)
    same = [other.session_id == TraceSpan.session_id, *_carrying(given, other)]
    later = _probe([*same, other.start_time > TraceSpan.start_time], "later")
    statement = (
        sa.select(*SESSIONS.columns)
        .distinct()  # several spans of a session may start last, at the same time
        .outerjoin(later, sa.true())
        # Not IS NULL, which the planner considers so rare that it would read all spans.
        .where(later.c.found.is_not(sa.true()), *_carrying(given))
    )
    if conditions := _others(given, other):
        matching = _probe([*same, *conditions], "matching")
        statement = statement.join(matching, sa.true())
    return _page(SESSIONS.seek(statement, shape), given, shape)


def _bound(names: Names, days: Days = None) -> Given:
    given: Given = {name: sa.bindparam(name) for name in names}
    return given if days is None else {**given, _DAYS: days}


def _on(span: type[TraceSpan], given: Given, fields: Sequence[str]) -> Conditions:
    rules = rules_of(SessionFilters)
    return [each for name in fields for each in rules[name].condition(span, given)]


def _carrying(given: Given, span: type[TraceSpan] = TraceSpan) -> Conditions:
    """The condition that a span has the id of a session and starts within the time range."""
    found = [span.session_id.is_not(None), *_on(span, given, _RANGE)]
    # As constants, so that the planner leaves out the partitions of other days.
    return [*found, within_ranges(span.start_time, given[_DAYS])] if _DAYS in given else found


def _others(given: Given, span: type[TraceSpan] = TraceSpan) -> Conditions:
    """The other conditions, which one of a session's spans must meet."""
    return _on(span, given, _OTHERS)


def _is_one_of_ids() -> sa.ColumnElement[bool]:
    ids = sa.bindparam("ids", type_=ARRAY(TraceSpan.session_id.type))
    return TraceSpan.session_id == sa.func.any(ids)


def _is_of_matching(conditions: Conditions) -> sa.ColumnElement[bool]:
    """The condition that a span belongs to a session that has a span which meets the conditions."""
    matching = sa.select(TraceSpan.session_id).where(*conditions).distinct()
    # MATERIALIZED, because otherwise the planner would repeat the search for each span.
    found = matching.cte("found").prefix_with("MATERIALIZED")
    return TraceSpan.session_id.in_(sa.select(found.c.session_id))


def _of_page(rows: sa.Select[Any, Any], shape: SeekShape) -> sa.Select[Any, Any]:
    """The rows of the page, from rows that have a session and a time each."""
    found = rows.subquery().c
    in_order = _by_activity(found)
    return in_order.seek(sa.select(*in_order.columns), shape)


def _by_activity(columns: Any) -> Keyset:
    return Keyset(SESSIONS.list_name, (columns.last_start_time, columns.session_id))


def _probe(conditions: Sequence[sa.ColumnElement[bool]], name: str) -> Any:
    """An EXISTS that is evaluated for each row, so that PostgreSQL does not read all spans."""
    return sa.select(sa.true().label("found")).where(*conditions).limit(1).lateral(name)


def _page(
    rows: sa.Select[Any, Any], given: Given, shape: SeekShape, *, full: bool = False
) -> sa.Select[Any]:
    """The sessions of these rows with their totals.

    Args:
        full: whether to return sessions only if the rows fill the page.
    """
    last = rows.cte("last")
    wanted = sa.func.array(sa.select(last.c.session_id).scalar_subquery(), type_=ARRAY(sa.Text))
    conditions = [TraceSpan.session_id == sa.func.any(wanted)]
    if full:
        found = sa.select(sa.func.count()).select_from(last).scalar_subquery()
        conditions.append(found == sa.bindparam("row_limit", type_=sa.BigInteger))
    statement, fact = _summaries(conditions, given)
    return _by_activity(fact.c).in_order(statement, descending=shape.descending)


def _summaries(conditions: Conditions, given: Given) -> tuple[sa.Select[Any], sa.Subquery]:
    """The sessions of the spans that have an id and meet the conditions, with their totals."""
    carrier = (
        sa.select(
            TraceSpan.session_id,
            TraceSpan.trace_id,
            TraceSpan.start_time,
            TraceSpan.user_id,
            TraceSpan.service_name,
        )
        # The index is partial: its predicate must be in the statement.
        .where(*_carrying(given), *conditions)
        .cte("carrier")
        .prefix_with("MATERIALIZED")
    )
    fact = (
        sa.select(
            carrier.c.session_id,
            sa.func.min(carrier.c.start_time).label("first_start_time"),
            sa.func.max(carrier.c.start_time).label("last_start_time"),
            _distinct(carrier.c.user_id).label("user_ids"),
            _distinct(carrier.c.service_name).label("service_names"),
        )
        .group_by(carrier.c.session_id)
        .subquery("fact")
    )
    each_once = sa.select(carrier.c.session_id, carrier.c.trace_id).distinct().subquery()
    total = (
        sa.select(each_once.c.session_id, *TRACE_TOTALS)
        .join_from(each_once, Trace, Trace.id == each_once.c.trace_id)
        .group_by(each_once.c.session_id)
        .subquery("total")
    )
    statement = sa.select(
        *fact.c,
        *(sa.func.coalesce(total.c[count], 0).label(count) for count in _COUNTS),
        total.c.total_tokens,
        total.c.total_cost_usd,
    ).join_from(fact, total, total.c.session_id == fact.c.session_id, isouter=True)
    return statement, fact


def _distinct(column: Any) -> sa.ColumnElement[Any]:
    """The distinct values of a group, sorted."""
    values = sa.func.array_agg(column.distinct(), type_=ARRAY(sa.Text))
    return values.filter(column.is_not(None))
