"""Sessions (conversations): the traces of which a span carries the same session id."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, Text, func, literal, select, true
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import aliased

from observatory_storage.errors import NotFound
from observatory_storage.models import Trace, TraceSpan
from observatory_storage.repositories import arguments
from observatory_storage.repositories.base import Repository
from observatory_storage.repositories.conditions import Conditions, asked, equal, put, within
from observatory_storage.repositories.paging import Keyset, Page
from observatory_storage.repositories.totals import Total

__all__ = ["SessionFilters", "SessionQueries", "SessionSummary"]

# Up to so many spans their sessions are gathered and sorted; beyond, walking the spans backwards
# in time meets enough sessions soon.
_FEW_SPANS: Final = 20_000
# So many spans a session are looked at first, the newest ones.
_SPANS_A_SESSION: Final = 40
_COUNTS: Final = ("trace_count", "error_trace_count", "span_count", "error_span_count")


@dataclass(frozen=True, slots=True)
class SessionFilters:
    """Which sessions: those of which one span meets every condition.

    It is the spans that carry the session's id that are meant: where only the root span of a
    trace does, its service counts and not those of the spans below it.

    Args:
        start_time: the span starts at this time or later.
        end_time: the span starts before this time.
        limit: the most rows in a page.

    Raises:
        ValidationError: a value is of the wrong type or out of range, or a time has no zone.
    """

    user_id: str | None = None
    service_name: str | None = None
    environment: str | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    limit: int = 50

    def __post_init__(self) -> None:
        for field in ("user_id", "service_name", "environment"):
            put(self, field, arguments.text(field, getattr(self, field)))
        start, end = arguments.times(self.start_time, self.end_time)
        put(self, "start_time", start)
        put(self, "end_time", end)
        arguments.limit(self.limit)

    def carriers(self, span: type[TraceSpan] = TraceSpan) -> Conditions:
        """That a span is of a session, and starts within the time range."""
        return [
            span.session_id.is_not(None),
            *within(span.start_time, self.start_time, self.end_time),
        ]

    def conditions(self, span: type[TraceSpan] = TraceSpan) -> Conditions:
        """What else one of a session's spans must meet."""
        return equal(self, span.user_id, span.service_name, span.environment)

    def is_indexed(self) -> bool:
        """Whether an index finds the spans that match, or all of them do."""
        return self.user_id is not None or not self.conditions()


@dataclass(frozen=True, slots=True)
class SessionSummary:
    """A session, as far as the time range shows it in which it was asked for.

    Counts, tokens and cost are those of its traces, the whole traces, though only some of their
    spans may carry the session's id; each trace counts once. A trace whose spans name two
    sessions counts in both.

    Attributes:
        first_start_time: when the first span that carries the session's id starts.
        last_start_time: when the last of them starts.
        user_ids: the users whom these spans name, in order.
        service_names: the services of these spans, in order.
        error_trace_count: the traces with a failed span.
        total_tokens: None where no span reports any.
        total_cost_usd: None where no cost is known.
    """

    session_id: str
    first_start_time: datetime
    last_start_time: datetime
    user_ids: tuple[str, ...]
    service_names: tuple[str, ...]
    trace_count: int
    error_trace_count: int
    span_count: int
    error_span_count: int
    total_tokens: int | None
    total_cost_usd: Decimal | None


class SessionQueries(Repository):
    """The questions of `TraceRepository` that are about sessions.

    The traces of one are ``list(TraceFilters(session_id=…))``.
    """

    def list_sessions(
        self,
        filters: SessionFilters | None = None,
        *,
        after: str | None = None,
        before: str | None = None,
        total: Total | None = None,
    ) -> Page[SessionSummary]:
        """A page of the sessions that match, the last active first.

        The time range chooses the spans that are looked at, and so the traces: those of which a
        span with the session's id starts within it. The order is that of `last_start_time`. A
        session that becomes active while pages are turned moves to the front; an ``end_time``
        keeps it in its place.

        At most four statements, however many sessions are in the page, and one for the total.

        Args:
            after: cursor ``next`` of a page: what follows it.
            before: cursor ``previous`` of a page: what precedes it.
            total: "exact" counts all that match, "estimated" asks the planner.

        Raises:
            ValidationError: a cursor is damaged or another query's.
        """
        filters = arguments.filters(filters, SessionFilters)
        return self._session_page(filters, filters.limit, after, before, total)

    def iterate_sessions(
        self, filters: SessionFilters | None = None, batch_size: int = 1000
    ) -> Iterator[SessionSummary]:
        """All the sessions that match, the last active first, one batch at a time in memory.

        The filters' ``limit`` does not apply.
        """
        filters = arguments.filters(filters, SessionFilters)
        size = arguments.limit(batch_size, "batch_size")
        return self._walk(lambda after: self._session_page(filters, size, after))

    def get_session(
        self,
        session_id: str,
        *,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
    ) -> SessionSummary:
        """A session, or what of it lies in [start_time, end_time).

        Raises:
            NotFound: no span (that starts in the range) carries the id.
            ValidationError: the id is not text, the end is before the start, a time has no zone.
        """
        key = arguments.required_text("session_id", session_id)
        start, end = arguments.times(start_time, end_time)
        found = self._sessions([key], within(TraceSpan.start_time, start, end))
        if not found:
            raise NotFound(f"there is no session {session_id}")
        return found[0]

    def _session_page(
        self,
        filters: SessionFilters,
        limit: int,
        after: str | None = None,
        before: str | None = None,
        total: Total | None = None,
    ) -> Page[SessionSummary]:
        def turn(span: type[TraceSpan], statement: Select[Any, Any]) -> Page[Any]:
            return self._page_of(
                Keyset("sessions", (span.start_time, span.session_id)),
                statement,
                query=asked(filters),
                limit=limit,
                after=after,
                before=before,
                total=total,
                count=lambda kind: self._total(_each(filters), kind),
                fetch=self._rows,
            )

        page: Page[Any] | None = None
        if after is None and before is None and not filters.conditions():
            page = turn(*_among_newest(filters, limit))
        if page is None or page.next is None:
            page = turn(*self._last_spans(filters))
        in_range = within(TraceSpan.start_time, filters.start_time, filters.end_time)
        found = self._sessions([row.session_id for row in page], in_range)
        return replace(page, rows=tuple(found))

    def _last_spans(self, filters: SessionFilters) -> tuple[type[TraceSpan], Select[Any, Any]]:
        """When each session that matches was last active, not yet in order."""
        if filters.is_indexed() and self._are_few(filters):
            return _as_spans(_grouped(filters))
        return TraceSpan, _walked(filters)

    def _are_few(self, filters: SessionFilters) -> bool:
        matching = [*filters.carriers(), *filters.conditions()]
        some = select(literal(1)).select_from(TraceSpan).where(*matching).limit(_FEW_SPANS + 1)
        count = self._scalar(select(func.count()).select_from(some.subquery()))
        return bool(count <= _FEW_SPANS)

    def _sessions(self, session_ids: Sequence[str], in_range: Conditions) -> list[SessionSummary]:
        """These sessions, in this order; those that have no span in the range are left out."""
        if not session_ids:
            return []
        wanted = literal(list(session_ids), ARRAY(TraceSpan.session_id.type))
        # The index is partial, and the planner wants to be told.
        carriers = [
            TraceSpan.session_id.is_not(None),
            TraceSpan.session_id == func.any(wanted),
            *in_range,
        ]
        carrier = (
            select(
                TraceSpan.session_id,
                TraceSpan.trace_id,
                TraceSpan.start_time,
                TraceSpan.user_id,
                TraceSpan.service_name,
            )
            .where(*carriers)
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
        rows = self._rows(
            select(
                *fact.c,
                *(func.coalesce(total.c[count], 0).label(count) for count in _COUNTS),
                total.c.total_tokens,
                total.c.total_cost_usd,
            ).join_from(fact, total, total.c.session_id == fact.c.session_id, isouter=True)
        )
        found = {
            key: SessionSummary(key, first, last, tuple(users or ()), tuple(services), *totals)
            for key, first, last, users, services, *totals in rows
        }
        return [found[key] for key in session_ids if key in found]


def _each(filters: SessionFilters) -> Select[Any]:
    """The sessions that match, each once."""
    matching = [*filters.carriers(), *filters.conditions()]
    return select(TraceSpan.session_id).where(*matching).distinct()


def _as_spans(rows: Select[Any, Any]) -> tuple[type[TraceSpan], Select[Any, Any]]:
    """Rows of a time and a session, to be put in order by these."""
    span = aliased(TraceSpan, rows.subquery(), adapt_on_names=True)
    return span, select(span.start_time, span.session_id)


def _among_newest(filters: SessionFilters, limit: int) -> tuple[type[TraceSpan], Select[Any, Any]]:
    """When each session of the newest spans was last active: the first page, if these fill it.

    Of those as old as the oldest of them, others may be missing.
    """
    newest = (
        select(TraceSpan.session_id, TraceSpan.start_time)
        .where(*filters.carriers())
        .order_by(TraceSpan.start_time.desc())
        .limit(_SPANS_A_SESSION * (limit + 1))
        .cte("newest")
    )
    last = func.max(newest.c.start_time).label("start_time")
    oldest = select(func.min(newest.c.start_time)).scalar_subquery()
    each = select(newest.c.session_id, last).group_by(newest.c.session_id)
    return _as_spans(each.having(func.max(newest.c.start_time) > oldest))


def _grouped(filters: SessionFilters) -> Select[Any, Any]:
    """When each matching session was last active: from the spans of all of them."""
    carriers = filters.carriers()
    if conditions := filters.conditions():
        matching = select(TraceSpan.session_id).where(*carriers, *conditions).distinct()
        # Materialized: the planner must not turn it into a search for each span.
        found = matching.cte("found").prefix_with("MATERIALIZED")
        carriers.append(TraceSpan.session_id.in_(select(found.c.session_id)))
    last = func.max(TraceSpan.start_time).label("start_time")
    return select(TraceSpan.session_id, last).where(*carriers).group_by(TraceSpan.session_id)


def _walked(filters: SessionFilters) -> Select[Any, Any]:
    """The same by looking at each span in turn: whether it is the last of its session."""
    other = aliased(TraceSpan)
    same = [other.session_id == TraceSpan.session_id, *filters.carriers(other)]
    later = _probe([*same, other.start_time > TraceSpan.start_time], "later")
    statement = (
        select(TraceSpan.start_time, TraceSpan.session_id)
        .distinct()  # the last ones may be several that start together
        .outerjoin(later, true())
        # Not "is null", which the planner takes for so rare that it would rather read all spans.
        .where(later.c.found.is_not(true()), *filters.carriers())
    )
    if conditions := filters.conditions(other):
        matching = _probe([*same, *conditions], "matching")
        statement = statement.join(matching, true())
    return statement


def _probe(conditions: Sequence[ColumnElement[bool]], name: str) -> Any:
    """Whether there is a span, asked for each row: the planner must not read all spans for it."""
    return select(true().label("found")).where(*conditions).limit(1).lateral(name)


def _distinct(column: Any) -> ColumnElement[Any]:
    """The values of a group, each once, in order."""
    values = func.array_agg(column.distinct(), type_=ARRAY(Text))
    return values.filter(column.is_not(None))
