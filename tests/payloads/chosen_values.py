"""Moves chosen values of stored rows to frames, however small they are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import sqlalchemy as sa

from observatory_storage import StoragePool, jsonb
from observatory_storage.payloads import Member, digest_of, preview_of
from observatory_storage.payloads.frame_keys import FrameKey, hour_of, new_frame_id, owner_of
from observatory_storage.payloads.stored_frames import insert_frames
from observatory_storage.tables import EVENTS, PAYLOAD_FRAMES, SPAN_KEY_OF_EVENT, SPANS

# Whether the value of an attribute is moved.
Choose = Callable[[str], bool]


def move_values(pool: StoragePool, choose: Choose) -> int:
    """Move the attributes that are chosen from rows without frames; return how many rows have."""
    members: dict[FrameKey, list[Member]] = defaultdict(list)
    updates: list[sa.Update] = []
    ids: defaultdict[object, int] = defaultdict(new_frame_id)
    with pool.engine.begin() as connection:
        for table, this, place, attributes in _rows(connection):
            values = {key: jsonb.dumps(value) for key, value in attributes.items() if choose(key)}
            if not values:
                continue
            trace_id, span_id, start, *others = place
            hour = hour_of(start)
            frame = FrameKey(trace_id, hour, ids[trace_id, hour])
            members[frame].append(Member(owner_of(span_id, start, *others), values))
            previews = {key: preview_of(value) for key, value in values.items()}
            digests = {key: digest_of(value) for key, value in values.items()}
            changes = {"attributes": {**attributes, **previews}, "payload_digests": digests}
            updates.append(table.update().where(this).values(**changes, payload_frame=frame.id))
    pool.partitions.ensure(PAYLOAD_FRAMES.name, [frame.start_time for frame in members])
    with pool.engine.begin() as connection:
        insert_frames(connection, members)
        for update in updates:
            connection.execute(update)
    return len(updates)


def _rows(
    connection: sa.Connection,
) -> Iterator[tuple[sa.Table, sa.ColumnElement[bool], Any, dict[str, Any]]]:
    """The rows without frames: each with its table, the condition on its key, and its key."""
    for definition, key in (
        (SPANS, ("trace_id", "span_id", "start_time", "start_ns")),
        (EVENTS, (*SPAN_KEY_OF_EVENT, "position")),
    ):
        table, own = definition.table, [definition.table.c[name] for name in key]
        inline = sa.select(*own, table.c.attributes).where(table.c.payload_frame.is_(None))
        for *place, attributes in connection.execute(inline).all():
            this = sa.and_(*(c == value for c, value in zip(own, place, strict=True)))
            yield table, this, place, attributes
