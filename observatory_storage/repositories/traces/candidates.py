"""Finds the spans that meet one condition on JSON, if they are few.

Each place of the JSON (the span's columns, its events, its log records) is searched by itself. In a
closed partition an index finds the spans; an open partition is read completely. The result is a
list of keys. The next statement applies all conditions to these rows, because the planner does not
know how rare a value is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import TypeEngine

from observatory_storage.llm.log_facts import LOGGED_AFTER, LOGGED_BEFORE
from observatory_storage.models import LogRecord, TraceEvent, TraceSpan
from observatory_storage.repositories.reading.filter_fields import within
from observatory_storage.repositories.reading.indexed_slices import in_pieces
from observatory_storage.repositories.reading.reader import Reader
from observatory_storage.repositories.traces import json_conditions
from observatory_storage.repositories.traces.filters import SpanFilters, TraceFilters

__all__ = ["CandidateFinder", "Candidates"]

# With more candidates, walking the spans in order meets enough of them soon.
_MOST: Final = 5_000


_Range = tuple[datetime | None, datetime | None]


class _Key(NamedTuple):
    trace_id: UUID
    span_id: str
    start_time: datetime
    start_ns: int


_TYPES: Final[Sequence[TypeEngine[Any]]] = (
    sa.Uuid(),
    sa.Text(),
    sa.DateTime(timezone=True),
    sa.SmallInteger(),
)
_OF_SPAN: Final = [getattr(TraceSpan, name) for name in _Key._fields]
_OF_EVENT: Final = [
    TraceEvent.trace_id,
    TraceEvent.span_id,
    TraceEvent.span_start_time.label("start_time"),
    TraceEvent.span_start_ns.label("start_ns"),
]


@dataclass(frozen=True, slots=True)
class Candidates:
    """Spans that meet one condition on JSON. Every span that matches the filters is among them.

    Attributes:
        rest: the other conditions on JSON, and the filters' time bounds.
    """

    keys: Sequence[_Key]
    rest: Sequence[sa.ColumnElement[bool]]

    def restrict(self, statement: sa.Select[Any]) -> sa.Select[Any]:
        """The statement on `TraceSpan`, restricted to the candidates that match.

        Args:
            statement: has no condition on JSON.
        """
        names = [sa.column(name, kind) for name, kind in zip(_Key._fields, _TYPES, strict=True)]
        arrays: list[sa.ColumnElement[Any]] = [
            sa.literal(list(values), ARRAY(kind))
            for values, kind in zip(zip(*self.keys, strict=True), _TYPES, strict=True)
        ]
        wanted = sa.func.unnest(*arrays).table_valued(*names).render_derived("wanted")
        starts = [key.start_time for key in self.keys]
        same_key = sa.and_(*(own == wanted.c[own.key] for own in _OF_SPAN))
        return statement.join(wanted, same_key).where(
            TraceSpan.start_time >= min(starts), TraceSpan.start_time <= max(starts), *self.rest
        )


class CandidateFinder:
    """Finds the candidates of filters that have conditions on JSON."""

    def __init__(self, reader: Reader, filters: SpanFilters | TraceFilters) -> None:
        self._reader = reader
        self._filters = filters
        self._range = filters.start_time, filters.end_time

    def few(self, start: datetime | None, end: datetime | None) -> Candidates | None:
        """The candidates that start in [start, end); None if there are too many to list."""
        json = self._filters.in_sql().json()
        for number, first in enumerate(json):
            found = self._reader.rows(self._keys(first, start, end).limit(_MOST + 1))
            if len(found) <= _MOST:
                others = [*json[:number], *json[number + 1 :]]
                rest = [json_conditions.on_span_or_events(other, *self._range) for other in others]
                return Candidates(list({_Key(*row) for row in found}), rest)
        return None

    def _keys(
        self, json: json_conditions.JsonCondition, start: datetime | None, end: datetime | None
    ) -> Any:
        """The keys of the spans that meet the condition themselves, by an event or by a log record.

        The CTE is materialized, so that the planner plans for all rows. To find only the first few
        rows, it would expect the value to be frequent and read the partition in order.
        """
        start, end = _overlap((start, end), self._range)
        on_span = [*self._filters.in_sql().plain(), json.on_span()]
        spans = self._found(_OF_SPAN, TraceSpan.start_time, start, end, on_span)
        events = self._found(_OF_EVENT, TraceEvent.span_start_time, start, end, [json.on_event()])
        found = [sa.select(spans), sa.select(events)]
        if isinstance(json, json_conditions.ContentCondition):
            found.append(self._logged(json, start, end))
        return sa.union_all(*found)

    def _logged(
        self, json: json_conditions.ContentCondition, start: datetime | None, end: datetime | None
    ) -> sa.Select[Any]:
        """The keys of the spans that the log records name which meet the condition."""
        of_log = [LogRecord.trace_id, LogRecord.span_id, LogRecord.timestamp]
        named_ones = [LogRecord.trace_id.is_not(None), LogRecord.span_id.is_not(None)]
        bounds = json_conditions.logged_between(start, end)
        records = self._found(of_log, LogRecord.timestamp, *bounds, [*named_ones, json.on_log()])
        named = (
            sa.select(*_OF_SPAN)
            .where(
                TraceSpan.trace_id == records.c.trace_id,
                TraceSpan.span_id == records.c.span_id,
                TraceSpan.start_time <= records.c.timestamp + LOGGED_BEFORE,
                TraceSpan.start_time > records.c.timestamp - LOGGED_AFTER,
                *within(TraceSpan.start_time, start, end),
            )
            # Keeps the planner from reading all spans for a join, since it expects more records.
            .offset(sa.literal_column("'0'"))
            .lateral("named")
        )
        return sa.select(named).select_from(records.join(named, sa.true()))

    def _found(
        self,
        columns: Sequence[Any],
        time: Any,
        start: datetime | None,
        end: datetime | None,
        conditions: Sequence[sa.ColumnElement[bool]],
    ) -> sa.CTE:
        """The columns of the rows of [start, end) that meet conditions, found before all else."""

        def of_piece(start: datetime | None, end: datetime | None) -> sa.Select[Any]:
            return sa.select(*columns).where(*within(time, start, end), *conditions)

        model = time.class_
        found = in_pieces(self._reader, model, start, end, of_piece)
        return found.cte(f"of_{model.__tablename__}").prefix_with("MATERIALIZED")


def _overlap(one: _Range, other: _Range) -> _Range:
    """The times that lie in both ranges, of which each may lack a bound."""
    starts = [start for start, _ in (one, other) if start is not None]
    ends = [end for _, end in (one, other) if end is not None]
    return max(starts, default=None), min(ends, default=None)
