"""Deletion of a trace, a user or a session from every table but the index of words.

Maintenance removes the words of what was deleted from that index (`lifecycle.payload_index`),
because a segment has the words of many traces and is rewritten as a whole.

A deletion first locks the rows of the traces in the order of their ids, as writers do. A writer
with spans of these traces therefore waits until the deletion is committed. Its spans then create
the trace again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import partial
from itertools import islice
from typing import Any, Final, Literal, cast
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, Insert, insert
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.schema import CreateTable, DropTable

from observatory_storage.changed_spans import marking
from observatory_storage.commits import Change, Commit, tell_with_session
from observatory_storage.errors import NotFound, ValidationError
from observatory_storage.llm import aliases_of
from observatory_storage.llm.aliases import holding
from observatory_storage.models import (
    PINNED_TRACES,
    ErrorRollupDay,
    ErrorRollupHour,
    LogRecord,
    MetricDataPoint,
    PayloadFrame,
    SessionRollupDay,
    SessionRollupHour,
    Trace,
    TraceEvent,
    TraceSpan,
    UserRollupDay,
    UserRollupHour,
)
from observatory_storage.payloads import OF_LOGS, deleting_frames, hour_of, prune_frames
from observatory_storage.repositories.metrics.exemplars import without_exemplars
from observatory_storage.repositories.reading import validation
from observatory_storage.repositories.reading.reader import Reader
from observatory_storage.repositories.traces.results import DeletedRows, DeletedTrace
from observatory_storage.repositories.traces.shared_calls import mark_sharing_calls
from observatory_storage.repositories.traces.trace_bounds import (
    events_of_trace,
    spans_of_trace,
    start_bounds,
)
from observatory_storage.tables import DATA_POINTS, LOGS, SPANS

__all__ = ["delete_all_of", "delete_trace"]

_TRACES_AT_A_TIME: Final = 500


# The traces that are being deleted, and the bounds of their spans' starts.
_DELETED: Final = sa.Table(
    "deleted_traces",
    sa.MetaData(),
    sa.Column("trace_id", Trace.id.type, primary_key=True),
    sa.Column("first_start", Trace.start_time.type),
    sa.Column("last_start", Trace.start_time.type),
    sa.Column("hex", sa.Text(collation="C"), unique=True),
    schema="pg_temp",
    prefixes=["TEMPORARY"],
    postgresql_on_commit="DROP",
)
# Where spans are left, they are computed anew; where spans have expired, nobody else would remove
# the user or session.
_OF_SESSIONS: Final[list[tuple[Any, Any]]] = [
    (SessionRollupHour, SessionRollupDay),
    (ErrorRollupHour, ErrorRollupDay),
]
_PERSONAL_ROLLUPS: Final[dict[str, list[tuple[Any, Any]]]] = {
    "user_id": [(UserRollupHour, UserRollupDay), *_OF_SESSIONS],
    "session_id": _OF_SESSIONS,
}
_Batch = tuple[list[UUID], datetime, datetime]


def delete_trace(reader: Reader, key: UUID, name: object) -> DeletedTrace:
    """Delete a trace with its spans, their events, and the log records that name it.

    Args:
        name: the id as the caller gave it, for the error.

    Raises:
        NotFound: no row belongs to such a trace.
    """
    one = sa.select(
        sa.literal(key, Trace.id.type), sa.literal(key.hex), sa.func.now(), sa.func.now()
    )
    is_made = reader.change(_locking(one))
    mark_sharing_calls(reader, sa.select(sa.literal(key, Trace.id.type)))
    bounds = None if is_made else start_bounds(reader, key)
    # A trace without a row may have log records, and spans that no writer has written.
    spans = spans_of_trace(key, bounds) if bounds else [TraceSpan.trace_id == key]
    events = events_of_trace(key, bounds) if bounds else [TraceEvent.trace_id == key]
    within = [_has_frame_between(bounds.first, bounds.last)] if bounds else []
    reader.run(deleting_frames(PayloadFrame.trace_id == key, *within))
    deleted = DeletedTrace(
        events=reader.change(sa.delete(TraceEvent).where(*events)),
        spans=_delete_spans(reader, *spans),
        logs=_delete_logs(reader, LogRecord.trace_id == key),
    )
    reader.change(sa.delete(Trace).where(Trace.id == key))
    reader.change(sa.delete(PINNED_TRACES).where(PINNED_TRACES.c.trace_id == key))
    if bounds is None and not (deleted.spans or deleted.events or deleted.logs):
        raise NotFound(f"there is no trace {name}")
    first, last = (bounds.first, bounds.last) if bounds else (None, None)
    _tell(reader, Change(SPANS.name, first, last, [key]), Change(LOGS.name))
    return deleted


def delete_all_of(
    reader: Reader, column: Literal["user_id", "session_id"], value: str
) -> DeletedRows:
    """Delete a user or a session; see `TraceRepository.delete_user`.

    Raises:
        ValidationError: the id is empty or not text.
    """
    wanted = validation.required_text(column, value)
    if not wanted:
        raise ValidationError(column, value, "must not be empty")
    pairs = [holding(alias, wanted) for alias in aliases_of(column)]
    reader.run(CreateTable(_DELETED))
    reader.run(_noting_traces_of_spans(getattr(TraceSpan, column) == wanted))
    reader.run(_noting_traces(_naming(Trace.attributes, pairs)))
    traces = -reader.change(_LOCKING)
    reader.run(_WIDENING)
    mark_sharing_calls(reader, sa.select(_DELETED.c.trace_id))
    spans = events = logs = 0
    deleted: list[UUID] = []
    for trace_ids, first, last in _batches(reader):
        deleted += trace_ids
        these = sa.literal(trace_ids, ARRAY(Trace.id.type))
        start = TraceEvent.span_start_time.between(first, last)
        events += reader.change(
            sa.delete(TraceEvent).where(TraceEvent.trace_id == sa.func.any(these), start)
        )
        of_traces = PayloadFrame.trace_id == sa.func.any(these)
        reader.run(deleting_frames(of_traces, _has_frame_between(first, last)))
        start = TraceSpan.start_time.between(first, last)
        spans += _delete_spans(reader, TraceSpan.trace_id == sa.func.any(these), start)
        # Log records of a trace may be earlier or later than its spans.
        logs += _delete_logs(reader, LogRecord.trace_id == sa.func.any(these))
        traces += reader.change(sa.delete(Trace).where(Trace.id == sa.func.any(these)))
        pins = sa.delete(PINNED_TRACES).where(PINNED_TRACES.c.trace_id == sa.func.any(these))
        reader.change(pins)
    logs += _delete_logs(reader, _naming(LogRecord.attributes, pairs))
    points = sa.delete(MetricDataPoint).where(_naming(MetricDataPoint.attributes, pairs))
    data_points = reader.change(points)
    redacted = reader.change(without_exemplars(partial(_is_one_of, reader, deleted), pairs))
    reader.run(DropTable(_DELETED))
    for hours, days in _PERSONAL_ROLLUPS[column]:
        # A refresh may be computing the days from these hours: they are computed again.
        deleting = sa.delete(hours).where(getattr(hours, column) == wanted)
        reader.scalar(marking(deleting, hours.bucket, level=2))
        reader.change(sa.delete(days).where(getattr(days, column) == wanted))
    _tell(reader, Change(SPANS.name, traces=deleted), Change(LOGS.name), Change(DATA_POINTS.name))
    return DeletedRows(
        traces=traces,
        spans=spans,
        events=events,
        logs=logs,
        data_points=data_points,
        redacted_data_points=redacted,
    )


def _is_one_of(
    reader: Reader, deleted: Sequence[UUID], trace_id: sa.ColumnElement[str]
) -> sa.ColumnElement[bool]:
    """Whether a trace, by its id in hex, is one of those that are deleted."""
    if reader.is_sharded:  # the shards do not have the temporary table
        listed = [key.hex for key in deleted]
        return trace_id == sa.any_(sa.literal(listed, ARRAY(sa.Text)))
    return sa.select(sa.literal(1)).where(_DELETED.c.hex == trace_id).exists()


def _tell(reader: Reader, *changes: Change) -> None:
    tell_with_session(reader.session, Commit(changes=changes))


def _delete_spans(reader: Reader, *conditions: sa.ColumnElement[bool]) -> int:
    """Delete spans, and mark their times for the rollups; return how many there were."""
    deleted = sa.delete(TraceSpan).where(*conditions)
    return int(reader.scalar(marking(deleted, TraceSpan.start_time)))


def _delete_logs(reader: Reader, *conditions: sa.ColumnElement[bool]) -> int:
    """Delete log records with their values in frames; return how many there were."""
    deleted = sa.delete(LogRecord).where(*conditions)
    columns = (LogRecord.trace_id, LogRecord.timestamp, LogRecord.payload_frame)
    gone = deleted.returning(*columns).cte("gone")
    is_framed = gone.c.payload_frame.is_not(None)
    # Not in RETURNING, where Citus takes no function that may depend on settings.
    hour = sa.func.date_trunc("hour", gone.c.timestamp, "UTC")
    key = (gone.c.trace_id, hour, gone.c.payload_frame)
    frame = (sa.case((is_framed, column)) for column in key)
    counted = sa.select(sa.func.count(), *frame).group_by(sa.text("2, 3, 4"))
    count = 0
    frames = []
    for rows, trace_id, start, frame_id in reader.rows(counted):
        count += rows
        if frame_id is not None:
            frames.append(OF_LOGS.key(trace_id, start, frame_id))
    prune_frames(reader.session.connection(), frames, OF_LOGS)
    return count


def _has_frame_between(first: datetime, last: datetime) -> sa.ColumnElement[bool]:
    """Whether spans that start in these times may have a frame."""
    return PayloadFrame.start_time.between(hour_of(first), last)


def _batches(reader: Reader) -> Iterator[_Batch]:
    """The recorded traces in batches, with the range of their spans' starts."""
    # Ordered by time, so that the spans of a batch are in few partitions.
    ordered = sa.select(_DELETED.c.trace_id, _DELETED.c.first_start, _DELETED.c.last_start)
    rows = reader.stream(ordered.order_by(_DELETED.c.first_start, _DELETED.c.trace_id))
    while batch := list(islice(rows, _TRACES_AT_A_TIME)):
        last = max(row.last_start for row in batch)
        yield [row.trace_id for row in batch], batch[0].first_start, last


def _noting_traces_of_spans(condition: sa.ColumnElement[bool]) -> Any:
    found = (
        sa.select(
            TraceSpan.trace_id,
            sa.func.min(TraceSpan.start_time),
            sa.func.max(TraceSpan.start_time),
            _hex(TraceSpan.trace_id),
        )
        .where(condition)
        .group_by(TraceSpan.trace_id)
    )
    return insert(_DELETED).from_select(list(_DELETED.c), found)


def _noting_traces(condition: sa.ColumnElement[bool]) -> Any:
    found = sa.select(Trace.id, Trace.start_time, Trace.start_time, _hex(Trace.id)).where(condition)
    return insert(_DELETED).from_select(list(_DELETED.c), found).on_conflict_do_nothing()


def _locking(traces: sa.Select[Any, Any, Any, Any]) -> Insert:
    """Lock the rows of traces in the order of their ids, and insert those that are missing.

    A trace without a row cannot be locked, and a writer may be inserting it at this moment. The
    inserted row makes this writer wait. It is deleted before the transaction ends.
    """
    table = cast(sa.Table, Trace.__table__)
    id_, *others = traces.subquery("given").c
    columns = ["id", "trace_id", "start_time", "last_span_start", "service_name"]
    rows = sa.select(id_, *others, sa.literal("")).order_by(id_)
    return (
        insert(table)
        .from_select(columns, rows)
        .on_conflict_do_update(
            index_elements=["id"], set_={"updated_at": table.c.updated_at}, where=sa.false()
        )
    )


_LOCKING: Final = _locking(
    sa.select(_DELETED.c.trace_id, _DELETED.c.hex, _DELETED.c.first_start, _DELETED.c.last_start)
)
# Once the traces are locked, their rows bound the starts of their spans.
_WIDENING: Final = (
    sa.update(_DELETED)
    .where(_DELETED.c.trace_id == Trace.id)
    .values(
        first_start=sa.func.least(_DELETED.c.first_start, Trace.start_time),
        last_start=sa.func.greatest(_DELETED.c.last_start, Trace.last_span_start),
    )
)


def _hex(trace_id: InstrumentedAttribute[UUID]) -> sa.ColumnElement[str]:
    return sa.func.replace(sa.cast(trace_id, sa.Text), "-", "")


def _naming(
    attributes: InstrumentedAttribute[dict[str, Any]], pairs: Sequence[dict[str, str]]
) -> sa.ColumnElement[bool]:
    # Of traces, log records and data points, which have such values in their rows.
    return sa.or_(*(attributes.contains(pair) for pair in pairs))
