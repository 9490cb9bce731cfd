"""The partitions of a table in PostgreSQL's catalog, and the statements that make new ones."""

from __future__ import annotations

import re
import zlib
from datetime import datetime
from typing import Final, NamedTuple

from sqlalchemy import Connection, text

from observatory_storage.distribution import is_sharded
from observatory_storage.errors import StorageError
from observatory_storage.time_ranges import MAX, MIN, Range

__all__ = [
    "Partition",
    "advisory_key",
    "attach",
    "being_detached",
    "bounds_of",
    "create_like",
    "existing",
    "free_name",
    "lock",
    "named",
    "partitions_of",
]

_LOCK_TIMEOUT: Final = "2s"
_BOUND: Final = re.compile(r"FROM \((MINVALUE|'[^']+')\) TO \((MAXVALUE|'[^']+')\)")


class Partition(NamedTuple):
    """A partition of a table.

    Attributes:
        name: the name of its table.
        range: the times that it holds.
        is_leaving: whether DETACH CONCURRENTLY has begun, so that it takes no row any more.
    """

    name: str
    range: Range
    is_leaving: bool


def advisory_key(purpose: str, schema: str) -> int:
    """The key of the advisory lock that serialises one purpose in one schema of a database."""
    return zlib.crc32(f"observatory_storage:{purpose}:{schema}".encode())


def lock(connection: Connection, purpose: str, schema: str) -> None:
    """Take the advisory lock of a purpose until the transaction ends, and bound later waits."""
    connection.execute(
        text("SELECT pg_advisory_xact_lock(:key)"), {"key": advisory_key(purpose, schema)}
    )
    if is_sharded(connection):
        # Workers wait for locks, too: perhaps for those of the caller's other connection.
        connection.exec_driver_sql("SET LOCAL citus.propagate_set_commands TO 'local'")
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")


def existing(connection: Connection, schema: str, table_name: str) -> list[Range]:
    """The ranges of the partitions that the table has, in order."""
    return sorted(named(connection, schema, table_name).values())


def named(connection: Connection, schema: str, table_name: str) -> dict[str, Range]:
    """The ranges of the partitions that the table has, by the partitions' names."""
    found = partitions_of(connection, schema, table_name)
    return {each.name: each.range for each in found if not each.is_leaving}


def being_detached(connection: Connection, schema: str, table_name: str) -> list[Range]:
    """The ranges of partitions that are being detached concurrently.

    They take no rows any more, but PostgreSQL accepts no other partition of their range yet.
    """
    found = partitions_of(connection, schema, table_name)
    return [each.range for each in found if each.is_leaving]


def partitions_of(connection: Connection, schema: str, table_name: str) -> list[Partition]:
    """The partitions that the table has, in the order of their ranges."""
    # Bounds are printed in the session's time zone and date style.
    connection.exec_driver_sql("SET LOCAL timezone = 'UTC'")
    connection.exec_driver_sql("SET LOCAL datestyle = 'ISO'")
    rows = connection.execute(
        text(
            "SELECT c.relname, pg_get_expr(c.relpartbound, c.oid), i.inhdetachpending"
            " FROM pg_inherits i"
            " JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_class p ON p.oid = i.inhparent"
            " JOIN pg_namespace n ON n.oid = p.relnamespace"
            " WHERE n.nspname = :schema AND p.relname = :table_name"
        ),
        {"schema": schema, "table_name": table_name},
    )
    found = [Partition(name, _parsed(bound), is_leaving) for name, bound, is_leaving in rows]
    return sorted(found, key=lambda partition: partition.range)


def free_name(connection: Connection, schema: str, table_name: str, suffix: str) -> str:
    """A name for a partition. A table that was detached and kept may have the plain one."""
    name = f"{table_name}_{suffix}"
    taken = set(
        connection.scalars(
            text(
                "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
                " WHERE n.nspname = :schema AND starts_with(c.relname::text, :name)"
            ),
            {"schema": schema, "name": name},
        )
    )
    others = (f"{name}_{number}" for number in range(2, 10))
    free = next((each for each in (name, *others) if each not in taken), None)
    if free is None:
        raise StorageError(
            f"no name is free for a partition of {table_name}: drop detached tables such as {name}"
        )
    return free


def create_like(connection: Connection, schema: str, table_name: str, name: str) -> None:
    """Create a table like the partitioned one, with the same owner, which is not attached to it."""
    child, parent = _qualified(connection, schema, name, table_name)
    connection.exec_driver_sql(f"CREATE TABLE {child} (LIKE {parent} INCLUDING ALL)")
    # Otherwise the owner of the table could not maintain a partition that a member role has made.
    owner = connection.scalar(_OTHER_OWNER, {"schema": schema, "table_name": table_name})
    if owner is not None:
        quoted = connection.dialect.identifier_preparer.quote_identifier(owner)
        connection.exec_driver_sql(f"ALTER TABLE {child} OWNER TO {quoted}")


def attach(connection: Connection, schema: str, table_name: str, name: str, held: Range) -> None:
    """Make a table a partition. It waits neither for readers nor for writers of the parent."""
    child, parent = _qualified(connection, schema, name, table_name)
    lower, upper = bounds_of(held)
    connection.exec_driver_sql(
        f"ALTER TABLE {parent} ATTACH PARTITION {child}"
        f" FOR VALUES FROM ({lower or 'MINVALUE'}) TO ({upper or 'MAXVALUE'})"
    )


def bounds_of(held: Range) -> tuple[str | None, str | None]:
    """The bounds as SQL literals with their offset from UTC; None where there is no bound."""
    lower = None if held.lower == MIN else f"'{held.lower.isoformat()}'"
    upper = None if held.upper == MAX else f"'{held.upper.isoformat()}'"
    return lower, upper


_OTHER_OWNER: Final = text(
    "SELECT pg_get_userbyid(p.relowner) FROM pg_class p"
    " JOIN pg_namespace n ON n.oid = p.relnamespace"
    " WHERE n.nspname = :schema AND p.relname = :table_name"
    " AND pg_get_userbyid(p.relowner) <> current_user"
    " AND has_schema_privilege(p.relowner, n.oid, 'CREATE') AND pg_has_role(p.relowner, CASE"
    " WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END)"
)


def _qualified(connection: Connection, schema: str, *names: str) -> list[str]:
    quote = connection.dialect.identifier_preparer.quote
    return [f"{quote(schema)}.{quote(name)}" for name in names]


def _parsed(bound: str) -> Range:
    match = _BOUND.search(bound)
    if match is None:
        raise StorageError(f"a partition's bound is not a range of time: {bound}")
    lower, upper = match.groups()
    return Range(
        MIN if lower == "MINVALUE" else datetime.fromisoformat(lower.strip("'")),
        MAX if upper == "MAXVALUE" else datetime.fromisoformat(upper.strip("'")),
    )
