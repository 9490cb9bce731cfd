"""Packs the frames of a partition that is closed: those of one trace and hour into one.

A trace that was written by many flushes has a frame of each. What it repeats from call to call is
stored once when its frames are one. Rows go on naming the frames that they were written with, so
none of them is changed (see `payloads.stored_frames`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import Any, Final, NamedTuple
from uuid import UUID

import sqlalchemy as sa

from observatory_storage.distribution import is_sharded
from observatory_storage.errors import translated
from observatory_storage.lifecycle.payload_walk import in_key_order
from observatory_storage.lifecycle.run import Run
from observatory_storage.lifecycle.splitting import copy_anew
from observatory_storage.payloads import (
    FULL_FRAME_BYTES,
    OF_SPANS,
    DamagedFrame,
    FrameKey,
    FrameSet,
    Member,
    Owner,
    StoredFrame,
    frame_row,
    is_one_of,
    kept_members,
    lock_frames,
    note_changed,
    opened,
    pack,
    referred_values,
)
from observatory_storage.schema_state import quoted_name
from observatory_storage.storing.trace_upsert import locked_traces
from observatory_storage.storing.transaction import retrying
from observatory_storage.time_ranges import MIN, Range
from observatory_storage.wording import counted

__all__ = ["give_back_space", "pack_partition"]

_log = logging.getLogger(__name__)
# Writers of these traces wait while their frames are packed, for some tenths of a second.
_BYTES_AT_A_TIME: Final = 8 << 20
_FRAMES_AT_A_TIME: Final = 500
_GROUPS_AT_A_TIME: Final = 1_000
_ROW_BYTES: Final = 100  # without the data
_FREE_BYTES: Final = 1 << 20
# The partition is read once while its table is locked: see `splitting`.
_SCANNED_BYTES: Final = 256 << 20
# It makes 10 % less of natural text than the level of writers; level 9 makes 11 % less.
_pack: Final = partial(pack, level=6)


class _Listed(NamedTuple):
    key: FrameKey
    value_bytes: int


_Part = list[_Listed]
"""Frames that become one."""


def pack_partition(run: Run, partition: str, of: FrameSet = OF_SPANS) -> bool:
    """Pack the frames of a partition that were not packed before. False if the deadline came first.

    Values that no row refers to are left out. It works in transactions that lock the rows of their
    traces, as writers do, and can be killed and repeated. The spans of traces without a row are
    left alone.

    Raises:
        ConfigError: there are frames to pack, and Zstandard is not installed.
        StorageError: the database could not be used.
    """
    source = run.source
    packed = made = 0
    for parts in _batches(_parts(run, partition, of)):
        if run.deadline.is_over:
            return False
        packed += sum(map(len, parts))
        made += retrying(source.config, partial(_pack_once, run, parts, of))
    if packed:
        run.progress(f"packed {counted(packed, 'payload frame')} of {partition} into {made}")
    return True


def give_back_space(run: Run, partition: str, held: Range, of: FrameSet = OF_SPANS) -> None:
    """Copy a partition of frames anew if a third of it is free, as it is after packing.

    VACUUM makes the space usable for new rows only, of which a closed partition gets few. Where
    Citus distributes the tables, partitions are not copied.
    """
    if is_sharded(run.source.engine):
        return
    relation = "to_regclass(format('%I.%I', CAST(:schema AS text), CAST(:partition AS text)))"
    measured = sa.text(
        "SELECT coalesce(sum(octet_length(data)), 0) AS data, count(*) AS rows,"  # noqa: S608 - quoted
        f" pg_table_size({relation}) AS bytes, pg_relation_size({relation}) AS scanned"
        f" FROM {quoted_name(run.source.schema)}.{quoted_name(partition)}"
    )
    names = {"schema": run.source.schema, "partition": partition}
    with translated(), run.source.engine.begin() as connection:
        found = connection.execute(measured, names).one()
    needed = found.data + found.rows * _ROW_BYTES
    if found.bytes - needed < max(_FREE_BYTES, found.bytes / 3) or found.scanned > _SCANNED_BYTES:
        return
    if copy_anew(run, of.definition.name, partition, held):
        run.progress(f"gave back about {found.bytes - needed:,} bytes of {partition}")


def _parts(run: Run, partition: str, of: FrameSet) -> Iterator[_Part]:
    """The frames to pack, the parts of one trace and hour one after the other."""
    listing = _listing(run.source.schema, partition)
    after: dict[str, Any] = {"trace_id": UUID(int=0), "start_time": MIN}
    while True:
        with translated(), run.source.engine.begin() as connection:
            in_key_order(connection)
            rows = connection.execute(listing, after).all()
        listed = [_Listed(of.key(*row[:3]), row.value_bytes) for row in rows]
        if not listed:
            return
        for _, group in groupby(listed, key=lambda one: one.key[:2]):
            yield from _divided(group)
        after = {name: getattr(listed[-1].key, name) for name in ("trace_id", "start_time")}


def _divided(group: Iterator[_Listed]) -> Iterator[_Part]:
    part: _Part = []
    for one in group:
        if part and one.value_bytes + sum(each.value_bytes for each in part) > FULL_FRAME_BYTES:
            yield part
            part = []
        part.append(one)
    yield part


def _batches(parts: Iterator[_Part]) -> Iterator[list[_Part]]:
    """As many parts as one transaction packs."""
    batch: list[_Part] = []
    size = count = 0
    for part in parts:
        batch.append(part)
        size += sum(one.value_bytes for one in part)
        count += len(part)
        if size >= _BYTES_AT_A_TIME or count >= _FRAMES_AT_A_TIME:
            yield batch
            batch, size, count = [], 0, 0
    if batch:
        yield batch


def _pack_once(run: Run, parts: Sequence[_Part], of: FrameSet) -> int:
    """Pack parts in a transaction; return how many frames they are now."""
    with translated(), run.source.engine.begin() as connection:
        keys = [one.key for part in parts for one in part]
        present = {key.trace_id for key in keys}
        if of.has_locked_traces:
            present = {trace.id for trace in locked_traces(connection, present)}
        locked = lock_frames(connection, (key for key in keys if key.trace_id in present), of)
        # Another process may have pruned or packed some since they were listed.
        stored = {frame.key: frame for frame in locked}
        digests = referred_values(connection, locked, of)
        replaced: list[FrameKey] = []
        emptied: list[FrameKey] = []
        rows: list[dict[str, Any]] = []
        for part in parts:
            frames = [stored[one.key] for one in part if one.key in stored]
            whole, members = _opened(frames, digests) if len(frames) > 1 else ([], [])
            if len(whole) > 1:
                replaced += [frame.key for frame in whole]
                if members:
                    rows.append(_row(whole, members))
                else:
                    emptied.append(whole[0].key)
        kept = [frame.key for frame in locked if frame.key not in set(replaced)]
        if replaced:
            connection.execute(sa.delete(of.table).where(is_one_of(replaced, of)))
        if rows:
            # The words of these traces and hours stay the same.
            connection.execute(sa.insert(of.table), rows)
        note_changed(connection, emptied, lost_values=True)
        if kept:
            is_new = sa.and_(is_one_of(kept, of), of.table.c.packed_ids.is_(None))
            connection.execute(sa.update(of.table).where(is_new).values(packed_ids=[]))
    return len(kept) + len(rows)


def _opened(
    frames: Sequence[StoredFrame], digests: Mapping[FrameKey, Mapping[Owner, Mapping[str, str]]]
) -> tuple[list[StoredFrame], list[Member]]:
    """The frames that are not damaged, and their members that rows refer to."""
    whole: list[StoredFrame] = []
    members: list[Member] = []
    for frame in frames:
        content = opened(frame.key, frame.data)
        if isinstance(content, DamagedFrame):
            _log.error("%s", content)
            continue
        whole.append(frame)
        members += kept_members(content, digests[frame.key])
    return whole, members


def _row(frames: Sequence[StoredFrame], members: Sequence[Member]) -> dict[str, Any]:
    """The row of the frame that these become. It has the key and the time of the oldest."""
    oldest = frames[0]
    names = [name.id for frame in frames for name in frame.names()]
    packed = {"packed_ids": names[1:], "created_at": oldest.created_at}
    return frame_row(oldest.key, members, _pack) | packed


def _listing(schema: str, partition: str) -> sa.TextClause:
    """A page of the frames of traces and hours that have several, not all of them packed."""
    name = f"{quoted_name(schema)}.{quoted_name(partition)}"
    return sa.text(
        "WITH several AS (SELECT trace_id, start_time"  # noqa: S608 - quoted
        f" FROM {name} WHERE (trace_id, start_time)"
        " > (CAST(:trace_id AS uuid), CAST(:start_time AS timestamptz))"
        " GROUP BY trace_id, start_time HAVING count(*) > 1 AND bool_or(packed_ids IS NULL)"
        f" ORDER BY trace_id, start_time LIMIT {_GROUPS_AT_A_TIME})"
        " SELECT f.trace_id, f.start_time, f.id, f.value_bytes"
        f" FROM several JOIN {name} f USING (trace_id, start_time)"
        " ORDER BY f.trace_id, f.start_time, f.created_at, f.id"
    )
