"""Statements on stored payload frames: read them, insert them, and remove what no row refers to.

A frame is found by the id of its trace, the hour in UTC in which its spans start, and its own id.
Maintenance packs frames of one trace and hour into one: this keeps the ids of the others, since
rows go on naming them. So no row has to be written for it, and a row that was read before finds its
values afterwards. Whoever changes or deletes frames of spans has locked the row of their trace
before. Log records may have no such row: there, the frame itself is locked (see `lock_frames`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any, Final, NamedTuple, cast

import sqlalchemy as sa
from sqlalchemy.orm import Session

from observatory_storage.distribution import ids_by_shard, is_sharded
from observatory_storage.models import PayloadUnindexed
from observatory_storage.payloads.frame import DamagedFrame, Frame, Member, Owner, pack, unpack
from observatory_storage.payloads.frame_keys import HOUR, FrameKey
from observatory_storage.payloads.frame_sets import OF_SPANS, FrameSet
from observatory_storage.payloads.word_blocks import HourKey
from observatory_storage.times import MICROSECOND

__all__ = [
    "Reference",
    "StoredFrame",
    "deleting_frames",
    "frame_row",
    "insert_frames",
    "is_one_of",
    "lock_frames",
    "note_changed",
    "opened",
    "read_frames",
    "references_to",
]

_log = logging.getLogger(__name__)
_UNINDEXED: Final = cast(sa.Table, PayloadUnindexed.__table__)
_KEY: Final = ("trace_id", "start_time", "id")
_NOTED: Final = ("trace_id", "start_time", "lost_values")
_ATTEMPTS: Final = 3


class Reference(NamedTuple):
    """A row that refers to a frame.

    Attributes:
        key: the frame.
        owner: the row.
        digests: the digests of its values in the frame, by the keys of the attributes.
    """

    key: FrameKey
    owner: Owner
    digests: Mapping[str, str]


class StoredFrame(NamedTuple):
    """A frame as it is stored.

    Attributes:
        key: its own key.
        packed_ids: the ids of frames that were packed into it; None if it was never packed.
        created_at: when it was written.
        data: its data.
    """

    key: FrameKey
    packed_ids: Sequence[int] | None
    created_at: datetime
    data: bytes

    def names(self) -> list[FrameKey]:
        """The keys by which rows refer to it: its own, and those that were packed into it."""
        return [self.key, *(self.key._replace(id=other) for other in self.packed_ids or ())]


def frame_row(
    key: FrameKey, members: Iterable[Member], pack: Callable[[Iterable[Member]], bytes] = pack
) -> dict[str, Any]:
    """The row of a frame with these members, by the names of its columns.

    Args:
        key: its key.
        members: the rows with their values.
        pack: makes the data.

    Raises:
        ConfigError: Zstandard is not installed.
    """
    listed = list(members)
    size = sum(len(value) for member in listed for value in member.values.values())
    return {**key._asdict(), "value_bytes": size, "data": pack(listed)}


def insert_frames(
    connection: sa.Connection,
    frames: Mapping[FrameKey, Iterable[Member]],
    of: FrameSet = OF_SPANS,
) -> None:
    """Insert frames, in the order of their keys. Their partitions are there.

    Raises:
        ConfigError: Zstandard is not installed.
    """
    if frames:
        rows = [frame_row(key, frames[key]) for key in sorted(frames)]
        connection.execute(sa.insert(of.table), rows)
        note_changed(connection, frames)


def note_changed(
    connection: sa.Connection, keys: Iterable[FrameKey | HourKey], *, lost_values: bool = False
) -> None:
    """Note that frames have changed, so that their words are indexed or forgotten.

    Call it in the transaction that inserts, rewrites or deletes them. Until the words are indexed,
    searches read the frames of the noted hours of traces.

    Args:
        lost_values: whether values have left the frames.
    """
    hours = sorted({(key.trace_id, key.start_time) for key in keys})
    if not hours:
        return
    arrays = (
        sa.literal(list(values), sa.ARRAY(_UNINDEXED.c[name].type))
        for values, name in zip(zip(*hours, strict=True), _NOTED, strict=False)
    )
    given = sa.func.unnest(*arrays).table_valued("trace_id", "hour").render_derived(name="given")
    noted = sa.select(*given.c, sa.literal(lost_values))
    connection.execute(sa.insert(_UNINDEXED).from_select(_NOTED, noted))


def deleting_frames(*conditions: sa.ColumnElement[bool]) -> sa.Insert:
    """The statement that deletes frames of spans, and notes that their words are to be forgotten.

    The traces are locked. No row refers to the frames when the transaction ends.
    """
    frames = OF_SPANS.table
    deleted = sa.delete(frames).where(*conditions)
    gone = deleted.returning(frames.c.trace_id, frames.c.start_time).cte("gone")
    noted = sa.select(*gone.c, sa.true()).distinct()
    return sa.insert(_UNINDEXED).from_select(_NOTED, noted)


def opened(key: FrameKey, data: bytes | None) -> Frame | DamagedFrame:
    """The content of a frame that was looked up; an error that names it if it cannot be read.

    Args:
        key: the frame.
        data: its data; None if it is not there.

    Raises:
        ConfigError: Zstandard is not installed.
    """
    if data is None:
        return DamagedFrame(f"{key}: it is missing")
    try:
        return unpack(data)
    except DamagedFrame as error:
        damaged = DamagedFrame(f"{key}: {error}")
        damaged.__cause__ = error
        return damaged


def _has_id(frames: sa.Table, ids: Any) -> sa.ColumnElement[bool]:
    """Whether a frame has one of these ids, or has taken one over."""
    return sa.or_(frames.c.id == sa.func.any(ids), frames.c.packed_ids.overlap(ids))


@cache
def _of_hour(of: FrameSet) -> tuple[sa.Select[Any], sa.Select[Any]]:
    """The statements for one frame, and for some frames, of one hour of one trace.

    That is what most readers ask for: they are planned sooner, above all where one frame is wanted.
    No other frame is read: a large trace has hundreds of them.
    """
    frames = of.table.c
    of_hour = sa.select(frames.id, frames.packed_ids, frames.data).where(
        frames.trace_id == sa.bindparam("trace_id"), frames.start_time == sa.bindparam("start_time")
    )
    one = sa.bindparam("id", type_=frames.id.type)
    some = sa.bindparam("ids", type_=sa.ARRAY(frames.id.type))
    return (
        of_hour.where(sa.or_(frames.id == one, sa.any_(frames.packed_ids) == one)),
        of_hour.where(_has_id(of.table, some)),
    )


def _given(keys: Sequence[FrameKey]) -> sa.FromClause:
    """The keys as a table."""
    columns = zip(_KEY, zip(*keys, strict=True), strict=True)
    types = OF_SPANS.table.c
    arrays = [sa.literal(list(values), sa.ARRAY(types[name].type)) for name, values in columns]
    return sa.func.unnest(*arrays).table_valued(*_KEY).render_derived(name="given")


def is_one_of(keys: Sequence[FrameKey], of: FrameSet = OF_SPANS) -> sa.ColumnElement[bool]:
    """Whether the own key of a frame is one of these, which are at least one."""
    frames, given, hours = of.table.c, _given(keys), [key.start_time for key in keys]
    same = (frames[name] == given.c[name] for name in _KEY)
    return sa.and_(*same, frames.start_time.between(min(hours), max(hours)))


def _selected(keys: Sequence[FrameKey], of: FrameSet) -> sa.Select[Any]:
    """The frames that have these keys. The bounds prune partitions when the statement is planned.

    Each is found once, also if it has taken over many of the keys.
    """
    frames, given, hours = of.table, _given(keys), [key.start_time for key in keys]
    wanted = (
        sa.select(given.c.trace_id, given.c.start_time, sa.func.array_agg(given.c.id).label("ids"))
        .group_by(given.c.trace_id, given.c.start_time)
        .subquery("wanted")
    )
    same = [frames.c[name] == wanted.c[name] for name in ("trace_id", "start_time")]
    columns = (frames.c[name] for name in (*_KEY, "packed_ids", "created_at", "data"))
    return (
        sa.select(*columns)
        .join_from(frames, wanted, sa.and_(*same, _has_id(frames, wanted.c.ids)))
        .where(frames.c.start_time.between(min(hours), max(hours)))
    )


def read_frames(
    connection: sa.Connection | Session, keys: Iterable[FrameKey], of: FrameSet = OF_SPANS
) -> dict[FrameKey, Frame | DamagedFrame]:
    """Read frames, by one statement; none if there are no keys.

    Returns:
        A frame for each key; an error that names it where it is missing or damaged.

    Raises:
        ConfigError: Zstandard is not installed.
    """
    wanted = sorted(set(keys))
    if not wanted:
        return {}
    found: dict[FrameKey, Frame | DamagedFrame] = {}
    first = wanted[0]
    if all(key[:2] == first[:2] for key in wanted):
        ids = [key.id for key in wanted]
        given: dict[str, Any] = {"trace_id": first.trace_id, "start_time": first.start_time}
        one, some = _of_hour(of)
        statement, given["id"] = one, first.id
        if len(ids) > 1:
            statement, given["ids"] = some, ids
        for frame_id, packed_ids, data in connection.execute(statement, given):
            frame = opened(first._replace(id=frame_id), data)
            names = {frame_id, *(packed_ids or ())}.intersection(ids)
            found |= {first._replace(id=name): frame for name in names}
    else:
        for row in connection.execute(_selected(wanted, of)):
            stored = _stored(of, row)
            found |= dict.fromkeys(stored.names(), opened(stored.key, stored.data))
    return {key: found[key] if key in found else opened(key, None) for key in wanted}


def lock_frames(
    connection: sa.Connection, keys: Iterable[FrameKey], of: FrameSet = OF_SPANS
) -> list[StoredFrame]:
    """Lock and read the frames that have these keys, in the order of their own keys."""
    wanted = set(keys)
    found: list[StoredFrame] = []
    # While a frame is waited for, another transaction may put one in its place that has taken over
    # the key. Only the next statement finds it. The lock of a trace rules that out.
    for _ in range(1 if of.has_locked_traces else _ATTEMPTS):
        if not wanted:
            break
        for locking in _locking(connection, wanted, of):
            found += [_stored(of, row) for row in connection.execute(locking)]
        wanted = wanted.difference(name for frame in found for name in frame.names())
    return sorted(found)


def _locking(
    connection: sa.Connection, keys: Collection[FrameKey], of: FrameSet
) -> Iterator[sa.Select[Any]]:
    """The statements that lock and read the frames of these keys: with shards, one for each."""
    frames = of.table

    def locking(some: Iterable[FrameKey]) -> sa.Select[Any]:
        order = (frames.c[name] for name in _KEY)
        return _selected(sorted(some), of).order_by(*order).with_for_update(of=frames)

    if not is_sharded(connection):
        yield locking(keys)
        return
    for traces in ids_by_shard(connection, {key.trace_id for key in keys}):
        of_shard = frames.c.trace_id == sa.any_(
            sa.literal(traces, sa.ARRAY(frames.c.trace_id.type))
        )
        yield locking(key for key in keys if key.trace_id in traces).where(of_shard)


def _stored(of: FrameSet, row: Any) -> StoredFrame:
    return StoredFrame(_key(of, row), row.packed_ids, row.created_at, row.data)


def _key(of: FrameSet, row: Any) -> FrameKey:
    return of.key(row.trace_id, row.start_time, row.id)


def references_to(
    connection: sa.Connection, keys: Iterable[FrameKey], of: FrameSet = OF_SPANS
) -> list[Reference]:
    """The rows that refer to these frames."""
    wanted = sorted(set(keys))
    if not wanted:
        return []
    given, hours = _given(wanted), [key.start_time for key in wanted]
    found = []
    for owners in of.owners:
        rows = owners.table.c
        start = rows[owners.start]
        statement = (
            sa.select(
                given.c.start_time.label("hour"),
                *(rows[name] for name in owners.columns),
                rows.payload_digests,
            )
            .join_from(
                given,
                owners.table,
                sa.and_(
                    rows.trace_id == given.c.trace_id,
                    rows.payload_frame == given.c.id,
                    start >= given.c.start_time,
                    start < given.c.start_time + HOUR,
                ),
            )
            .where(start.between(min(hours), max(hours) + (HOUR - MICROSECOND)))
        )
        found += [
            Reference(
                of.key(row["trace_id"], row["hour"], row["payload_frame"]),
                owners.owner(row),
                owners.digests(row),
            )
            for row in connection.execute(statement).mappings()
        ]
    return found
