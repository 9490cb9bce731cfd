"""Rows of spans and events whose large values are moved: as they are read and written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from msgspec.json import format as format_json
from sqlalchemy.dialects.postgresql import JSONB

from observatory_storage.payloads import FrameKey, Owner, hour_of, owner_of
from observatory_storage.tables import EVENTS, SPANS

__all__ = ["OWNERS", "NewRow", "OwnerTable", "StoredRow", "stored_row", "updating"]


class OwnerTable(NamedTuple):
    """A table whose rows may have large values, and the columns of its key."""

    table: sa.Table
    start: str
    key: tuple[str, ...]


class StoredRow(NamedTuple):
    """A row as it is stored, with its attributes as JSON text."""

    key: tuple[Any, ...]
    owner: Owner
    attributes: bytes
    frame: FrameKey | None
    digests: Mapping[str, str]


class NewRow(NamedTuple):
    """What a row is given."""

    key: tuple[Any, ...]
    attributes: str
    frame: int | None = None
    digests: str | None = None


OWNERS: Final = (
    OwnerTable(SPANS.table, "start_time", SPANS.key),
    OwnerTable(EVENTS.table, "span_start_time", EVENTS.key),
)


def stored_row(table: OwnerTable, row: Any) -> StoredRow:
    """A row that was read with its key, its attributes as `text`, and the columns of its frame."""
    columns = row._mapping
    start, start_ns = columns[table.start], columns[table.key[3]]
    frame = row.payload_frame
    return StoredRow(
        tuple(columns[name] for name in table.key),
        owner_of(row.span_id, start, start_ns, columns.get("position")),
        format_json(row.text, indent=-1).encode(),
        None if frame is None else FrameKey(row.trace_id, hour_of(start), frame),
        row.payload_digests or {},
    )


def updating(table: OwnerTable, rows: Sequence[NewRow]) -> sa.Update:
    """The statement that writes these rows, which are at least one."""
    columns = table.table.c
    given = {
        **{
            name: (columns[name].type, [row.key[n] for row in rows])
            for n, name in enumerate(table.key)
        },
        "attributes": (sa.Text(), [row.attributes for row in rows]),
        "payload_frame": (columns.payload_frame.type, [row.frame for row in rows]),
        "payload_digests": (sa.Text(), [row.digests for row in rows]),
    }
    arrays = (sa.literal(values, sa.ARRAY(kind)) for kind, values in given.values())
    new = sa.func.unnest(*arrays).table_valued(*given).render_derived(name="given")
    starts = given[table.start][1]
    return (
        sa.update(table.table)
        .where(*(columns[name] == new.c[name] for name in table.key))
        .where(columns[table.start].between(min(starts), max(starts)))
        .values(
            attributes=sa.cast(new.c.attributes, JSONB),
            payload_frame=new.c.payload_frame,
            payload_digests=sa.cast(new.c.payload_digests, JSONB),
        )
    )
