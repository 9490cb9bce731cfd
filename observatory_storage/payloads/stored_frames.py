"""Statements on stored payload frames: read them, insert them, and remove what no row refers to.

A frame is found by the id of its trace, the hour in UTC in which its spans start, and its own id.
Maintenance packs frames of one trace and hour into one: this keeps the ids of the others, since
rows go on naming them. So no row has to be written for it, and a row that was read before finds its
values afterwards. Whoever changes or deletes frames has locked the row of their trace before.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, cast

import sqlalchemy as sa
from sqlalchemy.orm import Session

from observatory_storage.models import PayloadUnindexed
from observatory_storage.payloads.frame import DamagedFrame, Frame, Member, Owner, pack, unpack
from observatory_storage.payloads.frame_keys import HOUR, FrameKey, owner_of
from observatory_storage.payloads.word_blocks import HourKey
from observatory_storage.tables import EVENTS, PAYLOAD_FRAMES, SPANS
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
_FRAMES: Final = PAYLOAD_FRAMES.table
_UNINDEXED: Final = cast(sa.Table, PayloadUnindexed.__table__)
_KEY: Final = ("trace_id", "start_time", "id")
_NOTED: Final = ("trace_id", "start_time", "lost_values")


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


def insert_frames(connection: sa.Connection, frames: Mapping[FrameKey, Iterable[Member]]) -> None:
    """Insert frames, in the order of their keys. Their partitions are there.

    Raises:
        ConfigError: Zstandard is not installed.
    """
    if frames:
        rows = [frame_row(key, frames[key]) for key in sorted(frames)]
        connection.execute(sa.insert(_FRAMES), rows)
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
    """The statement that deletes frames, and notes that their words are to be forgotten.

    The traces are locked. No row refers to the frames when the transaction ends.
    """
    deleted = sa.delete(_FRAMES).where(*conditions)
    gone = deleted.returning(_FRAMES.c.trace_id, _FRAMES.c.start_time).cte("gone")
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


def _has_id(ids: Any) -> sa.ColumnElement[bool]:
    """Whether a frame has one of these ids, or has taken one over."""
    return sa.or_(_FRAMES.c.id == sa.func.any(ids), _FRAMES.c.packed_ids.overlap(ids))


_COLUMNS: Final = tuple(_FRAMES.c[name] for name in (*_KEY, "packed_ids", "created_at", "data"))
_IDS: Final = sa.bindparam("ids", type_=sa.ARRAY(_FRAMES.c.id.type))
# For one hour of one trace, which is what most readers ask for: they are planned sooner, above all
# where one frame is wanted. No other frame is read: a large trace has hundreds of them.
_OF_HOUR: Final = sa.select(_FRAMES.c.id, _FRAMES.c.packed_ids, _FRAMES.c.data).where(
    _FRAMES.c.trace_id == sa.bindparam("trace_id"),
    _FRAMES.c.start_time == sa.bindparam("start_time"),
)
_ID: Final = sa.bindparam("id", type_=_FRAMES.c.id.type)
_ONE_OF_HOUR: Final = _OF_HOUR.where(
    sa.or_(_FRAMES.c.id == _ID, sa.any_(_FRAMES.c.packed_ids) == _ID)
)
_SOME_OF_HOUR: Final = _OF_HOUR.where(_has_id(_IDS))


def _given(keys: Sequence[FrameKey]) -> sa.FromClause:
    """The keys as a table."""
    columns = zip(_KEY, zip(*keys, strict=True), strict=True)
    arrays = [sa.literal(list(values), sa.ARRAY(_FRAMES.c[name].type)) for name, values in columns]
    return sa.func.unnest(*arrays).table_valued(*_KEY).render_derived(name="given")


def is_one_of(keys: Sequence[FrameKey]) -> sa.ColumnElement[bool]:
    """Whether the own key of a frame is one of these, which are at least one."""
    given, hours = _given(keys), [key.start_time for key in keys]
    same = (_FRAMES.c[name] == given.c[name] for name in _KEY)
    return sa.and_(*same, _FRAMES.c.start_time.between(min(hours), max(hours)))


def _selected(keys: Sequence[FrameKey]) -> sa.Select[Any]:
    """The frames that have these keys. The bounds prune partitions when the statement is planned.

    Each is found once, also if it has taken over many of the keys.
    """
    given, hours = _given(keys), [key.start_time for key in keys]
    wanted = (
        sa.select(given.c.trace_id, given.c.start_time, sa.func.array_agg(given.c.id).label("ids"))
        .group_by(given.c.trace_id, given.c.start_time)
        .subquery("wanted")
    )
    same = [_FRAMES.c[name] == wanted.c[name] for name in ("trace_id", "start_time")]
    return (
        sa.select(*_COLUMNS)
        .join_from(_FRAMES, wanted, sa.and_(*same, _has_id(wanted.c.ids)))
        .where(_FRAMES.c.start_time.between(min(hours), max(hours)))
    )


def read_frames(
    connection: sa.Connection | Session, keys: Iterable[FrameKey]
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
        statement, given["id"] = _ONE_OF_HOUR, first.id
        if len(ids) > 1:
            statement, given["ids"] = _SOME_OF_HOUR, ids
        for frame_id, packed_ids, data in connection.execute(statement, given):
            frame = opened(first._replace(id=frame_id), data)
            names = {frame_id, *(packed_ids or ())}.intersection(ids)
            found |= {first._replace(id=name): frame for name in names}
    else:
        for stored in map(_stored, connection.execute(_selected(wanted))):
            found |= dict.fromkeys(stored.names(), opened(stored.key, stored.data))
    return {key: found[key] if key in found else opened(key, None) for key in wanted}


def lock_frames(connection: sa.Connection, keys: Iterable[FrameKey]) -> list[StoredFrame]:
    """Lock and read the frames that have these keys, in the order of their own keys."""
    wanted = sorted(set(keys))
    if not wanted:
        return []
    order = [_FRAMES.c[name] for name in _KEY]
    locking = _selected(wanted).order_by(*order).with_for_update(of=_FRAMES)
    return list(map(_stored, connection.execute(locking)))


def _stored(row: Any) -> StoredFrame:
    return StoredFrame(_key(row), row.packed_ids, row.created_at, row.data)


def _key(row: Any) -> FrameKey:
    return FrameKey(row.trace_id, row.start_time.astimezone(UTC), row.id)


def references_to(connection: sa.Connection, keys: Iterable[FrameKey]) -> list[Reference]:
    """The rows that refer to these frames: spans and events."""
    wanted = sorted(set(keys))
    if not wanted:
        return []
    given, hours = _given(wanted), [key.start_time for key in wanted]
    found = []
    for table, span_start, span_start_ns in (
        (SPANS.table, "start_time", "start_ns"),
        (EVENTS.table, "span_start_time", "span_start_ns"),
    ):
        rows, start = table.c, table.c[span_start]
        position = rows.position if "position" in rows else sa.null()
        statement = (
            sa.select(
                *(given.c[name] for name in _KEY),
                rows.span_id,
                start.label("span_start"),
                rows[span_start_ns].label("span_start_ns"),
                position.label("position"),
                rows.payload_digests,
            )
            .join_from(
                given,
                table,
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
                _key(row),
                owner_of(row.span_id, row.span_start, row.span_start_ns, row.position),
                row.payload_digests or {},
            )
            for row in connection.execute(statement)
        ]
    return found
