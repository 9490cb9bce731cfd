"""Notes about the partitions that retention works on, so that a later run completes a killed one.

A partition is known by its oid. A table that somebody else detached, or made anew under the same
name, has no note and is left alone.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from observatory_storage.lifecycle.stored_partitions import StoredPartition
from observatory_storage.models import EXPIRED_PARTITIONS

__all__ = ["Mark", "Versions", "forget", "marks", "note"]

_COLUMNS: Final = EXPIRED_PARTITIONS.c


class Versions(NamedTuple):
    """How many rows there are, and the sum of their versions, by which a change is noticed."""

    rows: int
    total: int


class Mark(NamedTuple):
    """A note about a partition, and what the catalog has of it.

    Attributes:
        partition: the partition, under the name that it has now.
        exists: whether there is still such a table.
        is_attached: whether it belongs to its table.
        is_leaving: whether it is being detached concurrently.
        archived: the rows that were archived; None if they were not.
    """

    partition: StoredPartition
    state: str
    exists: bool
    is_attached: bool
    is_leaving: bool
    archived: Versions | None


_CLASS: Final = sa.table(
    "pg_class", sa.column("oid"), sa.column("relname"), sa.column("relkind"), schema="pg_catalog"
)
_INHERITS: Final = sa.table(
    "pg_inherits", sa.column("inhrelid"), sa.column("inhdetachpending"), schema="pg_catalog"
)
_MARKS: Final = (
    sa.select(
        EXPIRED_PARTITIONS,
        _CLASS.c.relname,
        _INHERITS.c.inhrelid.is_not(None).label("is_attached"),
        sa.func.coalesce(_INHERITS.c.inhdetachpending, sa.false()).label("is_leaving"),
    )
    .select_from(
        EXPIRED_PARTITIONS.outerjoin(
            _CLASS, sa.and_(_CLASS.c.oid == _COLUMNS.partition_oid, _CLASS.c.relkind == "r")
        ).outerjoin(_INHERITS, _INHERITS.c.inhrelid == _CLASS.c.oid)
    )
    .order_by(_COLUMNS.upper_bound, _COLUMNS.partition_oid)
)


def marks(connection: sa.Connection) -> list[Mark]:
    """All notes, those about the partitions that end first first."""
    return [
        Mark(
            StoredPartition(
                row.upper_bound,
                row.lower_bound,
                row.table_name,
                row.relname or row.partition,
                row.partition_oid,
                0,
            ),
            row.state,
            row.relname is not None,
            row.is_attached,
            row.is_leaving,
            None
            if row.archived_rows is None
            else Versions(row.archived_rows, int(row.archived_versions)),
        )
        for row in connection.execute(_MARKS)
    ]


def note(
    connection: sa.Connection,
    partition: StoredPartition,
    state: str,
    archived: Versions | None = None,
) -> None:
    """Write a note about a partition. It replaces an earlier one."""
    values: dict[str, Any] = {
        "partition": partition.name,
        "table_name": partition.table,
        "lower_bound": partition.lower,
        "upper_bound": partition.upper,
        "state": state,
        "archived_rows": archived.rows if archived else None,
        "archived_versions": archived.total if archived else None,
    }
    statement = insert(EXPIRED_PARTITIONS).values(partition_oid=partition.oid, **values)
    connection.execute(
        statement.on_conflict_do_update(index_elements=["partition_oid"], set_=values)
    )


def forget(connection: sa.Connection, *oids: int) -> None:
    """Remove the notes about these partitions."""
    connection.execute(sa.delete(EXPIRED_PARTITIONS).where(_COLUMNS.partition_oid.in_(oids)))
