"""Removes values from payload frames whose rows a session changes or deletes."""

from __future__ import annotations

from typing import Final
from weakref import WeakKeyDictionary

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm.attributes import get_history

from observatory_storage.models import LogRecord, Trace, TraceEvent, TraceSpan
from observatory_storage.payloads.frame_keys import FrameKey
from observatory_storage.payloads.frame_sets import OF_LOGS, OF_SPANS
from observatory_storage.payloads.pruning import prune_frames
from observatory_storage.tables import TABLES

_Owner = TraceSpan | TraceEvent | LogRecord
# From the time before the statement of a row to that after it.
_left: Final[WeakKeyDictionary[_Owner, FrameKey]] = WeakKeyDictionary()


@event.listens_for(TraceSpan, "before_update")
@event.listens_for(TraceEvent, "before_update")
@event.listens_for(LogRecord, "before_update")
def _find_frame_of_update(_mapper: object, connection: sa.Connection, row: _Owner) -> None:
    # Other rows have previews in their attributes, and go on referring to the frame.
    is_whole = vars(row).get("payload_frame", ...) is None
    changing = ["attributes"]
    if isinstance(row, LogRecord):
        is_whole = is_whole and "body_json" in vars(row)
        changing += ("body_json", "trace_id")
    if is_whole and any(get_history(row, name).has_changes() for name in changing):
        _find_frame(connection, row)


@event.listens_for(TraceSpan, "before_delete")
@event.listens_for(TraceEvent, "before_delete")
@event.listens_for(LogRecord, "before_delete")
def _find_frame_of_delete(_mapper: object, connection: sa.Connection, row: _Owner) -> None:
    _find_frame(connection, row)


def _find_frame(connection: sa.Connection, row: _Owner) -> None:
    table = TABLES[row.__tablename__]
    columns = table.table.c
    stored = sa.select(columns.payload_frame, columns.trace_id).where(
        *(columns[name] == getattr(row, name) for name in table.key)
    )
    if isinstance(row, LogRecord):
        # The row is locked, so that no values of it move until the session has ended.
        found = connection.execute(stored.with_for_update()).one_or_none()
        if found is not None and found.payload_frame is not None:
            _left[row] = OF_LOGS.key(found.trace_id, row.timestamp, found.payload_frame)
        return
    # A row without a frame is locked, so that no values of it move until the session has ended.
    inline = stored.with_only_columns(sa.true()).where(columns.payload_frame.is_(None))
    if connection.scalar(inline.with_for_update()):
        return
    # Who changes frames has locked the trace. Maintenance may have moved the values until then.
    trace = sa.select(Trace.id).where(Trace.id == row.trace_id).with_for_update()
    connection.execute(trace)
    frame = connection.scalar(stored)
    if frame is not None:
        start = row.start_time if isinstance(row, TraceSpan) else row.span_start_time
        _left[row] = OF_SPANS.key(row.trace_id, start, frame)


@event.listens_for(TraceSpan, "after_update")
@event.listens_for(TraceEvent, "after_update")
@event.listens_for(LogRecord, "after_update")
@event.listens_for(TraceSpan, "after_delete")
@event.listens_for(TraceEvent, "after_delete")
@event.listens_for(LogRecord, "after_delete")
def _prune(_mapper: object, connection: sa.Connection, row: _Owner) -> None:
    key = _left.pop(row, None)
    if key is not None:
        prune_frames(connection, [key], OF_LOGS if isinstance(row, LogRecord) else OF_SPANS)
