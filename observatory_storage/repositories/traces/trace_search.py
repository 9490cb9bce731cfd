"""Which traces match: by whichever way is the shorter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Select,
    SelectBase,
    exists,
    false,
    func,
    literal,
    select,
    union_all,
)
from sqlalchemy.orm import Session

from observatory_storage.models import Trace, TraceSpan
from observatory_storage.repositories.reading.conditions import Conditions, asked, within
from observatory_storage.repositories.reading.counting import Total
from observatory_storage.repositories.reading.pages import Page, Turn
from observatory_storage.repositories.reading.reader import Repository
from observatory_storage.repositories.reading.time_slices import through_slices
from observatory_storage.repositories.traces import trace_statements as statements
from observatory_storage.repositories.traces.candidates import Candidates, Finder
from observatory_storage.repositories.traces.filters import TraceFilters
from observatory_storage.repositories.traces.span_conditions import SpanConditions, template
from observatory_storage.repositories.traces.trace_count import TraceCount
from observatory_storage.repositories.traces.trace_statements import TRACES

__all__ = ["TraceSearch"]

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
_LIKELY: Final = 150
_NEAR: Final = 900
_PROMISING: Final = 2
# Statements with conditions on more attributes than these are made anew each time.
_MOST_KEPT: Final = 4

_ALL: Final = select(Trace)


class TraceSearch(Repository):
    """One search: finds the traces of which a span matches."""

    def __init__(self, session: Session, filters: TraceFilters) -> None:
        super().__init__(session)
        self._filters = filters
        self._parameters = filters.parameters()
        self._conditions = SpanConditions(self._parameters)
        self._finder = Finder(session)

    def page(
        self, limit: int, after: str | None, before: str | None, total: Total | None = None
    ) -> Page[Trace]:
        """A page of the traces, the newest first."""
        return self._page_of(
            TRACES,
            _ALL,
            query=asked(self._filters),
            limit=limit,
            after=after,
            before=before,
            total=total,
            count=lambda kind: TraceCount(self._session).total(self._filters, kind),
            fetch=self._first if after is None and before is None else self._search,
        )

    def _first(self, turn: Turn) -> Sequence[Trace]:
        """As `_search`, for the first page: that of the newest spans, where an index has them."""
        if not self._filters.has_newest_spans():
            return self._search(turn)
        if self._filters.is_likely_common():
            walked = self._nearest(turn, _LIKELY)
            if len(walked) == turn.most:
                return walked
        newest = _SPANS_A_TRACE * turn.most
        while newest <= _FEW_SPANS:
            found = self._of_newest(turn, newest)
            if not found:  # perhaps none match, and nothing is sure
                break
            traces = [trace for trace, _ in found]
            if len(found) == turn.most or found[0][1] < newest:
                return self._with_bare(turn, traces)
            newest *= _SPANS_A_TRACE
        return self._search(turn)

    def _of_newest(self, turn: Turn, newest: int) -> list[tuple[Trace, int]]:
        statement = self._made(statements.of_newest, turn.way)
        return self._entities_with(statement, {**self._given(turn), "newest": newest})

    def _search(self, turn: Turn) -> Sequence[Trace]:
        """The rows that the turn comes to."""
        filters = self._filters
        if not self._parameters:
            return self._entities(statements.first(turn.way), turn.parameters)
        if filters.is_indexed() and self._are_few(self._conditions.all()):
            return self._of_spans(turn, self._all())
        if not filters.sought():
            return self._by_service(turn)
        walked = self._first_few(turn)
        if len(walked) == turn.most:
            return walked
        candidates = self._finder.few(filters, filters.start_time, filters.end_time)
        if candidates is not None:
            return self._of_spans(turn, self._among(candidates))
        return self._through_slices(turn)

    def _through_slices(self, turn: Turn) -> list[Trace]:
        """The same, slice by slice of the traces' own starts: many spans match in all."""

        def walk(start: datetime | None, end: datetime | None, room: int) -> list[Trace]:
            bounds = within(Trace.start_time, start, end)
            return self._walked(replace(turn, most=room), *bounds)

        def look_up(start: datetime, end: datetime, room: int) -> list[Trace] | None:
            candidates = self._finder.few(self._filters, start, end)
            if candidates is None:
                return None
            found = union_all(self._among(candidates), self._reaching_beyond(start, end))
            bounds = within(Trace.start_time, start, end)
            return self._of_spans(replace(turn, most=room), found, *bounds)

        begin, end = self._filters.start_time, self._filters.end_time
        bounds = within(Trace.start_time, begin, end)
        traces = turn.of(select(func.min(Trace.start_time), func.max(Trace.start_time)))
        oldest, newest = self._row(traces.where(*bounds).order_by(None).limit(None))
        steps: list[Callable[[int], list[Trace]]] = []
        if oldest is not None:
            down = turn.descending
            steps.append(lambda room: walk(newest, None, room))
            steps.append(
                lambda room: through_slices(oldest, newest, room, look_up, walk, descending=down)
            )
        if begin is not None:  # where the spans begin that may match: their trace may have before
            steps.append(lambda room: walk(None, begin, room))
        page: list[Trace] = []
        for step in steps if turn.descending else reversed(steps):
            if len(page) < turn.most:
                page += step(turn.most - len(page))
        return page

    def _first_few(self, turn: Turn) -> Sequence[Trace]:
        """The rows among the traces that come first: the page, if they fill it.

        Unless half as many match among a few of them as would fill it, no more are walked.
        """
        few, most = _WALKED if self._filters.text is None else _WALKED_FOR_WORDS
        rows = self._nearest(turn, few)
        if len(rows) == turn.most or 2 * len(rows) * most < turn.most * few:
            return rows
        return [*rows, *self._nearest(_after(turn, rows), most - few)]

    def _by_service(self, turn: Turn) -> Sequence[Trace]:
        """The rows by walking; by their spans where the service has few of these."""
        filters = self._filters
        # Slow traces are few, and their own rows tell them apart before their spans are looked at.
        if filters.service_name is None or filters.min_duration_us is not None:
            return self._walked(turn)
        # Of all traces: to look for so many that may match could be the whole walk.
        rows = self._nearest(turn, _NEAR, possible=False)
        if len(rows) == turn.most:
            return rows
        if len(rows) < _PROMISING and self._are_few(self._conditions.of_service()):
            return self._of_spans(turn, self._all())
        return [*rows, *self._walked(_after(turn, rows))]

    def _nearest(self, turn: Turn, walked: int, *, possible: bool = True) -> list[Trace]:
        """Those rows that are among so many traces that come first.

        Args:
            possible: whether only those count that may match by their own rows.
        """
        statement = self._made(statements.nearest, turn.way, possible=possible)
        return self._entities(statement, {**self._given(turn), "walked": walked})

    def _walked(self, turn: Turn, *bounds: ColumnElement[bool]) -> list[Trace]:
        """The rows within the bounds, by walking for as long as it takes."""
        statement = self._made(statements.matching, turn.way)
        return self._entities(statement.where(*bounds) if bounds else statement, self._given(turn))

    def _given(self, turn: Turn) -> dict[str, Any]:
        return {**self._parameters, **turn.parameters}

    def _made(self, make: Any, *how: Any, **options: Any) -> Any:
        """The statement, made once for all filters in which the same fields are given."""
        # Words say what the condition on them looks like; and statements are not kept however large
        # they are.
        if self._filters.text is not None or len(self._filters.attributes or ()) > _MOST_KEPT:
            return make.__wrapped__(self._conditions, *how, **options)
        return make(template(frozenset(self._parameters)), *how, **options)

    def _of_spans(self, turn: Turn, ids: SelectBase, *bounds: ColumnElement[bool]) -> list[Trace]:
        """The rows of these ids within the bounds, and of traces without spans."""
        # Materialized: the planner must not turn it into a search for each trace.
        found = ids.cte("found").prefix_with("MATERIALIZED")
        traces = turn.of(select(Trace)).where(*bounds)
        rows = self._entities(traces.where(Trace.id.in_(select(found.c[0]))))
        return self._with_bare(turn, rows, *bounds)

    def _with_bare(
        self, turn: Turn, rows: list[Trace], *bounds: ColumnElement[bool]
    ) -> list[Trace]:
        """The rows, and those of the traces without spans that belong among them."""
        if self._conditions.need_a_span():
            return rows
        alone = turn.of(select(Trace)).where(self._conditions.bare(), *bounds)
        if len(rows) == turn.most:  # no more are looked at than may be needed
            edge = rows[-1].start_time
            first = Trace.start_time >= edge if turn.descending else Trace.start_time <= edge
            alone = alone.where(first)
        rows += self._entities(alone)
        rows.sort(key=lambda row: (row.start_time, row.id), reverse=turn.descending)
        return rows[: turn.most]

    def _all(self) -> Select[UUID]:
        """The ids of the traces of all spans that match."""
        return select(TraceSpan.trace_id).where(*self._conditions.all())

    def _among(self, candidates: Candidates) -> Select[UUID]:
        """The ids of the traces of those candidates that match."""
        found = select(TraceSpan.trace_id).where(*self._conditions.plain())
        if not candidates.keys:
            return found.where(false())
        return candidates.restrict(found, self._filters)

    def _reaching_beyond(self, start: datetime, end: datetime) -> Select[UUID]:
        """The ids of traces that start in [start, end) and have a span that matches later."""
        later = exists().where(
            TraceSpan.trace_id == Trace.id,
            TraceSpan.start_time >= end,
            TraceSpan.start_time <= Trace.last_span_start,
            *self._conditions.all(),
        )
        bounds = within(Trace.start_time, start, end)
        return select(Trace.id).where(*bounds, Trace.last_span_start >= end, later)

    def _are_few(self, conditions: Conditions) -> bool:
        some = select(literal(1)).select_from(TraceSpan).where(*conditions)
        limited = some.limit(_FEW_SPANS + 1).subquery()
        count = self._scalar(select(func.count()).select_from(limited))
        return bool(count <= _FEW_SPANS)


def _after(turn: Turn, rows: Sequence[Trace]) -> Turn:
    """To the rows that follow these, which are the first of the turn."""
    if not rows:
        return turn
    key = (rows[-1].start_time, rows[-1].id)
    return replace(turn, key=key, most=turn.most - len(rows))
