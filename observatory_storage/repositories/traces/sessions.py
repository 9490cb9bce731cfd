"""Sessions (conversations): the traces of which a span carries the same session id."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from observatory_storage.errors import NotFound
from observatory_storage.repositories.reading import validation
from observatory_storage.repositories.reading.conditions import asked, given, put
from observatory_storage.repositories.reading.counting import Total
from observatory_storage.repositories.reading.pages import Page, Turn
from observatory_storage.repositories.reading.reader import Repository
from observatory_storage.repositories.traces import session_statements as statements

__all__ = ["SessionFilters", "SessionQueries", "SessionSummary"]

# Up to so many spans their sessions are gathered and sorted; beyond, walking the spans backwards
# in time meets enough sessions soon.
_FEW_SPANS: Final = 20_000
# The newest spans are looked at first: so many for each session of the page, if these are of too
# few then so many, and not more than these in all.
_SPANS_A_SESSION: Final = (8, 64)
_MOST_SPANS: Final = 20_000


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
            put(self, field, validation.text(field, getattr(self, field)))
        start, end = validation.times(self.start_time, self.end_time)
        put(self, "start_time", start)
        put(self, "end_time", end)
        validation.limit(self.limit)

    def parameters(self) -> dict[str, Any]:
        """The values of what is given, by name; the size of the page is no condition."""
        return {name: value for name, value in given(self) if name != "limit"}

    def has_conditions(self) -> bool:
        """Whether something is asked of the spans beside their time."""
        wanted = (self.user_id, self.service_name, self.environment)
        return any(value is not None for value in wanted)

    def is_indexed(self) -> bool:
        """Whether an index finds the spans that match, or all of them do."""
        return self.user_id is not None or not self.has_conditions()


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
        filters = validation.filters(filters, SessionFilters)
        return self._session_page(filters, filters.limit, after, before, total)

    def iterate_sessions(
        self, filters: SessionFilters | None = None, batch_size: int = 1000
    ) -> Iterator[SessionSummary]:
        """All the sessions that match, the last active first, one batch at a time in memory.

        The filters' ``limit`` does not apply.
        """
        filters = validation.filters(filters, SessionFilters)
        size = validation.limit(batch_size, "batch_size")
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
        key = validation.required_text("session_id", session_id)
        start, end = validation.times(start_time, end_time)
        asked_for = SessionFilters(start_time=start, end_time=end).parameters()
        statement = statements.of_id(frozenset(asked_for))
        rows = self._rows(statement, {**asked_for, "session_id": key})
        if not rows:
            raise NotFound(f"there is no session {session_id}")
        return _summary(rows[0])

    def _session_page(
        self,
        filters: SessionFilters,
        limit: int,
        after: str | None = None,
        before: str | None = None,
        total: Total | None = None,
    ) -> Page[SessionSummary]:
        def fetch(turn: Turn) -> list[SessionSummary]:
            first = turn.key is None and turn.descending
            rows = self._of_newest(filters, turn) if first else []
            return [_summary(row) for row in rows or self._last_active(filters, turn)]

        return self._page_of(
            statements.SESSIONS,
            statements.each(filters.parameters()),
            query=asked(filters),
            limit=limit,
            after=after,
            before=before,
            total=total,
            fetch=fetch,
        )

    def _of_newest(self, filters: SessionFilters, turn: Turn) -> Sequence[Any]:
        """The first page, if the newest spans are of so many sessions."""
        if filters.has_conditions():
            return []
        wanted = filters.parameters()
        statement = statements.newest(frozenset(wanted), turn.way)
        for spans in _SPANS_A_SESSION:
            newest = spans * turn.most
            if newest > _MOST_SPANS:
                break
            rows = self._rows(statement, {**wanted, **turn.parameters, "newest": newest})
            if rows:
                return rows
        return []

    def _last_active(self, filters: SessionFilters, turn: Turn) -> Sequence[Any]:
        wanted = filters.parameters()
        few = filters.is_indexed() and self._are_few(wanted)
        make = statements.grouped if few else statements.walked
        return self._rows(make(frozenset(wanted), turn.way), {**wanted, **turn.parameters})

    def _are_few(self, wanted: Mapping[str, Any]) -> bool:
        statement = statements.how_many(frozenset(wanted))
        count = self._rows(statement, {**wanted, "enough": _FEW_SPANS + 1})[0][0]
        return bool(count <= _FEW_SPANS)


def _summary(row: Any) -> SessionSummary:
    key, first, last, users, services, *totals = row
    return SessionSummary(key, first, last, tuple(users or ()), tuple(services), *totals)
