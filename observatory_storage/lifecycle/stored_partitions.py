"""The partitions that are stored, as the catalog has them: range, size and estimated rows."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

import sqlalchemy as sa

from observatory_storage import layout
from observatory_storage.distribution import is_sharded, planned_rows
from observatory_storage.errors import translated
from observatory_storage.storing.transaction import Source

__all__ = [
    "StoredPartition",
    "aligned",
    "before",
    "bound",
    "estimated_rows",
    "is_one_leaving",
    "partitions_of",
]

_MIN: Final = datetime.min.replace(tzinfo=UTC)
_MAX: Final = datetime.max.replace(tzinfo=UTC)

_PARTITION_SIZES: Final = (
    "SELECT p.relname, p.oid, {size}(p.oid) AS bytes"
    " FROM pg_catalog.pg_inherits h JOIN pg_catalog.pg_class p ON p.oid = h.inhrelid"
    " JOIN pg_catalog.pg_class t ON t.oid = h.inhparent"
    " JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace"
    " WHERE n.nspname = :schema AND t.relname = :table AND NOT h.inhdetachpending"
)
_SIZES: Final = sa.text(_PARTITION_SIZES.format(size="pg_total_relation_size"))
_SIZES_OF_SHARDS: Final = sa.text(_PARTITION_SIZES.format(size="citus_total_relation_size"))
_DETACHING: Final = sa.text(
    "SELECT EXISTS (SELECT FROM pg_catalog.pg_inherits h"
    " JOIN pg_catalog.pg_class t ON t.oid = h.inhparent"
    " JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace"
    " WHERE n.nspname = :schema AND t.relname = ANY(:tables) AND h.inhdetachpending)"
)


class StoredPartition(NamedTuple):
    """A partition.

    Attributes:
        upper: the end of its range, which is not part of it.
        lower: the begin of its range.
        table: the table that it belongs to.
        name: its own name.
        oid: its object identifier.
        bytes: its size on disk with TOAST and indexes.
    """

    upper: datetime
    lower: datetime
    table: str
    name: str
    oid: int
    bytes: int


def partitions_of(source: Source, tables: Iterable[str]) -> list[StoredPartition]:
    """The attached partitions of the tables, those that end first first.

    Those that are being detached are left out.
    """
    found = []
    with translated(), source.engine.begin() as connection:
        for table in tables:
            ranges = layout.named(connection, source.schema, table)
            sizes = connection.execute(
                _SIZES_OF_SHARDS if is_sharded(connection) else _SIZES,
                {"schema": source.schema, "table": table},
            )
            found += [
                StoredPartition(
                    ranges[row.relname].upper,
                    ranges[row.relname].lower,
                    table,
                    row.relname,
                    row.oid,
                    row.bytes or 0,
                )
                for row in sizes
                if row.relname in ranges
            ]
    return sorted(found)


def is_one_leaving(source: Source, tables: Iterable[str]) -> bool:
    """Whether a partition of the tables is being detached concurrently."""
    given = {"schema": source.schema, "tables": list(tables)}
    with translated(), source.engine.connect() as connection:
        return bool(connection.scalar(_DETACHING, given))


def estimated_rows(connection: sa.Connection, schema: str, partition: str) -> int:
    """The rows of a partition, as the planner estimates them from its size."""
    quote = connection.dialect.identifier_preparer.quote
    # Unlike the catalog, the planner has an estimate of a table that was never analysed.
    name = f"{quote(schema)}.{quote(partition)}"
    if is_sharded(connection):
        connection.exec_driver_sql("SET LOCAL citus.explain_all_tasks TO on")
    plan = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) SELECT 1 FROM {name}").scalar()  # noqa: S608 - quoted
    return planned_rows(plan)


def before(now: datetime, age: timedelta) -> datetime:
    """The time of this age. The begin of the calendar if it would lie before."""
    try:
        return now - age
    except OverflowError:
        return _MIN


def aligned(partitions: Iterable[StoredPartition | layout.Range], moment: datetime) -> datetime:
    """The last time not after the moment that lies within none of the partitions."""
    for lower, upper in sorted(((p.lower, p.upper) for p in partitions), reverse=True):
        if lower < moment < upper:
            moment = lower
    return moment


def bound(moment: datetime) -> datetime | None:
    """The bound of a range; None if the range has no such bound."""
    return None if moment in (_MIN, _MAX) else moment
