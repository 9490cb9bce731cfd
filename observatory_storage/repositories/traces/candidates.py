"""Finds the spans that meet one condition on JSON, if they are few.

Each place of the JSON (the span's columns, its events, its log records) is searched by itself. In a
closed partition an index finds the spans; an open partition is read completely. The result is a
list of keys. The next statement applies all conditions to these rows, because the planner does not
know how rare a value is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from observatory_storage.llm.log_facts import LOGGED_AFTER, LOGGED_BEFORE
from observatory_storage.models import LogRecord, TraceEvent, TraceSpan
from observatory_storage.repositories.reading.filter_fields import within
from observatory_storage.repositories.reading.reader import Reader
from observatory_storage.repositories.traces import json_conditions
from observatory_storage.repositories.traces.filters import SpanFilters, TraceFilters
from observatory_storage.repositories.traces.framed_content import FramedContent, hours_of
from observatory_storage.repositories.traces.json_conditions import (
    ContentCondition,
    JsonCondition,
    SpanKey,
    as_table,
)

__all__ = ["CandidateFinder", "Candidates"]

# With more candidates, walking the spans in order meets enough of them soon.
_MOST: Final = 5_000


_OF_SPAN: Final = [getattr(TraceSpan, name) for name in SpanKey._fields]
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

    keys: Sequence[SpanKey]
    rest: Sequence[sa.ColumnElement[bool]]

    def restrict(self, statement: sa.Select[Any]) -> sa.Select[Any]:
        """The statement on `TraceSpan`, restricted to the candidates that match.

        Args:
            statement: has no condition on JSON.
        """
        wanted = as_table(self.keys)
        starts = [key.start_time for key in self.keys]
        same_key = sa.and_(*(own == wanted.c[own.key] for own in _OF_SPAN))
        return statement.join(wanted, same_key).where(
            TraceSpan.start_time >= min(starts), TraceSpan.start_time <= max(starts), *self.rest
        )


class CandidateFinder:
    """Finds the candidates of filters that have conditions on JSON.

    Args:
        framed: finds spans by payload frames.
    """

    def __init__(
        self, reader: Reader, filters: SpanFilters | TraceFilters, framed: FramedContent
    ) -> None:
        self._reader = reader
        self._filters = filters
        self._framed = framed
        self._range = filters.start_time, filters.end_time

    def few(self, start: datetime | None, end: datetime | None) -> Candidates | None:
        """The candidates that start in [start, end); None if there are too many to list."""
        conditions = self._filters.in_sql()
        for number, first in enumerate(conditions.json()):
            keys = self._few_of(first, start, end)
            if keys is not None:
                json = self._framed.resolved(conditions, hours_of(keys)).json()
                others = [*json[:number], *json[number + 1 :]]
                rest = [json_conditions.on_span_or_events(other, *self._range) for other in others]
                return Candidates(keys, rest)
        return None

    def _few_of(
        self, json: JsonCondition, start: datetime | None, end: datetime | None
    ) -> list[SpanKey] | None:
        by_frames: list[SpanKey] = []
        if isinstance(json, ContentCondition) and self._framed.is_any:
            few = self._framed.few(json, start, end)
            if few is None:
                return None
            by_frames, json = few, replace(json, framed=())
        found = self._reader.rows(self._keys(json, start, end).limit(_MOST + 1))
        keys = {*by_frames, *(SpanKey(*row) for row in found)}
        return list(keys) if len(found) <= _MOST and len(keys) <= _MOST else None

    def _keys(self, json: JsonCondition, start: datetime | None, end: datetime | None) -> Any:
        """The keys of the spans that meet the condition themselves, by an event or by a log record.

        The CTE is materialized, so that the planner plans for all rows. To find only the first few
        rows, it would expect the value to be frequent and read the partition in order.
        """
        spans = (
            sa.select(*_OF_SPAN)
            .where(
                *within(TraceSpan.start_time, start, end),
                *self._filters.in_sql().plain(),
                json.on_span(),
            )
            .cte("spans")
            .prefix_with("MATERIALIZED")
        )
        bounds = [
            *within(TraceEvent.span_start_time, start, end),
            *within(TraceEvent.span_start_time, *self._range),
        ]
        events = (
            sa.select(*_OF_EVENT)
            .where(*bounds, json.on_event())
            .cte("events")
            .prefix_with("MATERIALIZED")
        )
        found = [sa.select(spans), sa.select(events)]
        if isinstance(json, ContentCondition):
            found.append(self._logged(json, start, end))
        return sa.union_all(*found)

    def _logged(
        self, json: ContentCondition, start: datetime | None, end: datetime | None
    ) -> sa.Select[Any]:
        """The keys of the spans that the log records name which meet the condition."""
        records = (
            sa.select(LogRecord.trace_id, LogRecord.span_id, LogRecord.timestamp)
            .where(
                LogRecord.trace_id.is_not(None),
                LogRecord.span_id.is_not(None),
                *json_conditions.logged_within(start, end),
                *json_conditions.logged_within(*self._range),
                json.on_log(),
            )
            .cte("records")
            .prefix_with("MATERIALIZED")
        )
        named = (
            sa.select(*_OF_SPAN)
            .where(
                TraceSpan.trace_id == records.c.trace_id,
                TraceSpan.span_id == records.c.span_id,
                TraceSpan.start_time <= records.c.timestamp + LOGGED_BEFORE,
                TraceSpan.start_time > records.c.timestamp - LOGGED_AFTER,
                *within(TraceSpan.start_time, start, end),
                *within(TraceSpan.start_time, *self._range),
            )
            # Keeps the planner from reading all spans for a join, since it expects more records.
            .offset(sa.literal_column("'0'"))
            .lateral("named")
        )
        return sa.select(named).select_from(records.join(named, sa.true()))
