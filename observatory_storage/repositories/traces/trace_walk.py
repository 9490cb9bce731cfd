"""Reads traces in order of time, and probes each for a matching span."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final

import sqlalchemy as sa

from observatory_storage.models import Trace, TraceSpan
from observatory_storage.repositories.reading.page_rates import PageRate
from observatory_storage.repositories.reading.pages import Seek, SeekShape
from observatory_storage.repositories.reading.reader import Reader
from observatory_storage.repositories.reading.time_slices import moment_after
from observatory_storage.repositories.traces import trace_statements as statements
from observatory_storage.repositories.traces.framed_content import FramedContent
from observatory_storage.repositories.traces.span_conditions import SpanConditions

__all__ = ["TraceWalk"]

# Where there are many partitions, this many traces for each row of the page are read first, unless
# the last page took fewer or more, and then so many before the rest is read by one statement.
_FIRST_TRACES: Final = 2
_NEXT_TRACES: Final = 900


@dataclass(frozen=True, slots=True)
class TraceWalk:
    """Finds the matching traces by reading traces in order.

    Attributes:
        conditions: the conditions on a span and on its trace.
        parameters: the values of their bind parameters.
        is_kept: whether the statements are cached for all filters with the same fields set.
        in_batches: read batches of traces first, because spans have many partitions. The first and
            the last span start of a batch are constants in the statement that probes it. So the
            planner leaves out other partitions.
        framed: decides about the spans of a batch that have payload frames, if there are such
            spans: then all is read in batches.
    """

    reader: Reader
    conditions: SpanConditions
    parameters: Mapping[str, Any]
    is_kept: bool
    in_batches: bool
    framed: FramedContent | None = None

    def nearest(self, seek: Seek, trace_limit: int, *, only_possible: bool = True) -> list[Trace]:
        """The rows among the first `trace_limit` traces.

        Args:
            only_possible: count only traces whose own rows do not exclude a match.
        """
        if self.in_batches:
            return self._batches(seek, trace_limit, only_possible=only_possible)[0]
        make = statements.matching_nearest
        statement = self.statement(make, seek.shape, only_possible=only_possible)
        return self.reader.entities(statement, {**self.values(seek), "trace_limit": trace_limit})

    def all(self, seek: Seek) -> list[Trace]:
        """The rows, found by reading the traces without a limit."""
        if not self.in_batches:
            return self.within(seek)
        most = _FIRST_TRACES * seek.row_limit + _NEXT_TRACES
        rows, rest = self._batches(seek, most, only_possible=True)
        return rows if rest is None else [*rows, *self.within(rest)]

    def within(self, seek: Seek, *bounds: sa.ColumnElement[bool]) -> list[Trace]:
        """The rows within the bounds, found by one statement if no span has a frame."""
        if self.framed is not None:
            return self._within_framed(self.framed, seek, *bounds)
        statement = self.statement(statements.matching, seek.shape)
        bounded = statement.where(*bounds) if bounds else statement
        return self.reader.entities(bounded, self.values(seek))

    def statement(self, make: Any, shape: SeekShape, **options: Any) -> Any:
        """The statement, which is cached for all filters with the same fields set."""
        make = make if self.is_kept else make.__wrapped__
        return make(self.conditions, shape, **options)

    def values(self, seek: Seek) -> dict[str, Any]:
        """The values of all bind parameters."""
        return {**self.parameters, **seek.parameters}

    def _batches(
        self, seek: Seek, most: int, *bounds: sa.ColumnElement[bool], only_possible: bool
    ) -> tuple[list[Trace], Seek | None]:
        """The rows among the first traces, and the seek that follows these; None if it is done."""
        rate = PageRate(self.reader, ("walked", frozenset(self.parameters), only_possible))
        rows: list[Trace] = []
        row_limit = seek.row_limit
        usual = _FIRST_TRACES * row_limit
        first = rate.expected(row_limit) or usual
        # If fewer are read first and do not fill the page, all that usually are follow.
        ends = sorted({min(end, most) for end in (first, max(first, usual), most)})
        for read, end in pairwise((0, *ends)):
            trace_limit = end - read
            make = statements.nearest
            nearest = self.statement(make, seek.shape, only_possible=only_possible)
            values = {**self.values(seek), "trace_limit": trace_limit}
            traces = self.reader.rows(nearest.where(*bounds) if bounds else nearest, values)
            if traces:
                after_starts = moment_after(max(trace.last_start for trace in traces))
                if after_starts is None:  # no bound can be after the last moment
                    return rows, seek
                of_batch = {
                    "ids": [trace.id for trace in traces],
                    "first_start": min(trace.start_time for trace in traces),
                    "after_starts": after_starts,
                }
                shape = SeekShape(seek.descending, from_key=False)
                statement = self._decided(of_batch).statement(statements.matching_of, shape)
                rows += self.reader.entities(statement, {**values, **of_batch})
            left = row_limit - len(rows)
            if not left:
                last = [trace.id for trace in traces].index(rows[-1].id)
                rate.note(read + last + 1, row_limit)
            if len(traces) < trace_limit or not left:
                return rows, None
            key = (traces[-1].start_time, traces[-1].id)
            seek = replace(seek, key=key, row_limit=left)
        return rows, seek

    def _within_framed(
        self, framed: FramedContent, seek: Seek, *bounds: sa.ColumnElement[bool]
    ) -> list[Trace]:
        rows: list[Trace] = []
        while True:
            found, rest = self._batches(seek, _NEXT_TRACES, *bounds, only_possible=True)
            rows += found
            if rest is None:
                return rows
            if rest == seek:  # spans of the next batch start at the last moment
                conditions = framed.resolved(self.conditions)
                return [
                    *rows,
                    *replace(self, conditions=conditions, framed=None).within(seek, *bounds),
                ]
            seek = rest

    def _decided(self, of_batch: Mapping[str, Any]) -> TraceWalk:
        """The walk for the traces of a batch, with what their frames decide."""
        if self.framed is None:
            return self
        hours = self.framed.of_spans(
            TraceSpan.trace_id == sa.func.any(sa.literal(of_batch["ids"], sa.ARRAY(Trace.id.type))),
            TraceSpan.start_time >= of_batch["first_start"],
            TraceSpan.start_time < of_batch["after_starts"],
        )
        return replace(self, conditions=self.framed.resolved(self.conditions, hours))
