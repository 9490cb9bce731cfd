"""Deletes a batch of old traces in the server, where no rule has to look at each of them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

import sqlalchemy as sa

from observatory_storage.distribution import is_sharded
from observatory_storage.models import EXPIRED_PARTITIONS, PINNED_TRACES, Trace
from observatory_storage.storing.trace_locks import lock_rows

__all__ = ["Swept", "sweep"]


class Swept(NamedTuple):
    """A batch of traces that were walked through.

    Attributes:
        deleted: how many were deleted.
        pinned: how many were spared.
        start, id: the position of the last one.
    """

    deleted: int
    pinned: int
    start: datetime
    id: UUID


_LAST: Final = sa.func.coalesce(Trace.last_span_start, Trace.start_time)
_POSITION: Final = sa.tuple_(Trace.start_time, Trace.id)
_FOLLOWING: Final = sa.and_(
    Trace.start_time < sa.bindparam("cutoff"),
    sa.tuple_(sa.bindparam("start"), sa.bindparam("id")) < _POSITION,
)
_IN_BATCH: Final = sa.and_(
    _FOLLOWING,
    sa.tuple_(sa.bindparam("last_start"), sa.bindparam("last_id")) >= _POSITION,
    sa.bindparam("cutoff") > _LAST,
)
_IS_PINNED: Final = (
    sa.select(sa.literal(1)).where(PINNED_TRACES.c.trace_id == Trace.id).correlate(Trace).exists()
)


def _end_of_batch() -> sa.Select[Any]:
    # It asks for no more than the index of starts has. Not all of these traces go.
    walked = (
        sa.select(Trace.start_time, Trace.id)
        .where(_FOLLOWING)
        .order_by(Trace.start_time, Trace.id)
        .limit(sa.bindparam("size"))
        .subquery("walked")
    )
    return sa.select(walked).order_by(walked.c.start_time.desc(), walked.c.id.desc()).limit(1)


def _locking() -> sa.Select[Any]:
    # In the order of all writers.
    locked = sa.select(Trace.id).where(_IN_BATCH).order_by(Trace.id).with_for_update()
    return sa.select(sa.func.count()).select_from(locked.subquery("locked"))


# Where the tables have shards, rows are locked by their ids. In the order of all writers too.
_WANTED: Final = sa.select(Trace.id).where(_IN_BATCH)
_IDS: Final = sa.bindparam("ids", type_=sa.ARRAY(Trace.id.type))
_LOCK_WANTED: Final = (
    _WANTED.where(Trace.id == sa.func.any(_IDS)).order_by(Trace.id).with_for_update()
)


def _deleting() -> sa.Select[Any]:
    gone = (
        sa.delete(Trace)
        .where(_IN_BATCH, ~_IS_PINNED)
        .returning(Trace.start_time.label("first"), _LAST.label("last"))
        .cte("gone")
    )
    # A partition that had only spared rows is rewritten if some of them go.
    marks = EXPIRED_PARTITIONS.c
    overlapping = sa.select(gone.c.first).where(
        gone.c.first < marks.upper_bound, gone.c.last >= marks.lower_bound
    )
    forgotten = (
        sa.delete(EXPIRED_PARTITIONS)
        .where(
            marks.state == "kept",
            marks.upper_bound > sa.select(sa.func.min(gone.c.first)).scalar_subquery(),
            marks.lower_bound <= sa.select(sa.func.max(gone.c.last)).scalar_subquery(),
            overlapping.correlate(EXPIRED_PARTITIONS).exists(),
        )
        .returning(marks.partition_oid)
        .cte("forgotten")
    )
    return sa.select(sa.func.count()).select_from(gone).add_cte(forgotten)


_END: Final = _end_of_batch()
_LOCK: Final = _locking()
_DELETE: Final = _deleting()
_COUNT_PINNED: Final = (
    sa.select(sa.func.count())
    .select_from(PINNED_TRACES)
    .join(Trace, Trace.id == PINNED_TRACES.c.trace_id)
    .where(_IN_BATCH)
)


def sweep(
    connection: sa.Connection, cutoff: datetime, after: tuple[datetime, UUID], size: int
) -> Swept | None:
    """Delete the next traces whose last spans start before the cutoff, but for pinned ones.

    Returns None if there are no more traces.
    """
    # If the server fails, the deletion is repeated: no partition is dropped before it is on disk.
    connection.exec_driver_sql("SET LOCAL synchronous_commit = off")
    given = {"cutoff": cutoff, "start": after[0], "id": after[1], "size": size}
    end = connection.execute(_END, given).one_or_none()
    if end is None:
        return None
    batch = given | {"last_start": end.start_time, "last_id": end.id}
    if is_sharded(connection):
        ids = connection.scalars(_WANTED, batch).all()
        lock_rows(connection, _LOCK_WANTED, ids, **batch)
    else:
        connection.execute(_LOCK, batch)
    # Another statement, which sees the pins that were set while this one waited for locks.
    deleted = connection.scalar(_DELETE, batch) or 0
    pinned = connection.scalar(_COUNT_PINNED, batch) or 0
    return Swept(deleted, pinned, end.start_time, end.id)
