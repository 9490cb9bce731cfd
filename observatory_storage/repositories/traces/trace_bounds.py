"""When the first and the last span of a trace start: the bounds for looking up its spans."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import BindParameter, ColumnElement, bindparam, func, select

from observatory_storage import ids
from observatory_storage.models import Trace, TraceEvent, TraceSpan
from observatory_storage.repositories.reading.reader import Reader
from observatory_storage.repositories.reading.validation import TraceId

__all__ = [
    "Bounds",
    "events_of_trace",
    "located",
    "spans_of_trace",
    "start_bounds",
    "trace_name",
]

_START_BOUNDS: Final = select(
    Trace.start_time, func.coalesce(Trace.last_span_start, Trace.start_time), Trace.span_count
).where(Trace.id == bindparam("trace_id"))


class Bounds(NamedTuple):
    """The first and the last start of a trace's spans, and how many there are."""

    first: datetime
    last: datetime
    span_count: int = 0


def trace_name(trace_id: TraceId) -> object:
    """The id as the caller gave it, for an error message."""
    return trace_id.trace_id if isinstance(trace_id, Trace) else trace_id


def spans_of_trace(
    key: UUID | BindParameter[Any], bounds: tuple[Any, ...], span: type[TraceSpan] = TraceSpan
) -> list[ColumnElement[bool]]:
    """The conditions on the spans of a trace whose first and last span start are known."""
    first, last = bounds[:2]
    return [span.trace_id == key, span.start_time >= first, span.start_time <= last]


def events_of_trace(key: UUID, bounds: Bounds) -> list[ColumnElement[bool]]:
    """The conditions on the events of a trace, which are partitioned by their span's start."""
    start, (first, last) = TraceEvent.span_start_time, bounds[:2]
    return [TraceEvent.trace_id == key, start >= first, start <= last]


def start_bounds(reader: Reader, key: UUID) -> Bounds | None:
    """The first and the last start of a trace's spans; None if there is no such trace.

    They are passed as constants, so that the planner prunes all other partitions.
    """
    rows = reader.rows(_START_BOUNDS, {"trace_id": key})
    return Bounds(*rows[0]) if rows else None


def located(reader: Reader, key: UUID) -> tuple[UUID, Bounds | None]:
    """The id of the stored trace, and its `start_bounds`.

    An earlier version gave other ids to traces of 64 bits.
    """
    bounds = start_bounds(reader, key)
    former = ids.former_trace_uuid(key) if bounds is None else None
    if former is not None and (bounds := start_bounds(reader, former)) is not None:
        return former, bounds
    return key, bounds
