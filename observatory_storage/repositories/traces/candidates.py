"""Finds the spans that meet one condition on JSON, if they are few.

Each place of the JSON (the span's columns, its events, its log records) is searched by itself. In a
closed partition an index finds the spans; an open partition is read completely. The result is a
list of keys. The next statement applies all conditions to these rows, because the planner does not
know how rare a value is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache, partial
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa

from observatory_storage.llm.log_facts import LOGGED_AFTER, LOGGED_BEFORE
from observatory_storage.models import LogRecord, TraceEvent, TraceSpan
from observatory_storage.repositories.reading.filter_fields import Conditions, within
from observatory_storage.repositories.reading.indexed_slices import Piece, in_pieces, pieces_of
from observatory_storage.repositories.reading.reader import Reader
from observatory_storage.repositories.traces import json_conditions
from observatory_storage.repositories.traces.framed_content import FramedContent, hours_of
from observatory_storage.repositories.traces.json_conditions import (
    ContentCondition,
    SpanKey,
    as_table,
)
from observatory_storage.repositories.traces.span_conditions import (
    NO_BOUNDS,
    Bounds,
    SpanConditions,
)

__all__ = [
    "CandidateFinder",
    "Candidates",
    "are_few",
    "limit_parameter",
    "spans_by_index",
]

# With more candidates, walking the spans in order meets enough of them soon.
_MOST: Final = 5_000

_OF_SPAN: Final = [getattr(TraceSpan, name) for name in SpanKey._fields]
_OF_EVENT: Final = [
    TraceEvent.trace_id,
    TraceEvent.span_id,
    TraceEvent.span_start_time.label("start_time"),
    TraceEvent.span_start_ns.label("start_ns"),
]
_LIMIT: Final = sa.bindparam("candidate_limit", type_=sa.BigInteger)
_SLICE_START: Final = sa.bindparam("slice_start", type_=TraceSpan.start_time.type)
_SLICE_END: Final = sa.bindparam("slice_end", type_=TraceSpan.start_time.type)


def limit_parameter() -> dict[str, int]:
    """The value of the bind parameter of `spans_by_index`."""
    return {_LIMIT.key: _MOST + 1}


def are_few(count: int) -> bool:
    """Whether all candidates have been found, if so many were."""
    return count <= _MOST


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
        conditions: those of the filters.
        parameters: the values of their bind parameters.
        framed: finds spans by payload frames.
        is_kept: whether the statements are cached for all filters with the same fields set.
    """

    def __init__(
        self,
        reader: Reader,
        conditions: SpanConditions,
        parameters: Mapping[str, Any],
        framed: FramedContent,
        *,
        is_kept: bool,
    ) -> None:
        self._reader = reader
        self._conditions = conditions
        self._parameters = parameters
        self._framed = framed
        self._make = _keys if is_kept else _keys.__wrapped__
        self._range = parameters.get("start_time"), parameters.get("end_time")

    def is_divided(self, start: datetime | None, end: datetime | None) -> bool:
        """Whether slices divide [start, end), so that it is searched in pieces."""
        ranges: list[tuple[Any, ...]] = [(TraceSpan, start, end), (TraceEvent, start, end)]
        json = self._conditions.json()
        if any(isinstance(one, ContentCondition) for one in json):
            ranges.append((LogRecord, *json_conditions.logged_between(start, end)))
        return any(len(pieces_of(self._reader, *one)) > 1 for one in ranges)

    def few(self, start: datetime | None, end: datetime | None) -> Candidates | None:
        """The candidates that start in [start, end); None if there are too many to list."""
        bounds = self._conditions.bounds()
        for number in range(len(self._conditions.json())):
            keys = self._few_of(number, *_overlap((start, end), self._range))
            if keys is not None:
                json = self._framed.resolved(self._conditions, hours_of(keys)).json()
                others = [*json[:number], *json[number + 1 :]]
                rest = [json_conditions.on_span_or_events(other, *bounds) for other in others]
                return Candidates(list(keys), rest)
        return None

    def _few_of(
        self, number: int, start: datetime | None, end: datetime | None
    ) -> set[SpanKey] | None:
        """The spans that meet a condition on JSON; None if there are too many to list."""
        json = self._conditions.json()[number]
        by_frames: list[SpanKey] | None = []
        if self._framed.is_any and isinstance(json, ContentCondition):
            by_frames = self._framed.few(json.name, start, end)
        if by_frames is None:
            return None
        times = {"slice_start": start, "slice_end": end}
        values = {
            **self._parameters,
            **{name: time for name, time in times.items() if time is not None},
            **json_conditions.logged_parameters(**times),
            **limit_parameter(),
        }
        make, divide = self._make, _undivided
        of_slice: Bounds = (start and _SLICE_START, end and _SLICE_END)
        if self.is_divided(start, end):
            make, divide = _keys.__wrapped__, partial(pieces_of, self._reader)
            of_slice = (start, end)
        statement = make(
            self._framed.inline(self._conditions),
            number,
            of_slice,
            divide,
            is_sharded=self._reader.is_sharded,
        )
        found = self._reader.rows(statement, values)
        keys = {*by_frames, *(SpanKey(*row) for row in found)}
        return keys if are_few(len(found)) and are_few(len(keys)) else None


def _overlap(one: Piece, other: Piece) -> Piece:
    """The times that lie in both ranges, of which each may lack a bound."""
    starts = [start for start, _ in (one, other) if start is not None]
    ends = [end for _, end in (one, other) if end is not None]
    return max(starts, default=None), min(ends, default=None)


def _undivided(_model: Any, start: Any, end: Any) -> Sequence[Piece]:
    return [(start, end)]


@lru_cache(maxsize=256)
def _keys(
    conditions: SpanConditions,
    number: int,
    of_slice: Bounds,
    divide: Callable[[Any, Any, Any], Sequence[Piece]],
    *,
    is_sharded: bool = False,
) -> Any:
    """The keys of the spans that meet a condition themselves, by an event or by a log record.

    Args:
        divide: divides a range of a model's rows into pieces.
    """
    json, bounds = conditions.json()[number], conditions.bounds()
    start = TraceEvent.span_start_time
    spans = sa.select(*_OF_SPAN).where(*conditions.plain(), json.on_span())
    events = sa.select(*_OF_EVENT).where(*within(start, *bounds), json.on_event())
    of_spans, of_events = (divide(model, *of_slice) for model in (TraceSpan, TraceEvent))
    found = [
        sa.select(_materialized("spans", in_pieces(spans, TraceSpan.start_time, of_spans))),
        sa.select(_materialized("events", in_pieces(events, start, of_events))),
    ]
    if isinstance(json, ContentCondition):
        of_span = [
            each for one in (of_slice, bounds) for each in within(TraceSpan.start_time, *one)
        ]
        of_logs = divide(LogRecord, *json_conditions.logged_between(*of_slice))
        times = json_conditions.logged_within(*bounds)
        found.append(_logged(json, times, of_span, of_logs, is_sharded=is_sharded))
    return sa.union_all(*found).limit(_LIMIT)


def spans_by_index(conditions: SpanConditions, further: Conditions) -> sa.Select[UUID]:
    """The traces of the spans that match, up to the bind parameter of `limit_parameter`.

    Args:
        conditions: have one condition on JSON.
        further: conditions on which each index is searched.
    """
    (json,), bounds = conditions.json(), conditions.bounds()
    own = [*conditions.plain(), json.on_span()]
    by_event = [*within(TraceEvent.span_start_time, *bounds), json.on_event()]
    spans = _materialized("spans", sa.select(*_OF_SPAN).where(*own))
    events = _materialized("events", sa.select(*_OF_EVENT).where(*by_event))
    same_key = [own == events.c[own.key] for own in _OF_SPAN]
    named = _each(sa.select(TraceSpan.trace_id).where(*same_key, *conditions.plain()))
    # Within the CTEs, which are evaluated when they are first read, they would rule out parallel
    # plans.
    found = [
        sa.select(spans.c.trace_id).where(*further),
        sa.select(named.c.trace_id).select_from(events.join(named, sa.true())).where(*further),
    ]
    if isinstance(json, ContentCondition):
        times = json_conditions.logged_within(*bounds)
        logged = _logged(json, times, conditions.plain()).where(*further).subquery("logged")
        found.append(sa.select(logged.c.trace_id))
    return sa.select(sa.union_all(*found).limit(_LIMIT).subquery("some").c.trace_id)


def _logged(
    json: ContentCondition,
    on_record: Conditions,
    on_span: Conditions,
    pieces: Sequence[Piece] = (NO_BOUNDS,),
    *,
    is_sharded: bool = False,
) -> sa.Select[Any]:
    """The keys of the spans that the log records name which meet the condition.

    Args:
        pieces: those of the records' range.
    """
    matching = sa.select(LogRecord.trace_id, LogRecord.span_id, LogRecord.timestamp).where(
        LogRecord.trace_id.is_not(None), LogRecord.span_id.is_not(None), *on_record, json.on_log()
    )
    records = _materialized("records", in_pieces(matching, LogRecord.timestamp, pieces))
    spans = sa.select(*_OF_SPAN).where(
        TraceSpan.trace_id == records.c.trace_id,
        TraceSpan.span_id == records.c.span_id,
        TraceSpan.start_time <= records.c.timestamp + LOGGED_BEFORE,
        TraceSpan.start_time > records.c.timestamp - LOGGED_AFTER,
        *on_span,
    )
    if is_sharded:  # the shards join the records with their spans
        return spans
    named = _each(spans)
    return sa.select(named).select_from(records.join(named, sa.true()))


def _materialized(
    name: str, statement: sa.Select[*tuple[Any, ...]] | sa.CompoundSelect[*tuple[Any, ...]]
) -> sa.CTE:
    """A CTE that is planned for all rows.

    To find only the first few rows, the planner would expect the value to be frequent and read the
    partition in order.
    """
    return statement.cte(name).prefix_with("MATERIALIZED")


def _each(statement: sa.Select[*tuple[Any, ...]]) -> Any:
    """Looks up spans one by one. The planner expects more, and would read all spans for a join."""
    return statement.offset(sa.literal_column("'0'")).lateral("named")
