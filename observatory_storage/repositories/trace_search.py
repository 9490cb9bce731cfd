"""Which traces match: by whichever way is the shorter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Select,
    SelectBase,
    Text,
    and_,
    cast,
    exists,
    false,
    func,
    literal,
    or_,
    select,
    true,
    tuple_,
    union_all,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from observatory_storage.models import Trace, TraceSpan
from observatory_storage.repositories.base import Repository
from observatory_storage.repositories.candidates import Candidates, Finder
from observatory_storage.repositories.conditions import Conditions, asked, within
from observatory_storage.repositories.paging import Keyset, Page
from observatory_storage.repositories.slices import through_slices
from observatory_storage.repositories.span_filters import TraceFilters
from observatory_storage.repositories.totals import Total
from observatory_storage.repositories.trace_count import TraceCount

__all__ = ["TraceSearch", "bare"]

# Up to so many spans that an index finds, their traces are looked up and sorted; beyond, walking
# the traces in order meets enough of them soon.
_FEW_SPANS: Final = 5_000
# How many matching spans a trace is thought to have at first, where the newest are looked at.
_SPANS_A_TRACE: Final = 4
# A few traces are walked, and up to so many if these promise to fill the page, before spans are
# looked for by what stands in their JSON; fewer where a prompt may have to be parsed for it.
_WALKED: Final = (60, 300)
_WALKED_FOR_WORDS: Final = (15, 50)
# As many traces are walked where the page may well be among them: by a model, or by a service, of
# which so many traces say that walking on will find the others.
_LIKELY: Final = 100
_NEAR: Final = 900
_PROMISING: Final = 2


class TraceSearch(Repository):
    """One search: finds the traces of which a span matches."""

    def __init__(self, session: Session, filters: TraceFilters) -> None:
        super().__init__(session)
        self._filters = filters
        self._conditions = filters.conditions()
        self._finder = Finder(session)

    def page(
        self,
        keyset: Keyset,
        limit: int,
        after: str | None,
        before: str | None,
        total: Total | None = None,
    ) -> Page[Trace]:
        """A page of the traces, in the order of the keyset."""
        search = self._first if after is None and before is None else self._search
        descending = keyset.descending != (before is not None)
        return self._page_of(
            keyset,
            select(Trace),
            query=asked(self._filters),
            limit=limit,
            after=after,
            before=before,
            total=total,
            count=lambda kind: TraceCount(self._session).total(self._filters, kind),
            fetch=lambda statement: search(statement, limit + 1, descending=descending),
        )

    def _first(self, statement: Select[Trace], limit: int, *, descending: bool) -> Sequence[Trace]:
        """As `_search`, for the first page: that of the newest spans, where an index has them.

        A trace begins before its spans do. So all traces that begin after the oldest of the newest
        spans, and match, have one of these.
        """
        if not descending or not self._filters.has_newest_spans():
            return self._search(statement, limit, descending=descending)
        if self._filters.is_likely_common():
            walked = self._entities(self._nearest(statement, _LIKELY, descending=True))
            if len(walked) == limit:
                return walked
        newest = _SPANS_A_TRACE * limit
        while newest <= _FEW_SPANS:
            found = self._of_newest(statement, limit, newest)
            if found is not None:
                return self._with_bare(statement, found, limit, descending=True)
            newest *= _SPANS_A_TRACE
        return self._search(statement, limit, descending=True)

    def _of_newest(self, statement: Select[Trace], limit: int, newest: int) -> list[Trace] | None:
        """The statement's rows by so many of the newest spans; None where these are too few."""
        spans = self._rows(
            select(TraceSpan.trace_id, TraceSpan.start_time)
            .where(*self._conditions)
            .order_by(TraceSpan.start_time.desc())
            .limit(newest)
        )
        ids = list({span.trace_id for span in spans})
        found = statement.where(Trace.id == func.any(literal(ids, ARRAY(Trace.id.type))))
        if len(spans) < newest:
            return self._entities(found)
        rows = self._entities(found.where(Trace.start_time > spans[-1].start_time))
        return rows if len(rows) == limit else None

    def _search(self, statement: Select[Trace], limit: int, *, descending: bool) -> Sequence[Trace]:
        """The rows of the statement, which has an order and a limit, that match."""
        filters = self._filters
        if not self._conditions:
            return self._entities(statement)
        if filters.is_indexed() and self._are_few(self._conditions):
            matching = select(TraceSpan.trace_id).where(*self._conditions)
            return self._of_spans(statement, matching, limit, descending=descending)
        if not filters.sought():
            return self._by_service(statement, limit, descending=descending)
        walked = self._first_few(statement, limit, descending=descending)
        if len(walked) == limit:
            return walked
        candidates = self._finder.few(filters, filters.start_time, filters.end_time)
        if candidates is not None:
            found = self._matching(candidates)
            return self._of_spans(statement, found, limit, descending=descending)
        return self._through_slices(statement, limit, descending=descending)

    def _through_slices(
        self, statement: Select[Trace], limit: int, *, descending: bool
    ) -> list[Trace]:
        """The same, slice by slice of the traces' own starts: many spans match in all."""

        def walk(start: datetime | None, end: datetime | None, room: int) -> list[Trace]:
            bounds = within(Trace.start_time, start, end)
            return self._entities(self._walking(statement).where(*bounds).limit(room))

        def look_up(start: datetime, end: datetime, room: int) -> list[Trace] | None:
            candidates = self._finder.few(self._filters, start, end)
            if candidates is None:
                return None
            bounds = within(Trace.start_time, start, end)
            found = union_all(self._matching(candidates), self._reaching_beyond(start, end))
            sliced = statement.where(*bounds).limit(room)
            return self._of_spans(sliced, found, room, descending=descending)

        begin, end = self._filters.start_time, self._filters.end_time
        bounds = within(Trace.start_time, begin, end)
        ends = statement.with_only_columns(func.min(Trace.start_time), func.max(Trace.start_time))
        first, last = self._row(ends.where(*bounds).order_by(None).limit(None))
        steps: list[Callable[[int], list[Trace]]] = []
        if first is not None:
            steps.append(lambda room: walk(last, None, room))
            steps.append(
                lambda room: through_slices(first, last, room, look_up, walk, descending=descending)
            )
        if begin is not None:  # where the spans begin that may match: their trace may have before
            steps.append(lambda room: walk(None, begin, room))
        page: list[Trace] = []
        for step in steps if descending else reversed(steps):
            if len(page) < limit:
                page += step(limit - len(page))
        return page

    def _walking(self, statement: Select[Trace]) -> Select[Trace]:
        """Each trace in turn: look for one of its spans, in its partitions only."""
        probe = (
            select(literal(1).label("found"))
            .select_from(TraceSpan)
            .where(
                TraceSpan.trace_id == Trace.id,
                TraceSpan.start_time >= Trace.start_time,
                TraceSpan.start_time <= Trace.last_span_start,
                *self._conditions,
            )
            .limit(1)
            .lateral("probe")
        )
        return statement.outerjoin(probe, true()).where(
            or_(probe.c.found.is_not(None), bare(self._filters)),
            *self._filters.implied_conditions(),
        )

    def _first_few(
        self, statement: Select[Trace], limit: int, *, descending: bool
    ) -> Sequence[Trace]:
        """The statement's rows among the traces that come first: the page, if they fill it.

        Unless half as many match among a few of them as would fill it, no more are walked.
        """
        few, most = _WALKED if self._filters.text is None else _WALKED_FOR_WORDS
        rows = self._entities(self._nearest(statement, few, descending=descending))
        if len(rows) == limit or 2 * len(rows) * most < limit * few:
            return rows
        further = _after(rows, statement, descending=descending)
        further = self._nearest(further, most - few, descending=descending)
        return [*rows, *self._entities(further.limit(limit - len(rows)))]

    def _by_service(
        self, statement: Select[Trace], limit: int, *, descending: bool
    ) -> Sequence[Trace]:
        """The statement's rows by walking; by their spans where the service has few of these."""
        filters = self._filters
        # Slow traces are few, and their own rows tell them apart before their spans are looked at.
        if filters.service_name is None or filters.min_duration_us is not None:
            return self._entities(self._walking(statement))
        # Of all traces: to look for so many that may match could be the whole walk.
        ended = [] if filters.end_time is None else [Trace.start_time < filters.end_time]
        near = self._nearest(statement, _NEAR, among=ended, descending=descending)
        rows = self._entities(near)
        if len(rows) == limit:
            return rows
        if len(rows) < _PROMISING and self._are_few(filters.of_service()):
            matching = select(TraceSpan.trace_id).where(*self._conditions)
            return self._of_spans(statement, matching, limit, descending=descending)
        further = self._walking(_after(rows, statement, descending=descending))
        return [*rows, *self._entities(further.limit(limit - len(rows)))]

    def _nearest(
        self,
        statement: Select[Trace],
        walked: int,
        *,
        among: Conditions | None = None,
        descending: bool,
    ) -> Select[Trace]:
        """Those rows of the statement that are among so many traces that come first.

        Args:
            among: which traces count: those that may match unless given.
        """
        possible = statement.where(
            *(self._filters.implied_conditions() if among is None else among)
        )
        edge = _edge(possible, walked, descending=descending)
        first = Trace.start_time >= edge if descending else Trace.start_time <= edge
        return self._walking(statement).where(first)

    def _of_spans(
        self, statement: Select[Trace], ids: SelectBase, limit: int, *, descending: bool
    ) -> list[Trace]:
        """The statement's rows of these ids, and of traces without spans."""
        # Materialized: the planner must not turn it into a search for each trace.
        found = ids.cte("found").prefix_with("MATERIALIZED")
        rows = self._entities(statement.where(Trace.id.in_(select(found.c[0]))))
        return self._with_bare(statement, rows, limit, descending=descending)

    def _with_bare(
        self, statement: Select[Trace], rows: list[Trace], limit: int, *, descending: bool
    ) -> list[Trace]:
        """The rows, and those of the statement's traces without spans that belong among them."""
        if self._filters.bare_conditions() is None:
            return rows
        alone = statement.where(bare(self._filters))
        if len(rows) == limit:  # no index finds them: no more are looked at than may be needed
            edge = rows[-1].start_time
            first = Trace.start_time >= edge if descending else Trace.start_time <= edge
            alone = alone.where(first)
        rows += self._entities(alone)
        return sorted(rows, key=lambda row: (row.start_time, row.id), reverse=descending)[:limit]

    def _matching(self, candidates: Candidates) -> Select[UUID]:
        """The ids of the traces of those candidates that match."""
        found = select(TraceSpan.trace_id).where(*self._filters.plain_conditions())
        if not candidates.keys:
            return found.where(false())
        return candidates.restrict(found, self._filters)

    def _reaching_beyond(self, start: datetime, end: datetime) -> Select[UUID]:
        """The ids of traces that start in [start, end) and have a span that matches later."""
        later = exists().where(
            TraceSpan.trace_id == Trace.id,
            TraceSpan.start_time >= end,
            TraceSpan.start_time <= Trace.last_span_start,
            *self._conditions,
        )
        bounds = within(Trace.start_time, start, end)
        return select(Trace.id).where(*bounds, Trace.last_span_start >= end, later)

    def _are_few(self, conditions: Conditions) -> bool:
        some = select(literal(1)).select_from(TraceSpan).where(*conditions)
        limited = some.limit(_FEW_SPANS + 1).subquery()
        count = self._scalar(select(func.count()).select_from(limited))
        return bool(count <= _FEW_SPANS)


def _edge(possible: Select[Trace], walked: int, *, descending: bool) -> ColumnElement[datetime]:
    """Where so many of these traces end; the end of time where these are all."""
    starts = possible.with_only_columns(Trace.start_time).offset(walked).limit(1)
    furthest = literal("-infinity" if descending else "infinity", Text)
    return func.coalesce(
        starts.correlate(None).scalar_subquery(), cast(furthest, Trace.start_time.type)
    )


def _after(rows: Sequence[Trace], statement: Select[Trace], *, descending: bool) -> Select[Trace]:
    """The statement's rows that come after these, which are its first."""
    if not rows:
        return statement
    last = rows[-1]
    key, place = tuple_(Trace.start_time, Trace.id), tuple_(last.start_time, last.id)
    if descending:
        return statement.where(key < place, Trace.start_time <= last.start_time)
    return statement.where(key > place, Trace.start_time >= last.start_time)


def bare(filters: TraceFilters) -> ColumnElement[bool]:
    """The condition on a trace without spans."""
    conditions = filters.bare_conditions()
    return false() if conditions is None else and_(*conditions)
