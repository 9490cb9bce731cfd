"""Moves the large values of stored rows to frames."""

from __future__ import annotations

from collections import defaultdict

import sqlalchemy as sa

from observatory_storage import StoragePool, jsonb
from observatory_storage.payloads import (
    FrameKey,
    Member,
    hour_of,
    insert_frames,
    move_large,
    new_frame_id,
    owner_of,
)
from observatory_storage.tables import EVENTS, PAYLOAD_FRAMES, SPAN_KEY_OF_EVENT, SPANS


def move_stored(pool: StoragePool, threshold: int = 0) -> int:
    """Move what is larger than the threshold; return how many rows have values in frames then."""
    members: dict[FrameKey, list[Member]] = defaultdict(list)
    ids: defaultdict[object, int] = defaultdict(new_frame_id)
    moved = 0
    with pool.engine.begin() as connection:
        for table, key in (
            (SPANS, ("trace_id", "span_id", "start_time", "start_ns")),
            (EVENTS, (*SPAN_KEY_OF_EVENT, "position")),
        ):
            columns = table.table.c
            rows = connection.execute(sa.select(*(columns[n] for n in key), columns.attributes))
            for *place, attributes in rows.all():
                found = move_large(jsonb.encode(attributes)[0], threshold)
                if found is None:
                    continue
                trace_id, span_id, start, *others = place
                hour = hour_of(start)
                frame = FrameKey(trace_id, hour, ids[trace_id, hour])
                members[frame].append(Member(owner_of(span_id, start, *others), found.values))
                this = (columns[name] == value for name, value in zip(key, place, strict=True))
                connection.execute(
                    sa.update(table.table)
                    .where(*this)
                    .values(
                        attributes=jsonb.decode(found.attributes),
                        payload_frame=frame.id,
                        payload_digests=jsonb.decode(found.digests),
                    )
                )
                moved += 1
    pool.partitions.ensure(PAYLOAD_FRAMES.name, [frame.start_time for frame in members])
    with pool.engine.begin() as connection:
        insert_frames(connection, members)
    return moved


def damage(pool: StoragePool) -> None:
    """Damage the data of all frames."""
    with pool.engine.begin() as connection:
        connection.execute(sa.update(PAYLOAD_FRAMES.table).values(data=b"damaged"))
