"""Locks the rows of traces in the order of all writers, so that these do not deadlock."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa

from observatory_storage.distribution import ids_by_shard, is_sharded
from observatory_storage.tables import TRACES

__all__ = ["lock_on_shards", "lock_rows"]

_TRACES: Final = TRACES.table
_LOCK: Final = (
    sa.select(_TRACES.c.id)
    .where(_TRACES.c.id == sa.func.any(sa.bindparam("ids", type_=sa.ARRAY(_TRACES.c.id.type))))
    .order_by(_TRACES.c.id)
    .with_for_update(key_share=True)
)


def lock_rows(
    connection: sa.Connection, locking: sa.Select[Any], trace_ids: Iterable[UUID], **given: Any
) -> list[sa.Row[Any]]:
    """The rows of a statement that locks the rows of the traces `ids` in their order.

    Citus locks the rows of one shard only, so there it is executed for each shard.
    """
    sharded = is_sharded(connection)
    parts = ids_by_shard(connection, trace_ids) if sharded else [list(trace_ids)]
    return [
        row for ids in parts for row in connection.execute(locking, {"ids": ids, **given}).all()
    ]


def lock_on_shards(connection: sa.Connection, trace_ids: Iterable[UUID]) -> None:
    """Where tables have shards, lock stored traces for a statement that is going to change them.

    It would lock them on all workers at the same time, and so in no order. On one server it locks
    them in their order itself.
    """
    if is_sharded(connection):
        lock_rows(connection, _LOCK, trace_ids)
