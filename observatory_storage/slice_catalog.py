"""The slices of open partitions that have indexes of their own, as PostgreSQL's catalog has them.

A slice is a range of time whose rows have arrived. Its indexes are partial: their predicate is that
range. The planner takes such an index if the constants of a statement lie within the predicate.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final, NamedTuple

from sqlalchemy import Connection, text

__all__ = ["SLICE", "SliceIndex", "disjoint", "slice_indexes"]

SLICE: Final = "slice"
"""The part of an index's name that tells it from one of a whole partition."""

# The server casts the bounds, since it prints them in the time zone and style of the session.
_SLICES: Final = text(
    "SELECT c.relname AS partition, i.relname AS name, x.indisvalid AS is_valid,"
    " pg_relation_size(i.oid) AS bytes,"
    " substring(pg_get_expr(x.indpred, x.indrelid) FROM :lower)::timestamptz AS lower,"
    " substring(pg_get_expr(x.indpred, x.indrelid) FROM :upper)::timestamptz AS upper"
    " FROM pg_catalog.pg_class p"
    " JOIN pg_catalog.pg_namespace n ON n.oid = p.relnamespace"
    " JOIN pg_catalog.pg_inherits h ON h.inhparent = p.oid"
    " JOIN pg_catalog.pg_class c ON c.oid = h.inhrelid"
    " JOIN pg_catalog.pg_index x ON x.indrelid = c.oid"
    " JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid"
    " WHERE n.nspname = :schema AND p.relname = :table_name AND x.indpred IS NOT NULL"
    " AND i.relname ~ :name"
).bindparams(lower=">= '([^']+)'", upper="< '([^']+)'", name=f"_{SLICE}_[0-9a-f]{{8}}$")


class SliceIndex(NamedTuple):
    """An index of one slice.

    Attributes:
        lower: the begin of the slice.
        upper: the end of the slice, which is not part of it.
        partition: the partition that has the index.
        name: the name of the index.
        is_valid: False if its build was interrupted, so that no query uses it.
        bytes: its size on disk.
    """

    lower: datetime
    upper: datetime
    partition: str
    name: str
    is_valid: bool
    bytes: int


def slice_indexes(connection: Connection, schema: str, table_name: str) -> list[SliceIndex]:
    """The indexes of slices of all partitions of a table, in the order of their ranges."""
    rows = connection.execute(_SLICES, {"schema": schema, "table_name": table_name})
    return sorted(
        SliceIndex(row.lower, row.upper, row.partition, row.name, row.is_valid, row.bytes or 0)
        for row in rows
    )


def disjoint(ranges: Iterable[tuple[datetime, datetime]]) -> list[tuple[datetime, datetime]]:
    """Ranges that cover the same times and do not overlap, each within one of those given.

    While a slice is replaced by a wider one, both are there: the wider one remains.
    """
    found: list[tuple[datetime, datetime]] = []
    for lower, upper in sorted(ranges, key=lambda one: (one[0], -one[1].timestamp())):
        begin = max(lower, found[-1][1]) if found else lower
        if begin < upper:
            found.append((begin, upper))
    return found
