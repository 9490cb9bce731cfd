"""Statements on stored payload frames: read them, insert them, and remove what no row refers to.

A frame is found by the id of its trace, the hour in UTC in which its spans start, and its own id.
Whoever changes or deletes frames has locked the row of their trace before.
"""

from __future__ import annotations

import logging
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple, cast
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session

from observatory_storage.models import PayloadUnindexed
from observatory_storage.payloads.frame import DamagedFrame, Frame, Member, Owner, pack, unpack
from observatory_storage.payloads.moved_values import digest_of
from observatory_storage.tables import EVENTS, PAYLOAD_FRAMES, SPANS
from observatory_storage.times import MICROSECOND, UNIX_EPOCH

__all__ = [
    "FrameKey",
    "Reference",
    "frame_row",
    "hour_of",
    "hours_of",
    "insert_frames",
    "new_frame_id",
    "note_changed",
    "opened",
    "owner_of",
    "prune_frames",
    "read_frames",
    "references_to",
    "rewrite_frame",
]

_log = logging.getLogger(__name__)
_HOUR: Final = timedelta(hours=1)
_FRAMES: Final = PAYLOAD_FRAMES.table
_UNINDEXED: Final = cast(sa.Table, PayloadUnindexed.__table__)
_KEY: Final = ("trace_id", "start_time", "id")


class FrameKey(NamedTuple):
    """The primary key of a frame.

    Attributes:
        trace_id: the `id` of its trace.
        start_time: the hour in which its spans start; see `hour_of`.
        id: the `payload_frame` of its rows.
    """

    trace_id: UUID
    start_time: datetime
    id: int


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


def hour_of(start: datetime) -> datetime:
    """The hour, in UTC, of a span that starts then: the `start_time` of its frame."""
    return start.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def hours_of(starts: Iterable[datetime]) -> set[datetime]:
    """The hours of spans that start then. They mostly follow each other."""
    hours = set()
    first = last = None
    for start in starts:
        if first is None or last is None or not first <= start <= last:
            first = hour_of(start)
            last = first + (_HOUR - MICROSECOND)
            hours.add(first)
    return hours


def owner_of(
    span_id: str, start_time: datetime, start_ns: int, position: int | None = None
) -> Owner:
    """The owner of values in a frame: a span, or its event at the position."""
    return Owner(span_id, (start_time - UNIX_EPOCH) // MICROSECOND, start_ns, position)


def new_frame_id() -> int:
    """A random id for a new frame."""
    return random.getrandbits(63)


def frame_row(key: FrameKey, members: Iterable[Member]) -> dict[str, Any]:
    """The row of a frame with these members, by the names of its columns.

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


def note_changed(connection: sa.Connection, keys: Iterable[FrameKey]) -> None:
    """Note that frames are new or gone, so that their words are indexed or forgotten.

    Call it in the transaction that inserts or deletes them. Until the words are indexed, searches
    read the frames of the noted hours of traces.
    """
    hours = sorted({(key.trace_id, key.start_time) for key in keys})
    if not hours:
        return
    columns = (_UNINDEXED.c.trace_id, _UNINDEXED.c.start_time)
    arrays = (
        sa.literal(list(values), sa.ARRAY(column.type))
        for values, column in zip(zip(*hours, strict=True), columns, strict=True)
    )
    given = sa.func.unnest(*arrays).table_valued("trace_id", "hour").render_derived(name="given")
    connection.execute(sa.insert(_UNINDEXED).from_select(columns, sa.select(*given.c)))


def opened(key: FrameKey, data: bytes | None) -> Frame | DamagedFrame:
    """The content of a frame that was looked up; an error that names it if it cannot be read.

    Args:
        key: the frame.
        data: its data; None if it is not there.

    Raises:
        ConfigError: Zstandard is not installed.
    """
    name = (
        f"payload frame {key.id} of trace {key.trace_id.hex}, {key.start_time:%Y-%m-%d %H:00} UTC"
    )
    if data is None:
        return DamagedFrame(f"{name}: it is missing")
    try:
        return unpack(data)
    except DamagedFrame as error:
        damaged = DamagedFrame(f"{name}: {error}")
        damaged.__cause__ = error
        return damaged


def _given(keys: Sequence[FrameKey]) -> sa.FromClause:
    """The keys as a table."""
    columns = zip(_KEY, zip(*keys, strict=True), strict=True)
    arrays = [sa.literal(list(values), sa.ARRAY(_FRAMES.c[name].type)) for name, values in columns]
    return sa.func.unnest(*arrays).table_valued(*_KEY).render_derived(name="given")


def _selected(keys: Sequence[FrameKey]) -> sa.Select[Any]:
    """The frames of these keys. The bounds prune partitions when the statement is planned."""
    given, hours = _given(keys), [key.start_time for key in keys]
    return (
        sa.select(*(_FRAMES.c[name] for name in _KEY), _FRAMES.c.data)
        .join_from(_FRAMES, given, sa.and_(*(_FRAMES.c[name] == given.c[name] for name in _KEY)))
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
    data = {_key(row): row.data for row in connection.execute(_selected(wanted))}
    return {key: opened(key, data.get(key)) for key in wanted}


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
                    start < given.c.start_time + _HOUR,
                ),
            )
            .where(start.between(min(hours), max(hours) + (_HOUR - MICROSECOND)))
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


def rewrite_frame(connection: sa.Connection, key: FrameKey, members: Iterable[Member]) -> None:
    """Replace the content of a frame; without members, delete it."""
    this = sa.and_(*(_FRAMES.c[name] == value for name, value in zip(_KEY, key, strict=True)))
    if kept := list(members):
        row = frame_row(key, kept)
        new = {"value_bytes": row["value_bytes"], "data": row["data"]}
        connection.execute(sa.update(_FRAMES).where(this).values(new))
    else:
        connection.execute(sa.delete(_FRAMES).where(this))
        note_changed(connection, (key,))


def prune_frames(connection: sa.Connection, keys: Iterable[FrameKey]) -> None:
    """Remove the values that no row refers to any more from frames, and frames without values.

    Call it in the transaction that replaced or deleted rows of these frames, after that. The rows
    of their traces are locked. A damaged frame stays while rows refer to it, and is logged.

    Raises:
        ConfigError: Zstandard is not installed.
    """
    wanted = sorted(set(keys))
    if not wanted:
        return
    locking = (
        _selected(wanted).order_by(*(_FRAMES.c[name] for name in _KEY)).with_for_update(of=_FRAMES)
    )
    stored = {_key(row): row.data for row in connection.execute(locking)}
    digests: dict[FrameKey, dict[Owner, Mapping[str, str]]] = defaultdict(dict)
    for reference in references_to(connection, stored):
        digests[reference.key][reference.owner] = reference.digests
    for key, data in stored.items():
        referred = digests[key]
        frame = opened(key, data) if referred else Frame()
        if isinstance(frame, DamagedFrame):
            _log.error("%s", frame)
            continue
        kept = [_kept(member, referred.get(member.owner, {})) for member in frame.members()]
        if not referred or kept != frame.members():
            rewrite_frame(connection, key, [member for member in kept if member.values])


def _kept(member: Member, digests: Mapping[str, str]) -> Member:
    """The member with those of its values that the digests name."""
    values = {
        name: value
        for name, value in member.values.items()
        if digests.get(name) == digest_of(value)
    }
    return Member(member.owner, values)
