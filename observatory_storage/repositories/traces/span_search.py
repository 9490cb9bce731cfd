"""Searches spans in order of time by conditions on JSON.

The newest spans are read first, which fills the page if the value is frequent. The rest of the
range is searched in slices of time; see `time_slices`.

Where spans have payload frames, the spans of a part are read in batches: of each batch, the frames
decide first (see `framed_content`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import Select, func, select
from sqlalchemy.orm.interfaces import ORMOption

from observatory_storage.models import TraceSpan
from observatory_storage.payloads.word_blocks import HourKey
from observatory_storage.repositories.reading.filter_fields import within
from observatory_storage.repositories.reading.pages import Keyset, Seek, Total
from observatory_storage.repositories.reading.reader import Reader
from observatory_storage.repositories.reading.time_slices import (
    moment_after,
    through_slices,
    until_full,
)
from observatory_storage.repositories.traces.candidates import CandidateFinder
from observatory_storage.repositories.traces.filters import SpanFilters
from observatory_storage.repositories.traces.framed_content import FramedContent, hours_of
from observatory_storage.repositories.traces.json_conditions import on_span_or_events

__all__ = ["SpanSearch"]

# This many spans are read in order first; fewer for words, since prompts may have to be parsed.
_WALKED: Final = 3_000
_WALKED_FOR_WORDS: Final = 500
# The spans of the first batch whose frames are read, and the most of a later one.
_BATCH: Final = 200
_LARGEST_BATCH: Final = 3_000


class SpanSearch:
    """The spans that match filters with conditions on JSON: a `pages.Search`.

    Args:
        options: the loader options of the spans.
    """

    def __init__(
        self, reader: Reader, keyset: Keyset, filters: SpanFilters, options: Sequence[ORMOption]
    ) -> None:
        self.keyset = keyset
        self._reader = reader
        self._filters = filters
        self.query: Mapping[str, object] = filters.query()
        self._conditions = filters.in_sql()
        self._matching = select(TraceSpan).where(*self._conditions.plain()).options(*options)

    def count(self, kind: Total) -> int:
        conditions = self._conditions
        if kind == "exact":
            conditions = FramedContent(self._reader.session, self._filters).resolved(conditions)
        return self._reader.count(select(TraceSpan).where(*conditions.all()), kind)

    def rows(self, seek: Seek) -> list[TraceSpan]:
        """The spans of a page: the newest are read in order, the rest is searched in slices."""
        start, end = self._filters.start_time, self._filters.end_time
        if seek.key is not None:
            moment: datetime = seek.key[0]
            start, end = (start, moment_after(moment)) if seek.descending else (moment, end)
        statement, descending = seek.of(self._matching), seek.descending
        framed = FramedContent(self._reader.session, self._filters)
        finder = CandidateFinder(
            self._reader, self._conditions, self._filters.parameters(), framed, is_kept=False
        )

        def entities(found: Select[TraceSpan], row_limit: int) -> list[TraceSpan]:
            values = {**seek.parameters, "row_limit": row_limit}
            return self._reader.entities(found, values)

        def walk(start: datetime | None, end: datetime | None, row_limit: int) -> list[TraceSpan]:
            # No index serves an OR with events: read the spans in order, and check the JSON of
            # each.
            rows: list[TraceSpan] = []
            for low, high, hours in self._batches(framed, start, end, descending=descending):
                conditions = framed.resolved(self._conditions, hours)
                json = (on_span_or_events(one, low, high) for one in conditions.json())
                bounds = within(TraceSpan.start_time, low, high)
                rows += entities(statement.where(*bounds, *json), row_limit - len(rows))
                if len(rows) == row_limit:
                    break
            return rows

        def look_up(start: datetime, end: datetime, row_limit: int) -> list[TraceSpan] | None:
            candidates = finder.few(start, end)
            if candidates is None or not candidates.keys:
                return None if candidates is None else []
            return entities(candidates.restrict(statement), row_limit)

        edge = self._edge(start, end, descending=descending)
        if edge is None:
            return walk(start, end, seek.row_limit)
        begins, ends = (edge, end) if descending else (start, edge)
        found = walk(begins, ends, seek.row_limit)
        left = seek.row_limit - len(found)
        if not left:
            return found
        begins, ends = (start, edge) if descending else (edge, end)
        time = TraceSpan.start_time
        extremes = select(func.min(time), func.max(time)).where(*within(time, begins, ends))
        first, last = self._reader.row(extremes)
        if first is None:
            return found
        steps: list[Callable[[int], list[TraceSpan]]] = [
            lambda row_limit: walk(last, ends, row_limit),
            lambda row_limit: through_slices(
                first, last, row_limit, look_up, walk, descending=descending
            ),
        ]
        return found + until_full(steps if descending else reversed(steps), left)

    def _batches(
        self,
        framed: FramedContent,
        start: datetime | None,
        end: datetime | None,
        *,
        descending: bool,
    ) -> Iterator[tuple[datetime | None, datetime | None, Collection[HourKey] | None]]:
        """The parts of a range, in order, each with the hours of traces of its spans.

        If few frames have to be read at all, the whole range is one part.
        """
        if not framed.is_any or framed.is_rare():
            yield start, end, None
            return
        time, size = TraceSpan.start_time, _BATCH
        order = time.desc() if descending else time.asc()
        spans = select(TraceSpan.trace_id, time).where(*self._conditions.plain()).order_by(order)
        while True:
            # Spans of one start belong to one batch.
            batch = spans.where(*within(time, start, end)).fetch(size, with_ties=True)
            rows = self._reader.rows(batch)
            edge = rows[-1].start_time if len(rows) >= size else None
            if edge is None:
                yield start, end, hours_of(rows)
                return
            low, high = (edge, end) if descending else (start, moment_after(edge))
            yield low, high, hours_of(rows)
            start, end = (start, low) if descending else (high, end)
            size = min(2 * size, _LARGEST_BATCH)

    def _edge(
        self, start: datetime | None, end: datetime | None, *, descending: bool
    ) -> datetime | None:
        """The end of the part that is read in order; None if this part is the whole range."""
        time = TraceSpan.start_time
        statement = select(time).where(*within(time, start, end))
        statement = statement.order_by(time.desc() if descending else time.asc())
        walked = _WALKED_FOR_WORDS if self._filters.searches_content() else _WALKED
        edge: datetime | None = self._reader.scalar(statement.offset(walked).limit(1))
        if edge is None or descending:
            return edge
        return moment_after(edge)
