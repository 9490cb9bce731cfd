"""Rows whose large values are moved: as they are read and written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any, Final, NamedTuple
from uuid import UUID

import sqlalchemy as sa
from msgspec.json import format as format_json
from sqlalchemy.dialects.postgresql import JSONB

from observatory_storage.distribution import ids_by_shard, is_sharded
from observatory_storage.errors import translated
from observatory_storage.llm.log_facts import may_tell_facts
from observatory_storage.payloads import (
    FrameKey,
    MovedColumns,
    Owner,
    OwnerTable,
    move_from_log,
    move_large,
    put_back_log_text,
    put_back_text,
)
from observatory_storage.storing.transaction import Source
from observatory_storage.tables import LOGS

__all__ = [
    "NewRow",
    "StoredRow",
    "lockable",
    "locked_rows",
    "moved_from",
    "reading",
    "updating",
    "whole_of",
]

_VERSION: Final = b"\x01"  # of jsonb's binary format, see `jsonb`
_Texts = tuple[bytes | None, ...]


class StoredRow(NamedTuple):
    """A row as it is stored, with the columns whose values move as JSON text."""

    key: tuple[Any, ...]
    owner: Owner
    columns: _Texts
    hour: FrameKey
    frame: FrameKey | None
    digests: Mapping[str, str]


class NewRow(NamedTuple):
    """What a row is given."""

    key: tuple[Any, ...]
    columns: _Texts
    frame: int | None = None
    digests: bytes | None = None


def reading(table: OwnerTable) -> sa.Select[Any]:
    """The statement for rows that `stored_row` takes."""
    columns = table.table.c
    names = dict.fromkeys((*table.definition.key, *table.columns, "payload_digests"))
    texts = (sa.cast(columns[name], sa.Text).label(f"{name}_text") for name in table.moving)
    return sa.select(*(columns[name] for name in names), *texts)


def stored_row(table: OwnerTable, row: Any) -> StoredRow:
    """A row that was read by `reading`."""
    columns = row._mapping
    hour = table.of.key(row.trace_id, columns[table.start], 0)
    frame = row.payload_frame
    texts = (columns[f"{name}_text"] for name in table.moving)
    return StoredRow(
        tuple(columns[name] for name in table.definition.key),
        table.owner(columns),
        tuple(None if text is None else format_json(text, indent=-1).encode() for text in texts),
        hour,
        None if frame is None else hour._replace(id=frame),
        table.digests(columns),
    )


def lockable(source: Source, table: OwnerTable, traces: Sequence[UUID]) -> Iterator[Sequence[UUID]]:
    """The traces, divided so that one statement can lock the rows of each part.

    With shards, these are the traces of one shard each. Log records are on the shards of their own
    ids instead: see `locked_rows`.
    """
    if not table.of.has_locked_traces or not is_sharded(source.engine):
        yield traces
        return
    with translated(), source.engine.connect() as connection:
        parts = ids_by_shard(connection, traces)
    yield from parts


def locked_rows(
    connection: sa.Connection, table: OwnerTable, page: sa.Select[Any]
) -> tuple[list[StoredRow], tuple[Any, ...] | None]:
    """Lock and read a page of rows, and the key of its last one; None at the end.

    SQL of users and their sessions may change rows without a lock on the trace.

    Args:
        connection: the connection.
        table: the table.
        page: a statement of `reading`, in the order of the key, for traces that are `lockable`.
    """
    if table.of.has_locked_traces or not is_sharded(connection):
        rows = [stored_row(table, row) for row in connection.execute(page.with_for_update())]
        return rows, rows[-1].key if rows else None
    columns = table.table.c
    key = [columns[name] for name in table.definition.key]
    identity = columns[table.identity]
    found = connection.execute(page.with_only_columns(*key)).all()
    rows = []
    for ids in ids_by_shard(connection, [row.id for row in found], table.definition.name):
        of_shard = page.where(identity == sa.any_(sa.literal(ids, sa.ARRAY(identity.type))))
        rows += [stored_row(table, row) for row in connection.execute(of_shard.with_for_update())]
    return sorted(rows, key=attrgetter("key")), tuple(found[-1]) if found else None


def moved_from(table: OwnerTable, row: StoredRow, threshold: int) -> MovedColumns | None:
    """The row without its large values; None if it has none."""
    columns = [None if text is None else _VERSION + text for text in row.columns]
    attributes = columns[0]
    assert attributes is not None
    if table.definition is LOGS:
        return move_from_log(attributes, columns[1], threshold, stays=may_tell_facts)
    moved = move_large(attributes, threshold)
    return None if moved is None else MovedColumns((moved.attributes,), moved.values, moved.digests)


def whole_of(table: OwnerTable, row: StoredRow, values: Mapping[str, bytes]) -> _Texts:
    """The columns of a row with its whole values."""
    if table.definition is LOGS:
        columns = zip(table.moving, row.columns, strict=True)
        return tuple(text and put_back_log_text(name, text, values) for name, text in columns)
    (attributes,) = row.columns
    assert attributes is not None
    return (put_back_text(attributes, values),)


def updating(table: OwnerTable, rows: Sequence[NewRow]) -> sa.Update:
    """The statement that writes these rows, which are at least one."""
    columns = table.table.c
    given: dict[str, tuple[Any, list[Any]]] = {
        **{
            name: (columns[name].type, [row.key[n] for row in rows])
            for n, name in enumerate(table.definition.key)
        },
        **{
            name: (sa.Text(), [text and text.decode() for text in of_column])
            for name, of_column in zip(
                table.moving, zip(*(row.columns for row in rows), strict=True), strict=True
            )
        },
        "payload_frame": (columns.payload_frame.type, [row.frame for row in rows]),
        "payload_digests": (sa.Text(), [row.digests and row.digests.decode() for row in rows]),
    }
    arrays = (sa.literal(values, sa.ARRAY(kind)) for kind, values in given.values())
    new = sa.func.unnest(*arrays).table_valued(*given).render_derived(name="given")
    starts = given[table.start][1]
    return (
        sa.update(table.table)
        .where(*(columns[name] == new.c[name] for name in table.definition.key))
        .where(columns[table.start].between(min(starts), max(starts)))
        .values(
            payload_frame=new.c.payload_frame,
            **{name: sa.cast(new.c[name], JSONB) for name in (*table.moving, "payload_digests")},
        )
    )
