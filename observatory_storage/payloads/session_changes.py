"""Removes values from payload frames whose rows a session changes or deletes."""

from __future__ import annotations

from typing import Final
from weakref import WeakKeyDictionary

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm.attributes import get_history

from observatory_storage.models import Trace, TraceEvent, TraceSpan
from observatory_storage.payloads.frame_keys import FrameKey, hour_of
from observatory_storage.payloads.pruning import prune_frames
from observatory_storage.tables import TABLES

_Owner = TraceSpan | TraceEvent
# From the time before the statement of a row to that after it.
_left: Final[WeakKeyDictionary[_Owner, FrameKey]] = WeakKeyDictionary()


@event.listens_for(TraceSpan, "before_update")
@event.listens_for(TraceEvent, "before_update")
def _find_frame_of_update(_mapper: object, connection: sa.Connection, row: _Owner) -> None:
    # Other rows have previews in their attributes, and go on referring to the frame.
    is_whole = vars(row).get("payload_frame", ...) is None
    if is_whole and get_history(row, "attributes").has_changes():
        _find_frame(connection, row)


@event.listens_for(TraceSpan, "before_delete")
@event.listens_for(TraceEvent, "before_delete")
def _find_frame_of_delete(_mapper: object, connection: sa.Connection, row: _Owner) -> None:
    _find_frame(connection, row)


def _find_frame(connection: sa.Connection, row: _Owner) -> None:
    table = TABLES[row.__tablename__]
    columns = table.table.c
    stored = sa.select(columns.payload_frame).where(
        *(columns[name] == getattr(row, name) for name in table.key)
    )
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
        _left[row] = FrameKey(row.trace_id, hour_of(start), frame)


@event.listens_for(TraceSpan, "after_update")
@event.listens_for(TraceEvent, "after_update")
@event.listens_for(TraceSpan, "after_delete")
@event.listens_for(TraceEvent, "after_delete")
def _prune(_mapper: object, connection: sa.Connection, row: _Owner) -> None:
    key = _left.pop(row, None)
    if key is not None:
        prune_frames(connection, [key])
