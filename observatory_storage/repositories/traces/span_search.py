"""Spans in order of time, by what stands in their JSON.

The newest are walked first, which fills the page with what is frequent; then see `slices`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session
from sqlalchemy.orm.interfaces import ORMOption

from observatory_storage.models import TraceSpan
from observatory_storage.repositories.reading.conditions import asked, within
from observatory_storage.repositories.reading.counting import Total
from observatory_storage.repositories.reading.pages import Keyset, Page, Turn
from observatory_storage.repositories.reading.reader import Repository
from observatory_storage.repositories.reading.time_slices import moment_after, through_slices
from observatory_storage.repositories.traces.candidates import Finder
from observatory_storage.repositories.traces.filters import SpanFilters
from observatory_storage.repositories.traces.json_conditions import anywhere

__all__ = ["SpanSearch"]

# So many are walked first; fewer where a prompt may have to be parsed to look into it.
_WALKED: Final = 3_000
_WALKED_FOR_WORDS: Final = 500


class SpanSearch(Repository):
    """One search: filters that look for an attribute or words, and what is loaded of the spans."""

    def __init__(
        self, session: Session, filters: SpanFilters, options: Sequence[ORMOption] = ()
    ) -> None:
        super().__init__(session)
        self._filters = filters
        self._options = options
        self._finder = Finder(session)

    def page(
        self,
        keyset: Keyset,
        limit: int,
        after: str | None,
        before: str | None,
        total: Total | None = None,
    ) -> Page[TraceSpan]:
        """A page of the spans that match, in the order of the keyset."""
        spans = select(TraceSpan).where(*self._filters.in_sql().plain())
        statement = spans.options(*self._options)

        def fetch(turn: Turn) -> list[TraceSpan]:
            start, end = self._filters.start_time, self._filters.end_time
            if turn.key is not None:
                place: datetime = turn.key[0]
                start, end = (start, moment_after(place)) if turn.descending else (place, end)
            found = turn.of(statement)
            return self._search(found, start, end, turn.most, descending=turn.descending)

        return self._page_of(
            keyset,
            statement,
            query=asked(self._filters),
            limit=limit,
            after=after,
            before=before,
            total=total,
            count=self._count,
            fetch=fetch,
        )

    def _count(self, kind: Total) -> int:
        return self._total(select(TraceSpan).where(*self._filters.conditions()), kind)

    def _search(
        self,
        statement: Select[TraceSpan],
        start: datetime | None,
        end: datetime | None,
        limit: int,
        *,
        descending: bool,
    ) -> list[TraceSpan]:
        def walk(start: datetime | None, end: datetime | None, room: int) -> list[TraceSpan]:
            # No index serves an OR with events: the spans are taken in order, and looked into.
            sought = (anywhere(each, start, end) for each in filters.in_sql().sought())
            bounds = within(TraceSpan.start_time, start, end)
            return self._entities(statement.where(*bounds, *sought).limit(room))

        def look_up(start: datetime, end: datetime, room: int) -> list[TraceSpan] | None:
            candidates = self._finder.few(filters, start, end)
            if candidates is None or not candidates.keys:
                return None if candidates is None else []
            return self._entities(candidates.restrict(statement, filters).limit(room))

        filters = self._filters
        edge = self._edge(start, end, descending=descending)
        if edge is None:
            return walk(start, end, limit)
        begins, ends = (edge, end) if descending else (start, edge)
        found = walk(begins, ends, limit)
        if len(found) == limit:
            return found
        begins, ends = (start, edge) if descending else (edge, end)
        time = TraceSpan.start_time
        extremes = select(func.min(time), func.max(time)).where(*within(time, begins, ends))
        first, last = self._row(extremes)
        if first is None:
            return found
        steps: list[Callable[[int], list[TraceSpan]]] = [
            lambda room: walk(last, ends, room),
            lambda room: through_slices(first, last, room, look_up, walk, descending=descending),
        ]
        for step in steps if descending else reversed(steps):
            if len(found) < limit:
                found += step(limit - len(found))
        return found

    def _edge(
        self, start: datetime | None, end: datetime | None, *, descending: bool
    ) -> datetime | None:
        """Where the spans end that are walked first; None where these are all of the range."""
        time = TraceSpan.start_time
        statement = select(time).where(*within(time, start, end))
        statement = statement.order_by(time.desc() if descending else time.asc())
        walked = _WALKED if self._filters.text is None else _WALKED_FOR_WORDS
        edge: datetime | None = self._scalar(statement.offset(walked).limit(1))
        if edge is None or descending:
            return edge
        return moment_after(edge)
