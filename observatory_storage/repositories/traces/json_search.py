"""Finds the traces that have a span which meets conditions on JSON: attributes, or text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

import sqlalchemy as sa

from observatory_storage.models import Trace, TraceSpan
from observatory_storage.repositories.reading.filter_fields import within
from observatory_storage.repositories.reading.pages import Seek
from observatory_storage.repositories.reading.time_slices import through_slices, until_full
from observatory_storage.repositories.traces import trace_statements as statements
from observatory_storage.repositories.traces.candidates import CandidateFinder, Candidates, are_few
from observatory_storage.repositories.traces.filters import TraceFilters
from observatory_storage.repositories.traces.found_traces import traces_of, with_spanless
from observatory_storage.repositories.traces.framed_content import FramedContent
from observatory_storage.repositories.traces.span_conditions import SpanConditions
from observatory_storage.repositories.traces.trace_walk import TraceWalk
from observatory_storage.repositories.traces.walk_or_index import WalkOrIndex

__all__ = ["JsonSearch", "ids_among"]


@dataclass(frozen=True, slots=True)
class JsonSearch:
    """The traces of a page, for filters that have conditions on JSON.

    A few traces are read in order, which fills the page if the value is frequent. If the value is
    rare, the indexes of closed partitions find all its spans. Otherwise the indexes are searched in
    slices of time.

    Attributes:
        walk: reads traces in order; has the conditions.
        finder: finds spans that meet a condition on JSON.
        framed: finds spans by payload frames.
        has_many_partitions: whether spans of the time range are in many partitions.
    """

    filters: TraceFilters
    walk: TraceWalk
    finder: CandidateFinder
    framed: FramedContent
    has_many_partitions: bool

    def rows(self, seek: Seek) -> Sequence[Trace]:
        bounds = self.filters.start_time, self.filters.end_time
        is_divided = self.has_many_partitions or self.finder.is_divided(*bounds)
        at_once = not (self.framed.is_any or is_divided)
        rows, count = WalkOrIndex(self.walk, self.filters, at_once=at_once).rows(seek)
        if count is not None:
            return rows if are_few(count) else self._through_slices(seek)
        if len(rows) == seek.row_limit:
            return rows
        candidates = self.finder.few(*bounds)
        if candidates is None:
            return self._through_slices(seek)
        if not candidates.keys:
            return with_spanless(self.walk, seek, [])
        return traces_of(self.walk, seek, ids_among(candidates, self.walk.conditions))

    def _through_slices(self, seek: Seek) -> list[Trace]:
        """The page, found in slices of the traces' starts, for a value that many spans have."""

        def walk(start: datetime | None, end: datetime | None, row_limit: int) -> list[Trace]:
            bounds = within(Trace.start_time, start, end)
            return self.walk.within(replace(seek, row_limit=row_limit), *bounds)

        def look_up(start: datetime, end: datetime, row_limit: int) -> list[Trace] | None:
            candidates = self.finder.few(start, end)
            if candidates is None:
                return None
            ids = sa.union_all(
                ids_among(candidates, self.walk.conditions), self._ids_reaching_beyond(start, end)
            )
            bounds = within(Trace.start_time, start, end)
            return traces_of(self.walk, replace(seek, row_limit=row_limit), ids, *bounds)

        begin, end = self.filters.start_time, self.filters.end_time
        bounds = within(Trace.start_time, begin, end)
        traces = seek.of(sa.select(sa.func.min(Trace.start_time), sa.func.max(Trace.start_time)))
        extremes = traces.where(*bounds).order_by(None).limit(None)
        oldest, newest = self.walk.reader.row(extremes, seek.parameters)
        steps: list[Callable[[int], list[Trace]]] = []
        if oldest is not None:
            steps.append(lambda row_limit: walk(newest, None, row_limit))
            steps.append(
                lambda row_limit: through_slices(
                    oldest, newest, row_limit, look_up, walk, descending=seek.descending
                )
            )
        if begin is not None:  # a trace may begin before the range in which its span matches
            steps.append(lambda row_limit: walk(None, begin, row_limit))
        return until_full(steps if seek.descending else reversed(steps), seek.row_limit)

    def _ids_reaching_beyond(self, start: datetime, end: datetime) -> sa.Select[UUID]:
        """The ids of traces that start in [start, end) and have a span that matches later."""
        conditions = self.walk.conditions
        if self.framed.is_any:
            reaching = [*within(Trace.start_time, start, end), Trace.last_span_start >= end]
            hours = self.framed.of_spans(
                TraceSpan.trace_id.in_(sa.select(Trace.id).where(*reaching)),
                TraceSpan.start_time >= end,
                *conditions.plain(),
            )
            conditions = self.framed.resolved(conditions, hours)
        return statements.reaching_beyond(conditions, start, end)


def ids_among(candidates: Candidates, conditions: SpanConditions) -> sa.Select[UUID]:
    """The ids of the traces of those candidates that meet the conditions."""
    found = sa.select(TraceSpan.trace_id).where(*conditions.plain())
    return candidates.restrict(found) if candidates.keys else found.where(sa.false())
